"""Tokenizer of the library `tokenizers`, for any `tokenizer.json`: the reference for all other implementations."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from moembed.errors import BundleError
from moembed.files.untrusted import read_bounded

_MAX_SIZE = 256 << 20  # bytes; fifteen times the published file


class ReferenceTokenizer:
    """Parsed `tokenizer.json`. Safe to share between threads.

    Args:
        path: a `tokenizer.json`.

    Attributes:
        bos: id before every text.
        eos: id after every text.
        pad: id of padding.
        size: size of its vocabulary.

    Raises:
        BundleError: the file is missing or damaged, or a text does not get two special tokens.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with _readable(path):
                self._tokenizer = Tokenizer.from_buffer(read_bounded(path, _MAX_SIZE))
                self._tokenizer.no_truncation()
                self._tokenizer.no_padding()
                self.size = self._tokenizer.get_vocab_size(with_added_tokens=True)
                self.pad = self._tokenizer.token_to_id("<pad>") or 0  # any id: padding is masked out
                special = self._tokenizer.encode("").ids
        except (OSError, ValueError) as error:
            if isinstance(error, BundleError):
                raise
            raise BundleError(
                f"{path} is not a readable tokenizer ({error}): copy or export the bundle again"
            ) from error
        if len(special) != 2:
            raise BundleError(f"{path} frames a text with {len(special)} special tokens; this model family has two")
        self.bos, self.eos = special

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return the ids of each text, with special tokens.

        Raises:
            TypeError: a text has a lone surrogate.
            BundleError: the tokenizer fails.
        """
        with _readable(self._path):
            return [np.array(encoding.ids, np.int32) for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def encode_with_spans(self, text: str) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the ids of a text without special tokens, and their character spans `[n, 2]`.

        Raises:
            TypeError: the text has a lone surrogate.
            BundleError: the tokenizer fails.
        """
        with _readable(self._path):
            (encoding,) = self._tokenizer.encode_batch([text])
            return np.array(encoding.ids[1:-1], np.int32), np.array(encoding.offsets[1:-1], np.int64).reshape(-1, 2)

    def largest_id(self) -> int:
        """Return the largest id that a text can get; a vocabulary may leave ids out."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values())

    def token_string(self, token: int) -> str:
        """Return the piece of an id, or "" if the id is out of range."""
        return self._tokenizer.id_to_token(token) or ""


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Convert the errors of `tokenizers` for a damaged tokenizer into a `BundleError`.

    These are plain `Exception`s, and `PanicException`, which does not derive from `Exception`, if its Rust code panics.
    `OverflowError` means an id that does not fit 32 bits.
    """
    try:
        yield
    except BaseException as error:
        if type(error) is not Exception and type(error).__name__ not in ("OverflowError", "PanicException"):
            raise
        reason = str(error).partition("\n")[0]
        raise BundleError(f"{path} is not a usable tokenizer ({reason}): copy or export the bundle again") from error
