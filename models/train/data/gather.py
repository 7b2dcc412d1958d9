"""Training texts and pairs from clones of public repositories (`moembed gather`).

`public_repositories.REPOSITORIES` lists them with their licenses; a missing clone is skipped. Texts that overlap an evaluation
set are left out, so that the model is not trained on what it is evaluated on.
"""

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from moembed.errors import InputError, MoembedError
from moembed.files.destination import writing
from moembed.train.data.decontamination import read_evaluation_texts
from moembed.train.data.public_repositories import REPOSITORIES

_MIN_CHARACTERS = 2
_T = TypeVar("_T")


def gather(clones: Path, out: Path, pairs: Path | None, evaluation: Sequence[Path]) -> dict[str, int]:
    """Write every distinct text of the clones, and their pairs.

    Args:
        clones: folder of clones, each named like its repository without the owner.
        out: JSONL file of texts, gzip.
        pairs: JSONL file of pairs, gzip, or None for none.
        evaluation: folders of evaluation sets.

    Returns:
        Number of rows by repository, of texts `left out` because they overlap an evaluation set, and of `pairs`.

    Raises:
        InputError: there is no clone, or a clone does not have the expected layout.
        OutputError: a file cannot be written.
    """
    found = [(repository, clones / repository.name.split("/")[1]) for repository in REPOSITORIES]
    found = [(repository, clone) for repository, clone in found if clone.is_dir()]
    if not found:
        raise InputError(f"{clones} has no clone of any of {', '.join(one.name for one in REPOSITORIES)}")
    texts, counts = _CheckedTexts(evaluation), Counter[str]()
    with _jsonl(out) as write:
        for repository, clone in found:
            for row in _read(repository.name, clone, repository.read_rows):
                text = _normalized(row.text)
                if len(text) < _MIN_CHARACTERS or text in texts:
                    continue
                if texts.accepts(text):
                    counts[repository.name] += 1
                    write({"s": repository.name, "l": row.language, "t": text, "k": row.kind})
                else:
                    counts["left out"] += 1
    if pairs is not None:
        with _jsonl(pairs) as write:
            for repository, clone in found:
                for pair in _read(repository.name, clone, repository.read_pairs):
                    query, document = _normalized(pair.query), _normalized(pair.document)
                    if texts.accepts(query) and texts.accepts(document):
                        counts["pairs"] += 1
                        write({"q": query, "d": document, "k": pair.kind})
    return dict(counts)


class _CheckedTexts:
    """Texts seen so far, each checked once for an overlap with the evaluation sets."""

    def __init__(self, evaluation: Sequence[Path]) -> None:
        self._evaluation, self._accepted = read_evaluation_texts(evaluation), dict[str, bool]()

    def __contains__(self, text: str) -> bool:
        return text in self._accepted

    def accepts(self, text: str) -> bool:
        if text not in self._accepted:
            self._accepted[text] = len(text) >= _MIN_CHARACTERS and not self._evaluation.overlap(text)
        return self._accepted[text]


def _read(repository: str, clone: Path, read: Callable[[Path], Iterable[_T]]) -> Iterator[_T]:
    try:
        yield from read(clone)
    except MoembedError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{clone} does not have the expected layout of {repository}: {error!r}") from error


def _normalized(text: str) -> str:
    return " ".join(text.split())


@contextmanager
def _jsonl(path: Path) -> Iterator[Callable[[dict[str, str]], object]]:
    """Write a gzipped JSONL file whose bytes depend on its rows alone, not on its name or time."""
    with (
        writing(path) as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as file,
    ):
        yield lambda row: file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
