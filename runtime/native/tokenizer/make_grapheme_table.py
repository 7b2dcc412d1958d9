"""Writes grapheme_table.h: the properties of Unicode 17.0 for grapheme clusters (UAX #29), as sorted ranges.

    pip install regex==2025.11.3 && python runtime/native/tokenizer/make_grapheme_table.py

That release of `regex` has the properties of Unicode 17.0, the version that `tokenizers` 0.23 uses. Hangul syllables are left
out: whether one ends in a final consonant follows from its number.
"""

from pathlib import Path

import regex

_RELEASE = "2025.11.3"
# In the order of `enum class Cluster` in graphemes.h, which begins with Other, Linker and ExtendOnly.
_PROPERTIES = {
    "Carriage": "GCB=CR",
    "Feed": "GCB=LF",
    "Control": "GCB=Control",
    "Extend": "GCB=Extend",
    "Joiner": "GCB=ZWJ",
    "Regional": "GCB=Regional_Indicator",
    "Prepend": "GCB=Prepend",
    "Spacing": "GCB=SpacingMark",
    "L": "GCB=L",
    "V": "GCB=V",
    "T": "GCB=T",
    "Pictograph": "Extended_Pictographic",
    "Consonant": "InCB=Consonant",
}
_HANGUL = range(0xAC00, 0xD7A4)
_SURROGATES = range(0xD800, 0xE000)


def main() -> None:
    """Write the header beside this file."""
    if regex.__version__ != _RELEASE:
        raise SystemExit(f"regex {regex.__version__} is installed; the table comes from {_RELEASE} (Unicode 17.0)")
    text = "".join(chr(code) for code in range(0x110000) if code not in _SURROGATES)
    kinds = ["Other"] * 0x110000
    for kind, property_ in _PROPERTIES.items():
        for match in regex.finditer(rf"\p{{{property_}}}", text):
            kinds[ord(match.group())] = kind
    for match in regex.finditer(r"\p{InCB=Linker}", text):
        kinds[ord(match.group())] = "Linker"
    kinds[0x200C] = "ExtendOnly"  # the one Extend that ends a conjunct
    conjoining = {ord(m.group()) for m in regex.finditer(r"\p{InCB=Extend}", text)}
    if conjoining != {c for c, kind in enumerate(kinds) if kind in ("Extend", "Joiner")}:
        raise SystemExit("InCB=Extend is no longer Extend and ZWJ without linkers and ZWNJ: divide `Cluster` anew")
    for code in _HANGUL:
        kinds[code] = "Other"
    starts = [code for code in range(0x110000) if code == 0 or kinds[code] != kinds[code - 1]]
    order = ["Other", "Linker", "ExtendOnly", *_PROPERTIES]
    cells = [f"0x{code << 8 | order.index(kinds[code]):07x}" for code in starts]
    Path(__file__).with_name("grapheme_table.h").write_text(_HEADER + _lines(cells) + _FOOTER, "ascii")


def _lines(cells: list[str]) -> str:
    lines, line = [], "   "
    for cell in cells:
        if len(line) + len(cell) > 117:
            lines.append(line)
            line = "   "
        line += f" {cell},"
    return "\n".join([*lines, line])


_HEADER = """// Written by make_grapheme_table.py from the properties of Unicode 17.0; do not edit.
#pragma once

#include <cstdint>

namespace moembed {

// clang-format off
// Code point << 8 | Cluster: the kind of every code point up to the next entry. Hangul syllables are left out.
constexpr uint32_t kClusterStarts[] = {
"""
_FOOTER = """
};
// clang-format on

}  // namespace moembed
"""

if __name__ == "__main__":
    main()
