"""Training texts: JSONL files, split by a digest of the text, and sampled so that small languages are represented.

A line is `{"l": language, "t": text, "k": "q" or "d"}`; `k` selects the prompt for queries or for documents.
"""

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from tokenizers import Tokenizer
from torch import Tensor

from moembed.errors import InputError
from moembed.evaluation.text_lines import json_objects
from moembed.train.data.batching import length_batches, truncated_length
from moembed.train.recipe import Prompts

_MIN_TOKENS = 6  # of a text, special tokens included
_BUCKETS = 1 << 16
_BLOCK = 1024  # texts tokenized at a time
_T = TypeVar("_T")


@dataclass(frozen=True)
class Text:
    """A text, prompt included, and its language."""

    language: str
    text: str


class Encoded(NamedTuple):
    """A text, prompt included, and its token ids, special tokens included."""

    text: str
    ids: list[int]


def read_texts(paths: Sequence[Path], prompts: Prompts, validation_share: float) -> tuple[list[Text], list[Text]]:
    """Read the files, each distinct text once, and split them into training and validation texts.

    The split depends on the digest of each text alone, not on the files, their order or a seed.

    Args:
        paths: JSONL files, gzip or plain.
        prompts: prompts of queries and of passages.
        validation_share: share of the texts held out for validation.

    Raises:
        InputError: a file cannot be read, or a line does not have the form above.
    """
    seen: set[bytes] = set()
    train: list[Text] = []
    validation: list[Text] = []
    for path in paths:
        for number, row in json_objects(path):
            text, kind, language = (row.get(key) for key in ("t", "k", "l"))
            if not isinstance(text, str) or not isinstance(language, str) or kind not in ("q", "d"):
                raise InputError(f'{path}:{number}: expected "l", "t" and "k" ("q" or "d"), found {sorted(row)}')
            key = digest(text)
            if key in seen:
                continue
            seen.add(key)
            prompt = prompts.query if kind == "q" else prompts.passage
            (validation if is_held_out(key, validation_share) else train).append(Text(language, prompt + text))
    return train, validation


def digest(text: str) -> bytes:
    """Return the digest that identifies a text and decides its split."""
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def is_held_out(key: bytes, validation_share: float) -> bool:
    """Check whether the text with this digest is held out for validation."""
    return int.from_bytes(key[:2], "little") < validation_share * _BUCKETS


def count_tokens(texts: Iterable[Text], tokenizer: Tokenizer) -> dict[str, Counter[int]]:
    """Count the occurrences of each token id, by language."""
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    block: list[Text] = []

    def flush() -> None:
        for text, encoding in zip(block, tokenizer.encode_batch_fast([t.text for t in block]), strict=True):
            counts[text.language].update(encoding.ids)
        block.clear()

    for text in texts:
        block.append(text)
        if len(block) == _BLOCK:
            flush()
    flush()
    return dict(counts)


def sample(
    texts: Sequence[Text],
    tokenizer: Tokenizer,
    *,
    tokens: int,
    alpha: float,
    weights: Mapping[str, float],
    seed: int,
) -> list[Encoded]:
    """Sample distinct texts until they have about `tokens` tokens; texts with fewer than six are skipped.

    A language with n texts is sampled in proportion to n ** `alpha` times its weight. A larger sample begins with the smaller
    one.

    Args:
        texts: population.
        tokenizer: gives the ids, special tokens included, and truncates them.
        tokens: number to sample; fewer if the texts have fewer.
        alpha: 1 samples languages in proportion to their texts, 0 all languages alike.
        weights: by language; 1 if absent.
        seed: of the random order.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for text in texts:
        groups[text.language].append(text.text)
    order = interleave(groups, alpha, weights, seed)
    sampled: list[Encoded] = []
    total = 0
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        for text_sampled, encoding in zip(block, tokenizer.encode_batch_fast(block), strict=True):
            if total >= tokens:
                return sampled
            if len(encoding.ids) >= _MIN_TOKENS:
                sampled.append(Encoded(text_sampled, encoding.ids))
                total += len(encoding.ids)
    return sampled


def interleave(groups: Mapping[str, Sequence[_T]], alpha: float, weights: Mapping[str, float], seed: int) -> list[_T]:
    """Shuffle several groups into one order in which groups with a larger sampling rate come earlier.

    Args:
        groups: by name.
        alpha: see `sample`.
        weights: by name of a group.
        seed: of the random order.
    """
    generator = random.Random(seed)  # noqa: S311  (not for secrets)
    shuffled = {name: list(items) for name, items in sorted(groups.items())}
    for items in shuffled.values():
        generator.shuffle(items)
    # The i-th item of a group is due when the group's share of the order reaches i.
    due = sorted(
        ((position + generator.random()) / (len(items) ** alpha * weights.get(name, 1.0)), name, position)
        for name, items in shuffled.items()
        for position in range(len(items))
    )
    return [shuffled[name][position] for _, name, position in due]


def batches(texts: Sequence[Encoded], max_tokens: int, multiple: int = 1) -> list[Tensor]:
    """Group texts of equal length into batches `[texts, length]` int64.

    Args:
        texts: to group.
        max_tokens: limit of a batch, see `length_batches`.
        multiple: lengths are rounded down to multiples of this; the last special token is kept.
    """
    lengths = [truncated_length(len(text.ids), multiple) for text in texts]
    return [
        torch.tensor([[*texts[i].ids[: lengths[i] - 1], texts[i].ids[-1]] for i in indices])
        for indices in length_batches(lengths, max_tokens)
    ]
