"""Parts of a text that have the same tokens as in the text, for a tokenizer that reads texts only as a whole."""

import re
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

_Found = TypeVar("_Found")
# Characters that are read at first for each token that is wanted, and how the number grows while they have too few tokens.
_CHARACTERS_PER_TOKEN, _GROWTH = 16, 4
# A space between two ASCII characters ends a word, and neither the normalizer nor an added token reaches over it.
_BETWEEN_WORDS = re.compile("(?<=[!-~]) (?=[!-~])")
_SEARCHED = 65_536


def beginning(text: str, characters: int) -> int:
    """The end of a part at the start of a text that has at least so many characters, where one can end; else of the text."""
    found = _BETWEEN_WORDS.search(text, min(characters, len(text)))
    return found.start() if found else len(text)


def ending(text: str, characters: int) -> int:
    """The start of a part at the end of a text that has at least so many characters, where one can start; else 0."""
    last = len(text) - characters
    while last > 0:
        first = max(last - _SEARCHED, 0)
        found = list(_BETWEEN_WORDS.finditer(text, first, last))
        if found:
            return found[-1].start()
        last = first and first + 1  # the match needs the character behind the space
    return 0


def growing(most: int, part: Callable[[int], _Found | None]) -> _Found:
    """What `part` finds in enough characters for `most` tokens: it gives None while they are too few."""
    characters = max(most, 1) * _CHARACTERS_PER_TOKEN
    while (found := part(characters)) is None:
        characters *= _GROWTH
    return found


class _Whole(Protocol):
    bos: int
    eos: int
    pad: int

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]: ...
    def encode_with_spans(self, text: str) -> tuple[NDArray[np.int32], NDArray[np.int64]]: ...
    def token_string(self, token: int) -> str: ...


class ExcerptTokenizer:
    """A tokenizer that reads no more of a text than the tokens that are wanted need, as far as its spaces allow.

    Args:
        tokenizer: reads texts as a whole.

    Attributes:
        bos: id in front of every text.
        eos: id behind every text.
        pad: id of padding.
    """

    def __init__(self, tokenizer: _Whole) -> None:
        self._tokenizer = tokenizer
        self.bos, self.eos, self.pad = tokenizer.bos, tokenizer.eos, tokenizer.pad

    def encode(self, texts: Sequence[str], most: int | None = None) -> list[NDArray[np.int32]]:
        """The ids of each text, special tokens around; without these, its first `most`.

        Raises:
            TypeError: a text has a lone surrogate.
        """
        if most is None:
            return self._tokenizer.encode(texts)
        return [self._first(text, most) for text in texts]

    def encode_with_spans(
        self, text: str, most: int | None = None, *, last: bool = False
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The ids of a text without special tokens, its first or last `most`, and the characters `[n, 2]` each comes from.

        Raises:
            TypeError: the text has a lone surrogate.
        """
        if most is None:
            return self._tokenizer.encode_with_spans(text)
        if last:
            ids, spans = self._tokenizer.encode_with_spans(text)
            start = max(len(ids) - most, 0)
            return ids[start:], spans[start:]

        def part(characters: int) -> tuple[NDArray[np.int32], NDArray[np.int64]] | None:
            end = beginning(text, characters)
            ids, spans = self._tokenizer.encode_with_spans(text[:end])
            return None if len(ids) < most and end < len(text) else (ids[:most], spans[:most])

        return growing(most, part)

    def token_string(self, token: int) -> str:
        """The piece of an id, or "" for an id that there is not."""
        return self._tokenizer.token_string(token)

    def _first(self, text: str, most: int) -> NDArray[np.int32]:
        def part(characters: int) -> NDArray[np.int32] | None:
            end = beginning(text, characters)
            (ids,) = self._tokenizer.encode([text[:end]])
            if len(ids) - 2 < most and end < len(text):
                return None
            return ids if len(ids) - 2 <= most else np.append(ids[: most + 1], ids[-1:])

        return growing(most, part)
