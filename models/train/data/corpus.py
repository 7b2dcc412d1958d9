"""Text to convert and train on: JSONL files, held out by the text itself, sampled so that small languages count.

A line is `{"l": language, "t": text, "k": "q" or "d"}`; `k` says whether the text is read as a query or as a document.
"""

import gzip
import hashlib
import json
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

_LEAST = 6  # ids of a text that is worth reading
_BUCKETS = 1 << 16
_BLOCK = 1024
_T = TypeVar("_T")


@dataclass(frozen=True)
class Text:
    """A text with the prompt that its kind takes."""

    language: str
    text: str


class Encoded(NamedTuple):
    """A text, prompt included, and its ids, special tokens included."""

    text: str
    ids: list[int]


def read(paths: Sequence[Path], prompts: Mapping[str, str], held_out: float) -> tuple[list[Text], list[Text]]:
    """Read the files, each distinct text once, and split them: to learn from, and to choose by.

    A text is held out by its own digest, so that the choice does not depend on the files, their order or a seed.

    Args:
        paths: JSONL files, gzip or plain.
        prompts: of `query` and `passage`.
        held_out: share of the texts that is held out.

    Raises:
        InputError: a file cannot be read, or a line is not of the form above.
    """
    seen: set[bytes] = set()
    learned: list[Text] = []
    held: list[Text] = []
    for path in paths:
        for number, row in rows(path):
            text, kind, language = (row.get(key) for key in ("t", "k", "l"))
            if not isinstance(text, str) or not isinstance(language, str) or kind not in ("q", "d"):
                raise InputError(f'{path}:{number}: expected "l", "t" and "k" ("q" or "d"), found {sorted(row)}')
            own = digest(text)
            if own in seen:
                continue
            seen.add(own)
            prompt = prompts["query" if kind == "q" else "passage"]
            (held if is_held_out(own, held_out) else learned).append(Text(language, prompt + text))
    return learned, held


def digest(text: str) -> bytes:
    """What tells texts apart, and decides which are held out."""
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def is_held_out(own: bytes, share: float) -> bool:
    """Whether a text of this digest is held out."""
    return int.from_bytes(own[:2], "little") < share * _BUCKETS


def rows(path: Path) -> Iterable[tuple[int, dict[str, object]]]:
    """The lines of a JSONL file, gzip or plain, with their numbers.

    Raises:
        InputError: it cannot be read, or a line is no object.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise InputError(f"{path}:{number}: expected a JSON object, found {type(row).__name__}")
                yield number, row
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read as JSONL: {error}") from error


def count(texts: Iterable[Text], tokenizer: Tokenizer) -> dict[str, Counter[int]]:
    """How often the text of each language has each id."""
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
    flatten: float,
    emphasis: Mapping[str, float],
    seed: int,
) -> list[Encoded]:
    """Draw texts until they have about so many tokens; texts of fewer than six are passed over.

    A language with n texts is drawn from in proportion to n ** `flatten` times its `emphasis`, or 1, and never twice the same
    text. Drawing more tokens begins with what drawing fewer gives.

    Args:
        texts: to draw from.
        tokenizer: gives the ids, special tokens included, and cuts them.
        tokens: how many to draw; fewer if there are no more.
        flatten: 1 draws languages as they come, 0 all alike.
        emphasis: by language.
        seed: of the drawing.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for text in texts:
        groups[text.language].append(text.text)
    stream = mixed(groups, flatten, emphasis, seed)
    drawn: list[Encoded] = []
    total = 0
    for start in range(0, len(stream), _BLOCK):
        block = stream[start : start + _BLOCK]
        for drawn_text, encoding in zip(block, tokenizer.encode_batch_fast(block), strict=True):
            if total >= tokens:
                return drawn
            if len(encoding.ids) >= _LEAST:
                drawn.append(Encoded(drawn_text, encoding.ids))
                total += len(encoding.ids)
    return drawn


def mixed(groups: Mapping[str, Sequence[_T]], flatten: float, emphasis: Mapping[str, float], seed: int) -> list[_T]:
    """All of several groups in one random order, each spread over it as `sample` draws languages: early, if it is drawn often.

    Args:
        groups: by name.
        flatten: see `sample`.
        emphasis: by name of a group.
        seed: of the order.
    """
    generator = random.Random(seed)  # noqa: S311  (not for secrets)
    order = {name: list(own) for name, own in sorted(groups.items())}
    for own in order.values():
        generator.shuffle(own)
    # The i-th of a group is due when the group's share of the stream has grown to i.
    due = sorted(
        ((position + generator.random()) / (len(own) ** flatten * emphasis.get(name, 1.0)), name, position)
        for name, own in order.items()
        for position in range(len(own))
    )
    return [order[name][position] for _, name, position in due]


def batches(texts: Sequence[Encoded], tokens: int, multiple: int = 1) -> list[Tensor]:
    """Group texts of one length into batches `[texts, length]` int64 of at most `tokens` tokens: nothing is padded.

    Args:
        texts: to group.
        tokens: most tokens of a batch, or one text.
        multiple: cut lengths down to multiples of this, the last special token kept, so that batches are fuller.
    """
    by_length: dict[int, list[list[int]]] = defaultdict(list)
    for _, ids in texts:
        length = max(len(ids) // multiple * multiple, min(len(ids), multiple))
        by_length[length].append([*ids[: length - 1], ids[-1]])
    made = []
    for length in sorted(by_length):
        own, size = by_length[length], max(1, tokens // length)
        made += [torch.tensor(own[start : start + size]) for start in range(0, len(own), size)]
    return made
