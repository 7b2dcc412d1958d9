"""Documentation sites in Markdown and their translations: prose as rows, headings and translated blocks as pairs."""

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
from moembed.train.data.repository import MAIN_LANGUAGES, PAIRS_PER_PARAGRAPH, RawPair, Repository, Row, passages

# Two versions of a page are translations if the lengths of their blocks correlate; few distinct lengths prove nothing.
_MIN_LENGTHS, _MIN_CORRELATION = 4, 0.9


class _Page(NamedTuple):
    blocks: list[str]
    sections: list[Section]


def documentation(name: str, license_name: str, path: str, default_language: str = "en") -> Repository:
    """Describe a repository of Markdown pages and their translations.

    Args:
        name: as in Repository.
        license_name: as in Repository.
        path: pattern of a page's path. The group `page` is the same in all translations; the group `code`, if it matches, is the
            language.
        default_language: language of pages without `code`.
    """
    pattern = re.compile(path)

    def read_rows(clone: Path) -> Iterator[Row]:
        for page_name, versions in _pages(clone, pattern, default_language):
            for language, page in versions.items():
                yield from passages(language, [text for text in page.blocks if text], f"{language} {page_name}")

    def read_pairs(clone: Path) -> Iterator[RawPair]:
        generator = random.Random(name)  # noqa: S311  (not for secrets)
        pages = _pages(clone, pattern, default_language)
        for _, versions in pages:
            aligned = _aligned([page.blocks for page in versions.values()])
            for block in zip(*aligned, strict=True):
                texts = [text for text in block if text]
                for _ in range(min(PAIRS_PER_PARAGRAPH, len(texts) - 1)):
                    one, other = generator.sample(texts, 2)
                    yield RawPair(one, other, "translation")
        yield from _heading_pairs([[page.sections for page in versions.values()] for _, versions in pages], generator)

    return Repository(name, license_name, read_rows, read_pairs)


def _heading_pairs(pages: Sequence[Sequence[Sequence[Section]]], generator: random.Random) -> Iterator[RawPair]:
    """Yield unique headings with the text below them or below their translation; a repeated heading is too vague.

    Args:
        pages: sections of every page in each of its languages.
        generator: samples the translations.
    """
    counts = Counter(section.heading for versions in pages for sections in versions for section in sections)
    unique = {heading for heading, count in counts.items() if heading and count == 1}
    for versions in pages:
        for sections in versions:
            yield from (RawPair(*one, "heading") for one in sections if one.text and one.heading in unique)
        (count, _), *_ = Counter(map(len, versions)).most_common(1)
        for translations in zip(*(sections for sections in versions if len(sections) == count), strict=True):
            for _ in range(min(PAIRS_PER_PARAGRAPH, len(translations) - 1)):
                one, other = generator.sample(translations, 2)
                if other.text and one.heading in unique:
                    yield RawPair(one.heading, other.text, "heading")


@cache
def _pages(clone: Path, path: re.Pattern[str], default_language: str) -> Sequence[tuple[str, Mapping[str, _Page]]]:
    """Read every page, by language."""
    pages: dict[str, dict[str, _Page]] = defaultdict(dict)
    for file in sorted(clone.rglob("*.md")):
        if (match := path.fullmatch(file.relative_to(clone).as_posix())) and not file.name.lower().startswith("change"):
            language = (match.groupdict().get("code") or default_language).split("-")[0]
            if language in MAIN_LANGUAGES and language not in pages[match["page"]]:
                text = file.read_text("utf-8")
                pages[match["page"]][language] = _Page(markdown.blocks(text), markdown.sections(text))
    for versions in pages.values():
        english = versions.get("en", _Page([], []))
        for language, page in versions.items():
            if language != "en":
                _clear_untranslated(page, language, english)
    return sorted(pages.items())


def _clear_untranslated(page: _Page, language: str, english: _Page) -> None:
    """Empty what is still English, or in the script of another language."""
    blocks, headings = set(english.blocks), {section.heading for section in english.sections}
    page.blocks[:] = [
        text if text not in blocks and markdown.matches_script(language, text) else "" for text in page.blocks
    ]
    page.sections[:] = [
        section
        if section.heading not in headings and markdown.matches_script(language, section.text)
        else section._replace(text="")
        for section in page.sections
    ]


def _aligned(versions: Sequence[list[str]]) -> list[list[str]]:
    """Select versions with the most common number of blocks and similar block lengths: translations may be of an older page."""
    (count, _), *_ = Counter(map(len, versions)).most_common(1)
    candidates = [texts for texts in versions if len(texts) == count]
    lengths = [[float(len(text)) for text in texts] for texts in candidates]
    uniform = [len(set(row)) < _MIN_LENGTHS for row in lengths]  # lengths that cannot be compared
    return [
        texts
        for texts, row, is_uniform in zip(candidates, lengths, uniform, strict=True)
        if not is_uniform and not uniform[0] and correlation(lengths[0], row) >= _MIN_CORRELATION
    ]
