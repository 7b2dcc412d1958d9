"""The paragraphs of text and Markdown files, each with the line it starts at."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from moembed.errors import InputError

SUFFIXES = (".md", ".markdown", ".txt", ".rst")
_ITEM = re.compile(r"([-*+]|\d+[.)]) ")
_FENCES = ("```", "~~~")
_SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__", "build", "dist", "site-packages"})


@dataclass(frozen=True)
class Passage:
    """A paragraph.

    Attributes:
        path: its file, as the user named it.
        line: line it starts at, from 1.
        heading: the Markdown heading it stands under, or "".
        text: its lines.
    """

    path: Path
    line: int
    heading: str
    text: str


def text_files(paths: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """Yield each file once, in order, and whether it was named itself rather than found in a folder.

    Raises:
        InputError: a path does not exist.
    """
    seen = set()
    for path in paths:
        if path.is_dir():
            found = [(file, False) for file in _walk(path)]
        elif path.exists():
            found = [(path, True)]
        else:
            raise InputError(f"no file or folder {path}")
        for file, named in found:
            if (real := file.resolve()) not in seen:
                seen.add(real)
                yield file, named


def passages(paths: Sequence[Path], *, skipped: Callable[[str], None]) -> Iterator[Passage]:
    """Yield the paragraphs of the files under the paths.

    Args:
        paths: files of any suffix, and folders, which are searched for `SUFFIXES`; hidden folders are left out.
        skipped: told of a file in a folder that is not UTF-8 text.

    Raises:
        InputError: a path does not exist, or a file that was named itself is not UTF-8 text.
    """
    for file, named in text_files(paths):
        try:
            text = file.read_bytes().decode("utf-8-sig")
            if "\0" in text:
                raise ValueError("it holds NUL bytes")
        except (OSError, ValueError) as error:
            if named:
                raise InputError(f"{file} cannot be read as UTF-8 text: {error}") from error
            skipped(f"{file}: not UTF-8 text")
            continue
        yield from split(file, text)


def split(path: Path, text: str) -> Iterator[Passage]:
    """Split a text at blank lines, in Markdown also at list items; code joins the paragraph before it, headings lead."""
    last: Passage | None = None
    lines = text.splitlines()
    markdown = path.suffix.lower() in (".md", ".markdown")
    for line, heading, block in _blocks(lines, markdown=markdown):
        if last is not None and markdown and block[0].lstrip().startswith(_FENCES):
            gap = lines[last.line + last.text.count("\n") : line - 1]
            if not any(between.strip() for between in gap):
                last = Passage(path, last.line, last.heading, "\n".join([last.text, *("" for _ in gap), *block]))
                continue
        if last is not None:
            yield last
        last = Passage(path, line, heading, "\n".join(block))
    if last is not None:
        yield last


def _blocks(lines: Sequence[str], *, markdown: bool) -> Iterator[tuple[int, str, list[str]]]:
    """Runs of lines of one paragraph or list item: first line's number, heading above, the lines."""
    heading, fence, start = "", "", 1
    block: list[str] = []
    for number, line in enumerate(lines, 1):
        mark = line.strip()[:3] if markdown and line.strip().startswith(_FENCES) else ""
        title = markdown and line.startswith("#")
        if block and not fence and markdown and _ITEM.match(line):
            yield start, heading, block
            block = []
        if fence or mark or (line.strip() and not title):
            start = start if block else number
            block.append(line.rstrip())
            if mark:
                fence = "" if mark == fence else fence or mark
            continue
        if block:
            yield start, heading, block
            block = []
        heading = line.strip("# \t") if title else heading
    if block:
        yield start, heading, block


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED_FOLDERS)
        yield from (Path(root) / name for name in sorted(names) if Path(name).suffix.lower() in SUFFIXES)
