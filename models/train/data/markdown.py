"""Extraction of prose from Markdown."""

import html
import re
from typing import NamedTuple

_MIN_CHARACTERS, _MAX_CHARACTERS = 20, 900  # of a block
_MIN_LETTERS = 0.75  # share of letters, non-ASCII characters and spaces in a block
_MIN_SCRIPT = 0.5  # share of letters outside Latin in a language with another script
_LAST_LATIN = "\u024f"  # except the Vietnamese block
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
# Language tables and disclaimers that a translation tool inserts into every page; code, comments, templates.
_EXCLUDED = re.compile(
    r"<!-- CO-OP TRANSLATOR (\w+(?: TABLE)?) START -->.*?<!-- CO-OP TRANSLATOR \1 END -->"
    r"|<!--.*?-->|^[ >]*(```+|~~~+).*?^[ >]*\2[ \t]*$|\{\{.*?\}\}|\{#.*?\}|\{/\*.*?\*/\}|<(script|style|pre)\b.*?</\3>",
    re.DOTALL | re.MULTILINE,
)
_BLOCK_BREAK = re.compile(r"\n[ \t>]*\n|\n(?=[ \t>]*(?:[-*+]|\d+[.)]|#+|\||:::)\s?)|(?<=\|)\n")
_LIST_MARKER = re.compile(r"^[ \t>]*(?:(?:[-*+]|\d+[.)]|\[[ x]\]|\[![A-Z]+\])\s+)*")
_HEADING = re.compile(r"^[ \t>]*#+\s*(.*?)[\s#]*$", re.DOTALL)
_HEADING_NUMBER = re.compile(r"^[\W\d_]+")  # or an emoji
_LINK = re.compile(r"!\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])|\[\^[^\]]*\]|(?<!!)\[([^\[\]]*)\](?:\([^)]*\)|\[[^\]]*\])")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_SENTENCE_ENDS = (".", "!", "?", "。", "！", "？", "؟", "।", "۔", ".”", '."', ".»", ".)", "。）", "」")  # fmt: skip
_QUESTION_MARKS = ("?", "？", "؟")
_NON_LATIN = frozenset("ar bg bn el fa he hi ja ko mr ne ru sr ta te th uk ur zh".split())


class Section(NamedTuple):
    """A heading and the prose below it, up to the next heading; either may be empty."""

    heading: str
    text: str


def sections(text: str) -> list[Section]:
    """Return the sections of a page in order, including those without prose, so that translations stay aligned."""
    found = [Section("", "")]
    for block in _split(text):
        if heading := _HEADING.match(block):
            found.append(Section(_HEADING_NUMBER.sub("", _plain(heading[1])), ""))
        elif (prose := _prose(block)) and len(found[-1].text) + len(prose) < _MAX_CHARACTERS:
            found[-1] = found[-1]._replace(text=f"{found[-1].text} {prose}".lstrip())
    return found


def blocks(text: str) -> list[str]:
    """Return the blocks of a page in order; a block that is not prose is empty, so that translations stay aligned.

    Prose ends with punctuation and is mostly letters; of the headings, questions are kept.
    """
    return [_prose(block) for block in _split(text)]


def _split(text: str) -> list[str]:
    text = _EXCLUDED.sub("\n\n", _FRONT_MATTER.sub("", text.replace("\r\n", "\n")))
    return [block for block in _BLOCK_BREAK.split(text) if block.strip()]


def _prose(block: str) -> str:
    if len(block) < _MIN_CHARACTERS or block.lstrip(" \t>").startswith("|"):
        return ""
    heading = _HEADING.match(block)
    if heading and not heading[1].endswith(_QUESTION_MARKS):
        return ""
    block = _plain(heading[1] if heading else _LIST_MARKER.sub("", block))
    if not _MIN_CHARACTERS <= len(block) <= _MAX_CHARACTERS or not block.endswith(_SENTENCE_ENDS):
        return ""
    if (
        "://" in block
        or "Co-op Translator" in block
        or sum(letter.isalpha() or not letter.isascii() or letter == " " for letter in block)
        < _MIN_LETTERS * len(block)
    ):
        return ""
    return block


def _plain(block: str) -> str:
    """Remove the markup of a block."""
    for _ in range(2):  # a link may contain an image
        block = _LINK.sub(lambda match: match[1] or "", block)
    block = html.unescape(_TAG.sub("", block))
    block = " ".join(re.sub(r"\*\*|__|[`\\]|(?<!\w)[*_]|[*_](?!\w)|^>+|\n[ \t]*>", " ", f" {block} ").split())
    return re.sub(r"(?<=\w) (?=[.,;:!?،؛؟…)])", "", block)


def matches_script(language: str, text: str) -> bool:
    """Check that a text is mostly in Latin letters if its language uses them, and mostly not otherwise."""
    letters = [letter for letter in text if letter.isalpha()]
    non_latin = sum(letter > _LAST_LATIN and not "\u1e00" <= letter <= "\u1eff" for letter in letters)
    return (non_latin >= _MIN_SCRIPT * len(letters)) == (language in _NON_LATIN)
