"""Text to token ids, with the tokenizer of the bundle and the model's own limits.

The published `tokenizer.json` carries neither truncation nor padding; both are decided here, where the caller is told.
Special tokens that are written out in a text (`<s>`, `<pad>`, ...) become special ids, as upstream.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from moembed.arguments import surrogate
from moembed.errors import BundleError, InputError
from moembed.native.loader import native_library, warn_unused
from moembed.tokenizer.excerpts import ExcerptTokenizer, ending, growing
from moembed.tokenizer.native import VOCABULARY_FILE, NativeTokenizer

Ids = NDArray[np.int32]
Way = Literal["auto", "native", "tokenizers"]
_AT_ONCE = 1024
_JSON = "tokenizer.json"


class _FileRecord(Protocol):
    """What is known of a file of a bundle."""

    @property
    def sha256(self) -> str: ...


class _Manifest(Protocol):
    """What is used of a bundle's manifest: its list of files."""

    @property
    def files(self) -> Mapping[str, _FileRecord]: ...


class _BundleFiles(Protocol):
    """What is used of a `moembed.bundle.bundle.Bundle`, which itself asks tokenizers for the size of their vocabulary."""

    @property
    def folder(self) -> Path: ...
    @property
    def manifest(self) -> _Manifest: ...


class _Implementation(Protocol):
    bos: int
    eos: int
    pad: int

    def encode(self, texts: Sequence[str], most: int | None = None) -> list[Ids]: ...
    def encode_with_spans(
        self, text: str, most: int | None = None, *, last: bool = False
    ) -> tuple[Ids, NDArray[np.int64]]: ...
    def token_string(self, token: int) -> str: ...


class Tokenizer:
    """A fast tokenizer that frames every text with its two special tokens; safe to share between threads.

    It has two implementations with equal results: the native library's over the bundle's `vocabulary.bin`, and the library
    `tokenizers` over its `tokenizer.json`.

    Args:
        bundle: a checked bundle, or the path of a `tokenizer.json`.
        way: `"auto"` for the native one if bundle and installation have it; `"native"` or `"tokenizers"` for that one only.

    Attributes:
        way: `"native"` or `"tokenizers"`, what it became.
        bos: id in front of every text.
        eos: id behind every text.
        pad: id of padding.

    Raises:
        BundleError: a file is missing, damaged, does not frame a text with two special tokens, or cannot be used in the way
            that was asked for.
    """

    def __init__(self, bundle: _BundleFiles | Path, *, way: Way = "auto") -> None:
        native = None if way == "tokenizers" else _native(bundle, needed=way == "native")
        self.way = "native" if native else "tokenizers"
        self._implementation = native or _reference(bundle)
        self.bos, self.eos, self.pad = (getattr(self._implementation, name) for name in ("bos", "eos", "pad"))

    def encode(
        self, texts: Sequence[str], *, prefix: str = "", first: int = 0, most: int | None = None
    ) -> Iterable[Ids]:
        """Yield the ids of each text, `prefix` in front and special tokens around, int32 of any length.

        Args:
            texts: the texts.
            prefix: put in front of each.
            first: what to call the first text's index in an error.
            most: most tokens of each, special ones not counted: those at its beginning. What lies behind them is not read.

        Raises:
            InputError: an item is not a string, or not valid Unicode.
        """
        for start in range(0, len(texts), _AT_ONCE):
            batch = texts[start : start + _AT_ONCE]
            try:
                found = self._implementation.encode([prefix + text for text in batch], most)
            except (TypeError, UnicodeEncodeError):
                _refuse(batch, first + start)
                raise
            yield from found

    def encode_with_offsets(
        self, text: str, *, prefix: str = "", most: int | None = None
    ) -> tuple[Ids, NDArray[np.int64]]:
        """Ids of one text without special tokens around, and where each token lies.

        Args:
            text: the text.
            prefix: put in front of it.
            most: most tokens: those at its beginning. What lies behind them is not read.

        Returns:
            ids `[n]` and character offsets `[n, 2]` into `prefix + text`.

        Raises:
            InputError: the text is not a string, or not valid Unicode.
        """
        try:
            return self._implementation.encode_with_spans(prefix + text, most)
        except (TypeError, UnicodeEncodeError):
            _refuse([text], 0)
            raise

    def encode_end(self, text: str, most: int) -> tuple[Ids, NDArray[np.int64]]:
        """The last `most` ids of one text, special tokens not counted, and where each token lies.

        Returns:
            ids `[n]` and character offsets `[n, 2]` into `text`.
        """

        def part(characters: int) -> tuple[Ids, NDArray[np.int64]] | None:
            start = ending(text, characters)
            ids, offsets = self._implementation.encode_with_spans(text[start:], most, last=True)
            return None if len(ids) < most and start else (ids, offsets + start)

        return growing(most, part)

    def token_strings(self, ids: Sequence[int]) -> list[str]:
        """The vocabulary's pieces for ids."""
        return [self._implementation.token_string(int(i)) for i in ids]


def _native(bundle: _BundleFiles | Path, *, needed: bool) -> _Implementation | None:
    # A vocabulary that the manifest does not list has not been checked, whatever lies in the folder.
    listed = not isinstance(bundle, Path) and VOCABULARY_FILE in bundle.manifest.files
    library = native_library()
    if not isinstance(bundle, Path) and listed and library.functions is not None:
        files = bundle.manifest.files
        source = files[_JSON].sha256 if _JSON in files else None
        return NativeTokenizer(library.functions, bundle.folder / VOCABULARY_FILE, sha256=source)
    if needed:
        reason = library.reason or f"the bundle has no {VOCABULARY_FILE}: export it again"
        raise BundleError(f"the native tokenizer was asked for and cannot be used: {reason}")
    if listed:
        warn_unused(library.reason)
    return None


def _reference(bundle: _BundleFiles | Path) -> _Implementation:
    from moembed.tokenizer.reference import ReferenceTokenizer

    return ExcerptTokenizer(ReferenceTokenizer(bundle if isinstance(bundle, Path) else bundle.folder / _JSON))


def _refuse(texts: Sequence[object], first: int) -> None:
    for index, text in enumerate(texts, first):
        if not isinstance(text, str):
            raise InputError(f"text {index} is {type(text).__name__}, expected str")
        if found := surrogate(text):
            raise InputError(f"text {index} has {found}")
