"""Texts that are hard to tokenize: known edge cases, and seeded random Unicode of the same blocks."""

import random
from collections.abc import Iterator

# Unicode blocks with grapheme clusters, normalization or white space: (first, size).
_BLOCKS = (
    (0x00, 0x80),  # ASCII with its controls
    (0x80, 0x100),  # Latin 1 and Latin Extended: ligatures, © and ® (two-byte pictographs)
    (0x300, 0x70),  # combining marks
    (0x590, 0x70),  # Hebrew points: two-byte Extend
    (0x600, 0x100),  # Arabic, with Prepend characters
    (0x900, 0x80),  # Devanagari: conjuncts
    (0xE00, 0x80),  # Thai
    (0x1100, 0x100),  # Hangul Jamo
    (0x2000, 0x70),  # spaces, joiners, directional marks
    (0x20D0, 0x30),  # enclosing marks
    (0x2580, 0x20),  # U+2581 is the tokenizer's word mark
    (0x3000, 0x100),  # ideographic space, kana with combining voice marks
    (0xAC00, 0x2BA4),  # Hangul syllables
    (0xF900, 0x100),  # CJK compatibility
    (0xFB00, 0x50),  # presentation forms
    (0xFE00, 0x30),  # variation selectors
    (0xFF00, 0xF0),  # full and half width
    (0x1D400, 0x400),  # mathematical letters
    (0x1F1E6, 26),  # regional indicators
    (0x1F3FB, 5),  # skin tones
    (0x1F600, 0x50),  # emoji
    (0xE0100, 0x20),  # variation selectors supplement
)
_SNIPPETS = (
    *(
        "<s>",
        "</s>",
        "<pad>",
        "<unk>",
        "<mask>",
        " <mask>",
        "\u3000\n<mask>",
        "<mask",
        "<s",
        "<<s>>",
        "＜unk＞",
        "＜s＞",
    ),
    *(
        "\r\n",
        "  ",
        "\0",
        "▁",
        "▁▁",
        "\u200d",
        "\ufe0f",
        "ﬁ\u0301",
        "ﷺ",
        "क्ष",
        "क़",
        "👩‍👩‍👧‍👦",
        "🇩🇪",
        "the ",
        "न्",
        "ﬁ\u05c8",
    ),
)

ADVERSARIAL = {
    "nothing": "",
    "only white space": " \t\n\x0b\x0c\r\x1c\x85\xa0\u1680\u2003\u2028\u2029\u202f\u205f\u3000",
    "only what vanishes": "\x01\x02\u200b\ufeff\xad",
    "vanishing first": "\x01\x02abc \x01 def\x03",
    "every ASCII character": "".join(map(chr, range(128))),
    "NUL": "a\0b \0 c\0",
    "specials side by side": "<s></s><pad><unk><mask><mask> <mask>",
    "white space that a special takes": "a \u3000\n<mask> b<mask>  <s> <mask>",
    "specials across normalization": "＜s＞ <\u200bs> <ｓ> < s>",
    "unknown piece by normalization": "x＜unk＞y ＜unk＞＜unk＞ \U00012000＜unk＞\U00012000",
    "marks": "▁ ▁a▁▁b▁ a▁ _▁_",
    "ties": "aaaaaaaaaaaa " + "ab" * 40 + " " + "-" * 77 + " " + "の" * 30,
    "one long word": "Donaudampfschifffahrt" * 300,
    "one long unknown": "\U00012000\U00013000" * 2000,
    "known and unknown": "a\U00012000" * 500,
    "tall stacks": "Z" + "\u0301\u0323\u0489" * 400 + "algo",
    "flags": "🇩🇪🇫🇷🇺" * 100,
    "families": "👩‍👩‍👧‍👦👨🏽‍🚀©\u200d®" * 60,
    "syllables": "각ᄀ" + "ᄀ" * 50 + "가" + "ᆨ" * 50,
    "conjuncts": "क्षत्रिय" * 50 + "क" + "्" * 40 + "ष",
    "prepended": "\u0600\u0600١٢٣ \u0600<s>",
    "expansions": "ﷺ" * 50 + "㍿㋿ﬃ",
    "ligatures under accents": "ﬁ\u0301 ﬂ\u0308 ™\u0301 ½\u0300 Å\u0300",
    "carriage returns": "a\r\nb\r\r\n\n\rc",
    "direction": "\u202eabc\u202c \u2066x\u2069",
    "last code points": "\U0010ffff\ufffe\uffff\ue000\U000f0000",
    "zero width": "a\u200bb\u200cc\u200dd\u2060e\ufefff",
}


def random_texts(seed: int, count: int) -> Iterator[str]:
    """Yield `count` random texts of up to 40 characters, without surrogates; equal seeds give equal texts."""
    rng = random.Random(seed)
    for _ in range(count):
        parts = []
        for _ in range(rng.randrange(1, 30)):
            kind = rng.random()
            if kind < 0.1:
                parts.append(rng.choice(_SNIPPETS))
            elif kind < 0.8:
                first, size = rng.choice(_BLOCKS)
                parts.append(chr(first + rng.randrange(size)))
            else:
                parts.append(chr(rng.randrange(0x10000 if kind < 0.95 else 0x110000)))
        yield "".join(part for part in parts if not "\ud800" <= part <= "\udfff")
