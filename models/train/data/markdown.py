"""Prose out of Markdown."""

import html
import re
from typing import NamedTuple

_LEAST, _MOST = 20, 900  # characters of a block
_LETTERS = 0.75  # of a block are letters, marks or spaces
_OWN = 0.5  # letters of a language with a script of its own that are in it
_LATIN = "\u024f"  # the last of them, but for those of Vietnamese
_FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
# Tables of languages and disclaimers that a translating program puts into every page, code, comments, templates.
_LEFT_OUT = re.compile(
    r"<!-- CO-OP TRANSLATOR (\w+(?: TABLE)?) START -->.*?<!-- CO-OP TRANSLATOR \1 END -->"
    r"|<!--.*?-->|^[ >]*(```+|~~~+).*?^[ >]*\2[ \t]*$|\{\{.*?\}\}|\{#.*?\}|\{/\*.*?\*/\}|<(script|style|pre)\b.*?</\3>",
    re.DOTALL | re.MULTILINE,
)
_BREAK = re.compile(r"\n[ \t>]*\n|\n(?=[ \t>]*(?:[-*+]|\d+[.)]|#+|\||:::)\s?)|(?<=\|)\n")
_LEAD = re.compile(r"^[ \t>]*(?:(?:[-*+]|\d+[.)]|\[[ x]\]|\[![A-Z]+\])\s+)*")
_HEADING = re.compile(r"^[ \t>]*#+\s*(.*?)[\s#]*$", re.DOTALL)
_NUMBER = re.compile(r"^[\W\d_]+")  # or a picture, before a heading
_LINK = re.compile(r"!\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])|\[\^[^\]]*\]|(?<!!)\[([^\[\]]*)\](?:\([^)]*\)|\[[^\]]*\])")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_ENDS = (".", "!", "?", "。", "！", "？", "؟", "।", "۔", ".”", '."', ".»", ".)", "。）", "」")  # fmt: skip
_ASKS = ("?", "？", "؟")
_SCRIPTS = frozenset("ar bg bn el fa he hi ja ko mr ne ru sr ta te th uk ur zh".split())


class Section(NamedTuple):
    """A heading, and the prose under it until the next one; either may be empty."""

    heading: str
    text: str


def sections(text: str) -> list[Section]:
    """The sections of a page in their order, those without prose too, so that translations stay in step."""
    found = [Section("", "")]
    for block in _split(text):
        if heading := _HEADING.match(block):
            found.append(Section(_NUMBER.sub("", _plain(heading[1])), ""))
        elif (prose := _prose(block)) and len(found[-1].text) + len(prose) < _MOST:
            found[-1] = found[-1]._replace(text=f"{found[-1].text} {prose}".lstrip())
    return found


def blocks(text: str) -> list[str]:
    """The blocks of a page in their order; those that are no prose are empty, so that translations stay in step.

    Prose ends as sentences do and is mostly letters; of headings, questions are kept.
    """
    return [_prose(block) for block in _split(text)]


def _split(text: str) -> list[str]:
    text = _LEFT_OUT.sub("\n\n", _FRONT.sub("", text.replace("\r\n", "\n")))
    return [block for block in _BREAK.split(text) if block.strip()]


def _prose(block: str) -> str:
    if len(block) < _LEAST or block.lstrip(" \t>").startswith("|"):
        return ""
    heading = _HEADING.match(block)
    if heading and not heading[1].endswith(_ASKS):
        return ""
    block = _plain(heading[1] if heading else _LEAD.sub("", block))
    if not _LEAST <= len(block) <= _MOST or not block.endswith(_ENDS):
        return ""
    if (
        "://" in block
        or "Co-op Translator" in block
        or sum(letter.isalpha() or not letter.isascii() or letter == " " for letter in block) < _LETTERS * len(block)
    ):
        return ""
    return block


def _plain(block: str) -> str:
    """A block without its marks."""
    for _ in range(2):  # a link may be around an image
        block = _LINK.sub(lambda found: found[1] or "", block)
    block = html.unescape(_TAG.sub("", block))
    block = " ".join(re.sub(r"\*\*|__|[`\\]|(?<!\w)[*_]|[*_](?!\w)|^>+|\n[ \t]*>", " ", f" {block} ").split())
    return re.sub(r"(?<=\w) (?=[.,;:!?،؛؟…)])", "", block)


def written(language: str, text: str) -> bool:
    """Whether a text is mostly in Latin letters, or mostly not, as its language is."""
    letters = [letter for letter in text if letter.isalpha()]
    other = sum(letter > _LATIN and not "\u1e00" <= letter <= "\u1eff" for letter in letters)
    return (other >= _OWN * len(letters)) == (language in _SCRIPTS)
