"""Boundaries between characters as people read them, against the rules of UAX #29 in the package regex."""

import random
import unicodedata

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moembed.graphemes import is_boundary

TOGETHER = [
    "👍🏽",
    "e\u0301",
    "🇩🇪",
    "👨‍👩‍👧",
    "क्षि",
    "\u1112\u1161\u11ab",
    "\r\n",
    "❤\ufe0f",
    "กำ",
    "1\ufe0f\u20e3",
    "\u0600\u0661",
]
APART = ["ab", "e\n\u0301", "🇩🇪🇫🇷", "骆驼", "한국", "a b", "👍👍", "\n\n", "किक"]


def boundaries(text):
    return [index for index in range(len(text) + 1) if is_boundary(text, index)]


def by_rules(text):
    return [0, *(found.end() for found in regex.finditer(r"\X", text))]


@pytest.mark.parametrize("text", TOGETHER)
def test_what_is_read_as_one_character_stays_whole(text):
    assert boundaries(text) == [0, len(text)] == by_rules(text)


@pytest.mark.parametrize("text", APART)
def test_other_characters_are_divided(text):
    assert boundaries(text) == by_rules(text) != [0, len(text)]


def test_characters_newer_than_pythons_unicode_are_not_divided():
    every = "".join(chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) == "Cn")
    marks = regex.findall(r"[\p{GCB=Extend}\p{GCB=SpacingMark}]", every)
    for mark in marks:
        assert boundaries(f"0{mark}") == [0, 2], ascii(mark)
    prepended = regex.findall(r"\p{GCB=Prepend}", every)
    for sign in prepended:
        assert boundaries(f"{sign}0") == [0, 2], ascii(sign)
    assert set(boundaries("\u0378\u0301a")) <= set(by_rules("\u0378\u0301a"))


@settings(max_examples=200)
@given(st.text(max_size=12))
@example("0\U00011f34")
def test_a_boundary_is_one_by_the_rules(text):
    known = {found.end() for found in regex.finditer(r"\X", text)} | {0}
    assert set(boundaries(text)) <= known


def test_marks_joiners_and_scripts_with_conjuncts():
    """Characters that rules are about, four at a time. Few boundaries are missed, and none is wrong."""
    rng = random.Random(29)
    assigned = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
    ruled = [c for c in assigned if unicodedata.category(c)[0] in "MC" or 0x900 <= ord(c) < 0x1200 or c > "\U0001f1e5"]
    missed = found = 0
    for _ in range(20_000):
        text = "".join(rng.choice(ruled) for _ in range(4))
        ours, theirs = set(boundaries(text)), set(by_rules(text))
        assert ours <= theirs, ascii(text)
        missed, found = missed + len(theirs - ours), found + len(theirs)
    assert missed < 0.005 * found
