"""Selection of the student's vocabulary from the teacher's, and the tokenizer for it.

An embedding table of 250,002 rows would be three quarters of a small model. Pieces are ranked by their share of the tokens of
each language in the corpus, weighted by language, plus their frequency in the teacher's own training text, which covers all
domains.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
MASK = "<mask>"
Pieces = Sequence[tuple[str, float]]


def tokenizer_json(template: Mapping[str, Any], pieces: Pieces) -> dict[str, Any]:
    """Return a `tokenizer.json` with the pipeline of another one and these pieces, of which `<mask>` is the last.

    Args:
        template: content of a `tokenizer.json` of the same family.
        pieces: piece and score by id; the first four are the special tokens.
    """
    without_pieces = {**template, "model": {**template["model"], "vocab": []}}
    content: dict[str, Any] = json.loads(json.dumps(without_pieces))
    content["model"]["vocab"] = [[piece, score] for piece, score in pieces]
    for token in content["added_tokens"]:
        if token["content"] == MASK:
            token["id"] = len(pieces) - 1
    return content


def build_tokenizer(content: Mapping[str, Any], max_tokens: int) -> Tokenizer:
    """Build the tokenizer of a `tokenizer.json`, which truncates texts to `max_tokens`."""
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def select(
    pieces: Pieces,
    counts: Mapping[str, Counter[int]],
    size: int,
    prior_weight: float,
    spelling_weight: float,
    weights: Mapping[str, float],
) -> list[int]:
    """Return the ids of the pieces to keep, ascending, including the special tokens and `<mask>`, the last piece.

    Args:
        pieces: piece and score by id of the whole vocabulary.
        counts: occurrences of each id, by language.
        size: number of pieces to keep.
        prior_weight: weight of the teacher's piece frequencies, relative to a language of weight 1.
        spelling_weight: share of a piece's score that each of its characters gets: a piece that is left out is spelled in
            characters, and a character that is left out becomes `<unk>`.
        weights: by language; 1 if absent.
    """
    scores = [prior_weight * math.exp(score) for _, score in pieces]
    for language, counted in counts.items():
        weight, total = weights.get(language, 1.0), sum(counted.values())
        for piece, times in counted.items():
            # The constant lowers languages with little text, where every token seems frequent.
            scores[piece] += weight * times / (total + 20_000)
    characters = {piece: index for index, (piece, _) in enumerate(pieces) if len(piece) == 1}
    spelling = [0.0] * len(pieces)
    for index, (word, _) in enumerate(pieces[len(SPECIAL) : -1], len(SPECIAL)):
        for character in word:
            if (place := characters.get(character)) is not None:
                spelling[place] += spelling_weight * scores[index]
    scores = [max(pair) for pair in zip(scores, spelling, strict=True)]
    fixed = [*range(len(SPECIAL)), len(pieces) - 1]
    rest = sorted(set(range(len(pieces))) - set(fixed), key=lambda i: (-scores[i], i))
    return sorted([*fixed, *rest[: size - len(fixed)]])
