"""The student's vocabulary: which of the teacher's pieces it keeps, and the tokenizer of what is left.

A table of 250,002 rows would be three quarters of a small model. Rows are kept by how much text they serve: the share of each
language's tokens in the corpus, weighted, blended with the piece's frequency in the teacher's own training text, which is of all
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


def describe(template: Mapping[str, Any], pieces: Pieces) -> dict[str, Any]:
    """A `tokenizer.json` with the pipeline of another one and these pieces, of which `<mask>` is the last.

    Args:
        template: the content of a `tokenizer.json` of the same family.
        pieces: piece and score by id; the first four are the special ones.
    """
    described: dict[str, Any] = json.loads(json.dumps(template))
    described["model"]["vocab"] = [[piece, score] for piece, score in pieces]
    for token in described["added_tokens"]:
        if token["content"] == MASK:
            token["id"] = len(pieces) - 1
    return described


def build(described: Mapping[str, Any], max_tokens: int) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`, which cuts texts to `max_tokens`."""
    tokenizer = Tokenizer.from_str(json.dumps(described))
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def choose(
    pieces: Pieces,
    counts: Mapping[str, Counter[int]],
    size: int,
    prior: float,
    spelling: float,
    weights: Mapping[str, float],
) -> list[int]:
    """Ids of the pieces to keep, ascending; `<mask>`, which is the last, is kept too.

    Args:
        pieces: piece and score by id of the whole vocabulary.
        counts: language -> how often its text has each id.
        size: pieces to keep.
        prior: weight of the pieces' own frequencies against that of a language's of weight 1.
        spelling: share of a piece's worth that each of its characters is worth: a piece that is left out is spelt, and a
            character that is left out is unknown.
        weights: by language, where it is not 1.
    """
    worth = [prior * math.exp(score) for _, score in pieces]
    for language, counted in counts.items():
        weight, total = weights.get(language, 1.0), sum(counted.values())
        for piece, times in counted.items():
            # Languages with little text count less: of few tokens, each seems frequent.
            worth[piece] += weight * times / (total + 20_000)
    characters = {piece: index for index, (piece, _) in enumerate(pieces) if len(piece) == 1}
    spelt = [0.0] * len(pieces)
    for index, (word, _) in enumerate(pieces[len(SPECIAL) : -1], len(SPECIAL)):
        for character in word:
            if (place := characters.get(character)) is not None:
                spelt[place] += spelling * worth[index]
    worth = [max(own, letters) for own, letters in zip(worth, spelt, strict=True)]
    fixed = [*range(len(SPECIAL)), len(pieces) - 1]
    rest = sorted(set(range(len(pieces))) - set(fixed), key=lambda i: (-worth[i], i))
    return sorted([*fixed, *rest[: size - len(fixed)]])
