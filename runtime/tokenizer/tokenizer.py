"""Tokenizer of a bundle: text to token ids.

`tokenizer.json` has neither truncation nor padding; `moembed.truncation` and `moembed.inference.batching` handle both.
Special tokens that are spelled out in a text (`<s>`, `<pad>`, ...) become special ids, as in the reference implementation.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from moembed.arguments import surrogate
from moembed.errors import BundleError, InputError
from moembed.native.loader import native_library, warn_unused
from moembed.tokenizer.excerpts import ExcerptTokenizer, start_of_last, with_enough_characters
from moembed.tokenizer.native import VOCABULARY_FILE, NativeTokenizer

Ids = NDArray[np.int32]
Backend = Literal["auto", "native", "tokenizers"]
_BATCH_SIZE = 1024
# Callers may put any text in front: only some short ones are kept.
_MAX_KEPT_PREFIX, _MAX_KEPT_PREFIXES = 256, 64
_JSON = "tokenizer.json"


class _FileRecord(Protocol):
    """Record of a file in a manifest."""

    @property
    def sha256(self) -> str: ...


class _Manifest(Protocol):
    """Manifest, as far as it is needed here."""

    @property
    def files(self) -> Mapping[str, _FileRecord]: ...


class _BundleFiles(Protocol):
    """`moembed.bundle.bundle.Bundle`, as far as it is needed here; importing it would be a cycle."""

    @property
    def folder(self) -> Path: ...
    @property
    def manifest(self) -> _Manifest: ...


class _Implementation(Protocol):
    bos: int
    eos: int
    pad: int

    def encode(self, texts: Sequence[str], max_tokens: int | None = None, /) -> list[Ids]: ...
    def encode_with_spans(
        self, text: str, max_tokens: int | None = None, /, *, last: bool = False
    ) -> tuple[Ids, NDArray[np.int64]]: ...
    def token_string(self, token: int) -> str: ...


class Tokenizer:
    """Tokenizer that puts each text between two special tokens. Safe to share between threads.

    Two backends have equal results: the native library with the bundle's `vocabulary.bin`, and the library `tokenizers` with
    its `tokenizer.json`.

    Args:
        bundle: a checked bundle, or the path of a `tokenizer.json`.
        backend: `"native"`, `"tokenizers"`, or `"auto"` for the native one if the bundle and the installation have it.

    Attributes:
        backend: `"native"` or `"tokenizers"`.
        bos: id before every text.
        eos: id after every text.
        pad: id of padding.

    Raises:
        BundleError: a file is missing or damaged, a text does not get two special tokens, or the backend is not available.
    """

    def __init__(self, bundle: _BundleFiles | Path, *, backend: Backend = "auto") -> None:
        native = None if backend == "tokenizers" else _native(bundle, required=backend == "native")
        self.backend = "native" if native else "tokenizers"
        self._implementation = native or _reference(bundle)
        self._prefixes: dict[str, int] = {}  # tokens of the prompts, which every call counts
        self.bos, self.eos, self.pad = (getattr(self._implementation, name) for name in ("bos", "eos", "pad"))

    def encode(
        self, texts: Sequence[str], *, prefix: str = "", first: int = 0, max_tokens: int | None = None
    ) -> Iterable[Ids]:
        """Yield the ids of each text, with special tokens, int32.

        Args:
            texts: the texts.
            prefix: text in front of each.
            first: index of the first text in errors.
            max_tokens: keep this many tokens of each text, special tokens not counted; the rest of the text is not read.

        Raises:
            InputError: an item is not a string, or not valid Unicode.
        """
        for start in range(0, len(texts), _BATCH_SIZE):
            batch = texts[start : start + _BATCH_SIZE]
            try:
                found = self._implementation.encode([prefix + text for text in batch], max_tokens)
            except (TypeError, UnicodeEncodeError):
                _refuse(batch, first + start)
                raise
            yield from found

    def count_prefix(self, prefix: str) -> int:
        """Return the number of tokens of a text in front of others, by itself and without special tokens."""
        count = self._prefixes.get(prefix)
        if count is None:
            (framed,) = self.encode([""], prefix=prefix)
            count = len(framed) - 2
            if len(prefix) <= _MAX_KEPT_PREFIX and len(self._prefixes) < _MAX_KEPT_PREFIXES:
                self._prefixes[prefix] = count
        return count

    def encode_with_offsets(
        self, text: str, *, prefix: str = "", max_tokens: int | None = None, index: int = 0
    ) -> tuple[Ids, NDArray[np.int64]]:
        """Return the ids of a text without special tokens, and the span of each token.

        Args:
            text: the text.
            prefix: text in front of it.
            max_tokens: keep this many tokens; the rest of the text is not read.
            index: index of the text in errors.

        Returns:
            ids `[n]` and character offsets `[n, 2]` into `prefix + text`.

        Raises:
            InputError: the text is not a string, or not valid Unicode.
        """
        try:
            return self._implementation.encode_with_spans(prefix + text, max_tokens)
        except (TypeError, UnicodeEncodeError):
            _refuse([text], index)
            raise

    def encode_end(self, text: str, max_tokens: int) -> tuple[Ids, NDArray[np.int64]]:
        """Return the last `max_tokens` ids of a text, without special tokens, and the span of each token.

        Returns:
            ids `[n]` and character offsets `[n, 2]` into `text`.
        """

        def encode_part(characters: int) -> tuple[Ids, NDArray[np.int64]] | None:
            start = start_of_last(text, characters)
            ids, offsets = self._implementation.encode_with_spans(text[start:], max_tokens, last=True)
            return None if len(ids) < max_tokens and start else (ids, offsets + start)

        return with_enough_characters(max_tokens, encode_part)

    def token_strings(self, ids: Sequence[int]) -> list[str]:
        """Return the vocabulary pieces of ids."""
        return [self._implementation.token_string(int(i)) for i in ids]


def _native(bundle: _BundleFiles | Path, *, required: bool) -> _Implementation | None:
    # Only a vocabulary that the manifest lists has been checked.
    listed = not isinstance(bundle, Path) and VOCABULARY_FILE in bundle.manifest.files
    library = native_library()
    if not isinstance(bundle, Path) and listed and library.functions is not None:
        files = bundle.manifest.files
        source = files[_JSON].sha256 if _JSON in files else None
        return NativeTokenizer(library.functions, bundle.folder / VOCABULARY_FILE, sha256=source)
    if required:
        reason = library.reason or f"the bundle has no {VOCABULARY_FILE}: export it again"
        raise BundleError(f"the native tokenizer was requested, but cannot be used: {reason}")
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
