"""Passages: paragraphs of text and Markdown files, with their line numbers."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from moembed.search.text_files import Skipped, text_files

_ITEM = re.compile(r"([-*+]|\d+[.)]) ")
_FENCES = ("```", "~~~")


@dataclass(frozen=True)
class Passage:
    """Paragraph of a file.

    Attributes:
        path: path of the file, as the user gave it.
        line: number of its first line, from 1.
        heading: Markdown heading above it, or "".
        text: its lines.
    """

    path: Path
    line: int
    heading: str
    text: str


def passages(paths: Sequence[Path], *, skipped: Callable[[Skipped], None]) -> Iterator[Passage]:
    """Yield the passages of text files; arguments as for `text_files`.

    Raises:
        InputError: a path does not exist, or a file that was named by itself is not UTF-8 text.
    """
    for file, text in text_files(paths, skipped=skipped):
        yield from split(file, text)


def split(path: Path, text: str) -> Iterator[Passage]:
    """Split a text at blank lines, and in Markdown at list items too. A code block belongs to the paragraph before it."""
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
    """Yield paragraphs and list items: the number of the first line, the heading above, and the lines."""
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
