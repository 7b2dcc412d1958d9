"""The tokenizer of the library `tokenizers`, for any `tokenizer.json`: what every other implementation has to equal."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from moembed.errors import BundleError
from moembed.files.untrusted import read_bounded

_MOST_BYTES = 256 << 20  # fifteen times the published one


class ReferenceTokenizer:
    """A `tokenizer.json`, parsed; safe to share between threads.

    Args:
        path: a `tokenizer.json`.

    Attributes:
        bos: id in front of every text.
        eos: id behind every text.
        pad: id of padding.
        size: number of tokens it knows.

    Raises:
        BundleError: the file is missing, damaged, or does not frame a text with two special tokens.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with _readable(path):
                self._tokenizer = Tokenizer.from_buffer(read_bounded(path, _MOST_BYTES))
                self._tokenizer.no_truncation()
                self._tokenizer.no_padding()
                self.size = self._tokenizer.get_vocab_size(with_added_tokens=True)
                self.pad = self._tokenizer.token_to_id("<pad>") or 0  # masked out: no vector depends on it
                frame = self._tokenizer.encode("").ids
        except (OSError, ValueError) as error:
            if isinstance(error, BundleError):
                raise
            raise BundleError(
                f"{path} is not a readable tokenizer ({error}): copy or export the bundle again"
            ) from error
        if len(frame) != 2:
            raise BundleError(f"{path} frames a text with {len(frame)} special tokens; this model family has two")
        self.bos, self.eos = frame

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """The ids of each text, special tokens around.

        Raises:
            TypeError: a text has a lone surrogate.
            BundleError: the tokenizer fails.
        """
        with _readable(self._path):
            return [np.array(encoding.ids, np.int32) for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def encode_with_spans(self, text: str) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The ids of a text without special tokens, and the characters `[n, 2]` each comes from.

        Raises:
            TypeError: the text has a lone surrogate.
            BundleError: the tokenizer fails.
        """
        with _readable(self._path):
            (encoding,) = self._tokenizer.encode_batch([text])
            return np.array(encoding.ids[1:-1], np.int32), np.array(encoding.offsets[1:-1], np.int64).reshape(-1, 2)

    def token_string(self, token: int) -> str:
        """The piece of an id, or "" for an id that there is not."""
        return self._tokenizer.id_to_token(token) or ""


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what `tokenizers` raises for a damaged tokenizer into an error of the bundle.

    It raises plain `Exception`, and where its Rust code panics a `PanicException`, which is no `Exception`. `OverflowError`
    is an id that 32 bits do not hold.
    """
    try:
        yield
    except BaseException as error:
        if type(error) is not Exception and type(error).__name__ not in ("OverflowError", "PanicException"):
            raise
        reason = str(error).partition("\n")[0]
        raise BundleError(f"{path} is not a usable tokenizer ({reason}): copy or export the bundle again") from error
