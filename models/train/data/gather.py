"""`python -m moembed.train.data.gather`: text for the trainer out of clones of public repositories.

`public.SOURCES` names them, with their licences; a clone that is missing is passed over. Text that shares 40 characters in a row
with an evaluation set is left out, so that nothing is learned that is measured.
"""

import argparse
import gzip
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from moembed.errors import InputError, MoembedError
from moembed.files.destination import writing
from moembed.train.data.public import SOURCES
from moembed.train.data.repeats import measured

_LEAST = 2  # characters
_T = TypeVar("_T")


def gather(clones: Path, out: Path, pairs: Path | None, evaluation: Sequence[Path]) -> dict[str, int]:
    """Write every distinct text of the clones that are there, and the pairs they have.

    Args:
        clones: folder of clones, each named as its repository without the owner.
        out: JSONL file of texts, gzip.
        pairs: JSONL file of pairs, gzip, or None for none.
        evaluation: folders of evaluation sets.

    Returns:
        Rows of every repository, of `left out`, those that repeat an evaluation set, and of `pairs`.

    Raises:
        InputError: there is no clone, or one is not of the form that its reader knows.
        OutputError: a file cannot be written.
    """
    there = [(source, clones / source.repository.split("/")[1]) for source in SOURCES]
    there = [(source, clone) for source, clone in there if clone.is_dir()]
    if not there:
        raise InputError(f"{clones} holds no clone of {', '.join(source.repository for source in SOURCES)}")
    sieve, found = _Sieve(evaluation), Counter[str]()
    with _jsonl(out) as write:
        for source, clone in there:
            for row in _known(source.repository, clone, source.read):
                text = _plain(row.text)
                if len(text) < _LEAST or sieve.knows(text):
                    continue
                found[source.repository if sieve.passes(text) else "left out"] += 1
                if sieve.passes(text):
                    write({"s": source.repository, "l": row.language, "t": text, "k": row.kind})
    if pairs is not None:
        with _jsonl(pairs) as write:
            for source, clone in there:
                for asked in _known(source.repository, clone, source.pairs):
                    query, document = _plain(asked.query), _plain(asked.document)
                    if sieve.passes(query) and sieve.passes(document):
                        found["pairs"] += 1
                        write({"q": query, "d": document, "k": asked.kind})
    return dict(found)


class _Sieve:
    """Holds back what repeats an evaluation set, and remembers what it has seen."""

    def __init__(self, evaluation: Sequence[Path]) -> None:
        self._measured, self._seen = measured(evaluation), dict[str, bool]()

    def knows(self, text: str) -> bool:
        return text in self._seen

    def passes(self, text: str) -> bool:
        if text not in self._seen:
            self._seen[text] = len(text) >= _LEAST and not self._measured.repeated(text)
        return self._seen[text]


def _known(repository: str, clone: Path, read: Callable[[Path], Iterable[_T]]) -> Iterator[_T]:
    try:
        yield from read(clone)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{clone} is not the {repository} that is known here: {error!r}") from error


def _plain(text: str) -> str:
    return " ".join(text.split())


@contextmanager
def _jsonl(path: Path) -> Iterator[Callable[[dict[str, str]], object]]:
    """A file that is the same bytes whenever and wherever it is written."""
    with (
        writing(path) as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as file,
    ):
        yield lambda row: file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and gather."""
    parser = argparse.ArgumentParser(
        prog="python -m moembed.train.data.gather",
        description=__doc__,
        epilog="\n".join(["repositories at github.com:", *(f"  {one.repository}  ({one.licence})" for one in SOURCES)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("clones", type=Path, help="folder with a clone of each repository")
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSONL file of texts to write, gzip")
    parser.add_argument("--pairs", type=Path, help="JSONL file of pairs to write, gzip")
    parser.add_argument("--without", type=Path, nargs="+", required=True, help="folders of evaluation sets")
    arguments = parser.parse_args(argv)
    try:
        found = gather(arguments.clones, arguments.output, arguments.pairs, arguments.without)
    except MoembedError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    print(json.dumps(found, indent=2))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
