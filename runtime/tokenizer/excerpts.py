"""Excerpts of a text whose tokens are those of the whole text, for a tokenizer that can only read whole texts."""

import re
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

_Found = TypeVar("_Found")
# Characters to read per requested token, and the factor by which the number grows while it yields too few tokens.
_CHARACTERS_PER_TOKEN, _GROWTH = 16, 4
# A space between two ASCII characters ends a word; neither the normalizer nor an added token spans it.
_BETWEEN_WORDS = re.compile("(?<=[!-~]) (?=[!-~])")
_SEARCH_STEP = 65_536


def end_of_first(text: str, characters: int) -> int:
    """Return the end of the shortest excerpt at the start of a text with at least `characters`; else the text's end."""
    found = _BETWEEN_WORDS.search(text, min(characters, len(text)))
    return found.start() if found else len(text)


def start_of_last(text: str, characters: int) -> int:
    """Return the start of the shortest excerpt at the end of a text with at least `characters`; else 0."""
    last = len(text) - characters
    while last > 0:
        first = max(last - _SEARCH_STEP, 0)
        found = list(_BETWEEN_WORDS.finditer(text, first, last))
        if found:
            return found[-1].start()
        last = first + 1 if first else 0  # one more, since a match needs the character after the space
    return 0


def with_enough_characters(max_tokens: int, encode: Callable[[int], _Found | None]) -> _Found:
    """Call `encode` with a growing number of characters until it returns a result, not None for too few tokens."""
    characters = max(max_tokens, 1) * _CHARACTERS_PER_TOKEN
    while (found := encode(characters)) is None:
        characters *= _GROWTH
    return found


class _WholeTextTokenizer(Protocol):
    bos: int
    eos: int
    pad: int

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]: ...
    def encode_with_spans(self, text: str) -> tuple[NDArray[np.int32], NDArray[np.int64]]: ...
    def token_string(self, token: int) -> str: ...


class ExcerptTokenizer:
    """Tokenizer that reads only as much of a text as the requested tokens need, if the text has spaces.

    Args:
        tokenizer: tokenizer of whole texts.

    Attributes:
        bos: id before every text.
        eos: id after every text.
        pad: id of padding.
    """

    def __init__(self, tokenizer: _WholeTextTokenizer) -> None:
        self._tokenizer = tokenizer
        self.bos, self.eos, self.pad = tokenizer.bos, tokenizer.eos, tokenizer.pad

    def encode(self, texts: Sequence[str], max_tokens: int | None = None, /) -> list[NDArray[np.int32]]:
        """Return the ids of each text, with special tokens; only its first `max_tokens`, special tokens not counted.

        Raises:
            TypeError: a text has a lone surrogate.
        """
        if max_tokens is None:
            return self._tokenizer.encode(texts)
        return [self._encode_first(text, max_tokens) for text in texts]

    def encode_with_spans(
        self, text: str, max_tokens: int | None = None, /, *, last: bool = False
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the ids of a text without special tokens, only the first or last `max_tokens`, and their spans `[n, 2]`.

        Raises:
            TypeError: the text has a lone surrogate.
        """
        if max_tokens is None:
            return self._tokenizer.encode_with_spans(text)
        if last:
            ids, spans = self._tokenizer.encode_with_spans(text)
            start = max(len(ids) - max_tokens, 0)
            return ids[start:], spans[start:]

        def encode(characters: int) -> tuple[NDArray[np.int32], NDArray[np.int64]] | None:
            end = end_of_first(text, characters)
            ids, spans = self._tokenizer.encode_with_spans(text[:end])
            return None if len(ids) < max_tokens and end < len(text) else (ids[:max_tokens], spans[:max_tokens])

        return with_enough_characters(max_tokens, encode)

    def token_string(self, token: int) -> str:
        """Return the piece of an id, or "" if the id is out of range."""
        return self._tokenizer.token_string(token)

    def _encode_first(self, text: str, max_tokens: int) -> NDArray[np.int32]:
        def encode(characters: int) -> NDArray[np.int32] | None:
            end = end_of_first(text, characters)
            (ids,) = self._tokenizer.encode([text[:end]])
            if len(ids) - 2 < max_tokens and end < len(text):
                return None
            return ids if len(ids) - 2 <= max_tokens else np.append(ids[: max_tokens + 1], ids[-1:])

        return with_enough_characters(max_tokens, encode)
