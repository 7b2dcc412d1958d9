"""Counts of what a JSON body holds, taken before it is decoded.

A decoder makes an object of every value before anybody can count them: 16 MB of `[[],[],...]` become 400 MB, and other requests
wait for seconds, since it never gives up the interpreter's lock. Counting takes a fixed amount of memory and gives the lock up
between blocks.
"""

from dataclasses import dataclass

from moembed.server.errors import TooLargeError, TooManyTextsError
from moembed.server.settings import Settings

# Smaller bodies cannot cost much, whatever they hold.
SMALL = 65_536
_BLOCK = 65_536
# Strings, and arrays and objects, for each text that a request may have: Cohere's longest form needs 5 and 3.
_PER_TEXT = 16
# Numbers for each text that a request may have: the token ids of a text.
_NUMBERS_PER_TEXT = 512
_CONTINUATIONS = bytes(range(0x80, 0xC0))


@dataclass
class Outline:
    """Counts of a JSON body. They are right for valid JSON, and bound what a decoder reads of any other.

    Attributes:
        strings: strings, keys included.
        characters: characters in them; one that is written as two escapes counts twice.
        containers: arrays and objects.
        commas: commas between values.
    """

    strings: int = 0
    characters: int = 0
    containers: int = 0
    commas: int = 0

    def check(self, settings: Settings) -> None:
        """Compare with what a request may hold.

        Raises:
            TooManyTextsError: more strings, arrays, objects or values than a request of the most texts has.
            TooLargeError: more characters than a request may have.
        """
        texts = settings.max_inputs
        for count, most, what in (
            (self.strings, texts * _PER_TEXT, "strings"),
            (self.containers, texts * _PER_TEXT, "arrays and objects"),
            (self.commas, texts * _NUMBERS_PER_TEXT, "values"),
        ):
            if count > most:
                raise TooManyTextsError(
                    f"the body holds more than {most} {what}; this server takes {texts} texts at most: send fewer at a time"
                )
        # Twice as many, since escapes and keys are counted too; the texts themselves are checked when they are decoded.
        if self.characters > 2 * settings.max_characters:
            raise TooLargeError(
                f"more than {2 * settings.max_characters} characters in one body; this server takes "
                f"{settings.max_characters} in a request's texts at most: send less at a time"
            )


def outline(raw: bytes, block_size: int = _BLOCK) -> Outline:
    """Count what a JSON body holds, a block at a time."""
    found = Outline()
    inside = escaped = False  # a string, and by a backslash at the end of the block before
    for start in range(0, len(raw), block_size):
        block = raw[start : start + block_size]
        if escaped:
            block = block[1:]
            found.characters += 1
        block, escaped = _unescaped(block, found)
        parts = block.split(b'"')
        quoted, bare = parts[1 - inside :: 2], b"".join(parts[inside::2])
        found.characters += len(b"".join(quoted).translate(None, _CONTINUATIONS))
        found.strings += (len(parts) - inside) // 2
        found.containers += bare.count(b"[") + bare.count(b"{")
        found.commas += bare.count(b",")
        inside ^= len(parts) % 2 == 0
    return found


def _unescaped(block: bytes, found: Outline) -> tuple[bytes, bool]:
    """A block without escaped quotes and backslashes, and whether its last byte escapes the next block's first."""
    if b"\\" not in block:
        return block, False
    block = block.replace(rb"\\", b"_")
    escaped = block.endswith(b"\\")
    # An escape of four digits is one character.
    found.characters -= 5 * block.count(rb"\u")
    return block.replace(rb"\"", b"_"), escaped
