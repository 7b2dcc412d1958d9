"""Boundaries of what people read as one character: a letter with its marks, an emoji with its modifiers, a flag.

The rules are those of extended grapheme clusters (Unicode's UAX #29), by the properties that Python has. Where Python lacks a
property the answer is that there is no boundary: a few spacing marks and conjuncts of South-East Asia are kept together that UAX
#29 divides, and characters that are newer than its version of Unicode. A boundary that is reported is one.
"""

import unicodedata

_ZWJ = "\u200d"
# Before a mark, ...: joined to what is before, although Python's categories do not say so.
_EXTENDING = frozenset("\u200c\u200d\u0e33\u0eb3\uff9e\uff9f") | {chr(c) for c in range(0x1F3FB, 0x1F400)}
_EXTENDING |= {chr(c) for c in range(0xE0020, 0xE0080)}
# Signs in front of a number or letter, such as the Arabic number sign.
_PREPENDED = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\u0d4e\U000110bd\U000110cd")
_PREPENDED |= frozenset("\U000111c2\U000111c3\U0001193f\U00011941\U00011a3a\U00011d46\U00011f02")
_PREPENDED |= {chr(c) for c in (*range(0x11A84, 0x11A8A), 0x113D1)}
_BREAKING = ("Cc", "Zl", "Zp", "Cf", "Cs")
_UNASSIGNED = "Cn"
_VIRAMA = 9  # canonical combining class of the marks that join two consonants
_REGIONAL = range(0x1F1E6, 0x1F200)


def is_boundary(text: str, index: int) -> bool:
    """Check whether a text may be divided in front of the character `index`; at both ends it may."""
    if not 0 < index < len(text):
        return True
    before, after = text[index - 1], text[index]
    if before.isascii() and after.isascii():
        return (before, after) != ("\r", "\n")
    if before in "\r\n" or after in "\r\n":
        return True
    if _UNASSIGNED in (unicodedata.category(before), unicodedata.category(after)):
        return False  # a later version of Unicode may have it as a mark
    if after in _EXTENDING or unicodedata.category(after).startswith("M"):
        return _breaks(before)
    if before in _PREPENDED:
        return _breaks(after)
    return not (
        _in_hangul(before, after) or _in_emoji(before, after) or _in_conjunct(text, index) or _in_flag(text, index)
    )


def _breaks(character: str) -> bool:
    joined = character in _EXTENDING or character in _PREPENDED
    return not joined and unicodedata.category(character) in _BREAKING


def _in_hangul(before: str, after: str) -> bool:
    """Leading consonants, vowels and trailing consonants, or syllables made of them, in this order."""
    order = {"L": ("L", "V", "LV", "LVT"), "V": ("V", "T"), "LV": ("V", "T"), "T": ("T",), "LVT": ("T",)}
    return _jamo(after) in order.get(_jamo(before), ())


def _jamo(character: str) -> str:
    code = ord(character)
    if 0xAC00 <= code <= 0xD7A3:
        return "LV" if (code - 0xAC00) % 28 == 0 else "LVT"
    ranges = {"L": ((0x1100, 0x115F), (0xA960, 0xA97C)), "V": ((0x1160, 0x11A7), (0xD7B0, 0xD7C6))}
    ranges["T"] = ((0x11A8, 0x11FF), (0xD7CB, 0xD7FB))
    return next((name for name, pairs in ranges.items() for a, b in pairs if a <= code <= b), "")


def _in_emoji(before: str, after: str) -> bool:
    return before == _ZWJ and (unicodedata.category(after) in ("So", "Sm", "Po") or ord(after) >= 0x1F000)


def _in_conjunct(text: str, index: int) -> bool:
    """Two consonants that a virama joins, with marks or joiners between."""
    if unicodedata.category(text[index]) != "Lo":
        return False
    index -= 1
    while index >= 0 and (text[index] == _ZWJ or unicodedata.combining(text[index])):
        if unicodedata.combining(text[index]) == _VIRAMA:
            return True
        index -= 1
    return False


def _in_flag(text: str, index: int) -> bool:
    """The second letter of a flag."""
    if ord(text[index]) not in _REGIONAL:
        return False
    first = index
    while first > 0 and ord(text[first - 1]) in _REGIONAL:
        first -= 1
    return (index - first) % 2 == 1
