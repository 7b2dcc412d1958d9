"""Counts of the values in a JSON body, taken before it is decoded.

A decoder creates an object for every value before anything can count them: 16 MB of `[[],[],...]` become 400 MB, and other
requests wait for seconds, since the decoder holds the GIL throughout. Counting takes a fixed amount of memory and releases the
GIL between blocks.
"""

from dataclasses import dataclass

from moembed.server.errors import TooLargeError, TooManyTextsError
from moembed.server.settings import Settings

# Smaller bodies are cheap to decode, whatever they contain.
SMALL = 65_536
_BLOCK = 65_536
# Strings, and arrays and objects, per text that a request may contain: Cohere's longest form needs 5 and 3.
_PER_TEXT = 16
# Numbers per text that a request may contain: the token ids of a text.
_NUMBERS_PER_TEXT = 512
_CONTINUATIONS = bytes(range(0x80, 0xC0))


@dataclass
class JsonCounts:
    """Counts of a JSON body. They are exact for valid JSON, and an upper bound of what a decoder reads of any other.

    Attributes:
        strings: strings, keys included.
        characters: characters in the strings; one that is written as two escapes counts twice.
        containers: arrays and objects.
        commas: commas between values.
    """

    strings: int = 0
    characters: int = 0
    containers: int = 0
    commas: int = 0

    def check(self, settings: Settings) -> None:
        """Compare the counts with the limits of a request.

        Raises:
            TooManyTextsError: more strings, arrays, objects or values than the largest request has.
            TooLargeError: more characters than a request may contain.
        """
        texts = settings.max_inputs
        for count, limit, kind in (
            (self.strings, texts * _PER_TEXT, "strings"),
            (self.containers, texts * _PER_TEXT, "arrays and objects"),
            (self.commas, texts * _NUMBERS_PER_TEXT, "values"),
        ):
            if count > limit:
                raise TooManyTextsError(
                    f"the body has more than {limit} {kind}; the limit is {texts} texts per request: send fewer at a time"
                )
        # Twice the limit, since escapes and keys are counted too; the texts themselves are checked once they are decoded.
        if self.characters > 2 * settings.max_characters:
            raise TooLargeError(
                f"the body has more than {2 * settings.max_characters} characters; the limit is {settings.max_characters} "
                "characters of text per request: send less at a time"
            )


def count_json(raw: bytes, block_size: int = _BLOCK) -> JsonCounts:
    """Count the values of a JSON body, block by block."""
    counts = JsonCounts()
    # Whether the block starts inside a string, and whether the previous block ended with an escaping backslash.
    inside = escaped = False
    for start in range(0, len(raw), block_size):
        block = raw[start : start + block_size]
        if escaped:
            block = block[1:]
            counts.characters += 1
        block, escaped = _remove_escapes(block, counts)
        parts = block.split(b'"')
        quoted, bare = parts[1 - inside :: 2], b"".join(parts[inside::2])
        counts.characters += len(b"".join(quoted).translate(None, _CONTINUATIONS))
        counts.strings += (len(parts) - inside) // 2
        counts.containers += bare.count(b"[") + bare.count(b"{")
        counts.commas += bare.count(b",")
        inside ^= len(parts) % 2 == 0
    return counts


def _remove_escapes(block: bytes, counts: JsonCounts) -> tuple[bytes, bool]:
    """Return a block without escaped quotes and backslashes, and whether its last byte escapes the next block's first."""
    if b"\\" not in block:
        return block, False
    block = block.replace(rb"\\", b"_")
    escaped = block.endswith(b"\\")
    # An escape of four digits is one character.
    counts.characters -= 5 * block.count(rb"\u")
    return block.replace(rb"\"", b"_"), escaped
