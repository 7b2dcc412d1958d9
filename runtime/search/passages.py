"""Paragraphs of text and Markdown files, each with the line it starts at."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from moembed.search.text_files import Skipped, text_files

_ITEM = re.compile(r"([-*+]|\d+[.)]) ")
_FENCES = ("```", "~~~")


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


def passages(paths: Sequence[Path], *, skipped: Callable[[Skipped], None]) -> Iterator[Passage]:
    """Yield the paragraphs of the text files under the paths; arguments as for `text_files`.

    Raises:
        InputError: a path does not exist, or a file that was named itself is not UTF-8 text.
    """
    for file, text in text_files(paths, skipped=skipped):
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
