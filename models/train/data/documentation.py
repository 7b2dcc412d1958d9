"""Manuals in Markdown, and their translations: prose as rows, and as pairs of a heading or a block and what goes with it."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import correlation
from typing import NamedTuple

from moembed.train.data import markdown
from moembed.train.data.markdown import Section
from moembed.train.data.repository import READ, TURNS, Asked, Row, Source, passages

_PROOF, _ALIKE = 4, 0.9  # lengths of paragraphs that tell translations apart, and how well they must agree


class _Page(NamedTuple):
    blocks: list[str]
    sections: list[Section]


def manual(repository: str, licence: str, path: str, first: str = "en") -> Source:
    """Pages in Markdown, and their translations.

    Args:
        repository: as in Source.
        licence: as in Source.
        path: of a page: the group `page` is common to its translations; `code`, if there, names the language.
        first: the language where no code is.
    """
    pattern = re.compile(path)

    def read(clone: Path) -> Iterator[Row]:
        for name, versions in _pages(clone, pattern, first):
            for language, page in versions.items():
                yield from passages(language, [text for text in page.blocks if text], f"{language} {name}")

    def pairs(clone: Path) -> Iterator[Asked]:
        generator = random.Random(repository)  # noqa: S311  (not for secrets)
        pages = _pages(clone, pattern, first)
        for _, versions in pages:
            aligned = _aligned([page.blocks for page in versions.values()])
            for block in zip(*aligned, strict=True):
                texts = [text for text in block if text]
                for _ in range(min(TURNS, len(texts) - 1)):
                    one, other = generator.sample(texts, 2)
                    yield Asked(one, other, "translation")
        yield from _headed([[page.sections for page in versions.values()] for _, versions in pages], generator)

    return Source(repository, licence, read, pairs)


def _headed(pages: Sequence[Sequence[Sequence[Section]]], generator: random.Random) -> Iterator[Asked]:
    """A heading and what is written under it, or under its translation; what is a heading twice tells too little.

    Args:
        pages: sections of every page, in every language that it is in.
        generator: draws the translations.
    """
    often = Counter(section.heading for versions in pages for sections in versions for section in sections)
    telling = {heading for heading, count in often.items() if heading and count == 1}
    for versions in pages:
        for sections in versions:
            yield from (Asked(*one, "heading") for one in sections if one.text and one.heading in telling)
        (count, _), *_ = Counter(map(len, versions)).most_common(1)
        for translations in zip(*(sections for sections in versions if len(sections) == count), strict=True):
            for _ in range(min(TURNS, len(translations) - 1)):
                one, other = generator.sample(translations, 2)
                if other.text and one.heading in telling:
                    yield Asked(one.heading, other.text, "heading")


@cache
def _pages(clone: Path, path: re.Pattern[str], first: str) -> Sequence[tuple[str, Mapping[str, _Page]]]:
    """Every page, by language."""
    pages: dict[str, dict[str, _Page]] = defaultdict(dict)
    for file in sorted(clone.rglob("*.md")):
        if (match := path.fullmatch(file.relative_to(clone).as_posix())) and not file.name.lower().startswith("change"):
            language = (match.groupdict().get("code") or first).split("-")[0]
            if language in READ and language not in pages[match["page"]]:
                text = file.read_text("utf-8")
                pages[match["page"]][language] = _Page(markdown.blocks(text), markdown.sections(text))
    for versions in pages.values():
        english = versions.get("en", _Page([], []))
        source, headings = set(english.blocks), {section.heading for section in english.sections}
        for language, page in versions.items():
            if language != "en":  # what is not translated stays out, and what another language than this is written in
                page.blocks[:] = [
                    text if text not in source and markdown.written(language, text) else "" for text in page.blocks
                ]
                page.sections[:] = [
                    section
                    if section.heading not in headings and markdown.written(language, section.text)
                    else section._replace(text="")
                    for section in page.sections
                ]
    return sorted(pages.items())


def _aligned(versions: Sequence[list[str]]) -> list[list[str]]:
    """Those with as many blocks as most have, about as long block for block: translations may be of an older page."""
    (count, _), *_ = Counter(map(len, versions)).most_common(1)
    fitting = [texts for texts in versions if len(texts) == count]
    lengths = [[float(len(text)) for text in texts] for texts in fitting]
    even = [len(set(own)) < _PROOF for own in lengths]  # nothing to compare
    return [
        texts
        for texts, own, flat in zip(fitting, lengths, even, strict=True)
        if not flat and not even[0] and correlation(lengths[0], own) >= _ALIKE
    ]
