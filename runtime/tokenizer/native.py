"""The tokenizer in the native library, over a bundle's memory-mapped `vocabulary.bin`.

It gives the ids and spans of `tokenizers`, for one family of tokenizers; `moembed.export.vocabulary` describes the file.
"""

import ctypes
import mmap
import weakref
from array import array
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moembed.errors import BundleError
from moembed.files.untrusted import open_regular
from moembed.native.loader import Special

VOCABULARY_FILE = "vocabulary.bin"
# Bytes from which on memory counts for more than the microsecond that NumPy takes for an array's address.
_LARGE = 65536


class NativeTokenizer:
    """Tokenizer over a memory-mapped vocabulary; safe to share between threads, and releases the GIL while it works.

    Args:
        library: from `native_library()`.
        path: a `vocabulary.bin`.
        sha256: of the `tokenizer.json` that the vocabulary must be made from; None accepts any.

    Attributes:
        bos: id before every text.
        eos: id after every text.
        pad: id of padding.

    Raises:
        BundleError: the file is missing, damaged, or made from another tokenizer.
    """

    def __init__(self, library: ctypes.CDLL, path: Path, *, sha256: str | None = None) -> None:
        self._library = library
        try:
            with open_regular(path) as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: the file is empty
            raise BundleError(f"{path} cannot be mapped ({error}): copy or export the bundle again") from error
        self._file = np.frombuffer(mapped, np.uint8)
        reason = ctypes.c_char_p()
        self._handle = library.moembed_tokenizer_open(self._file.ctypes.data, self._file.size, ctypes.byref(reason))
        if not self._handle:
            found = (reason.value or b"").decode()
            raise BundleError(f"{path} is not a usable vocabulary ({found}): copy or export the bundle again")
        # Not at interpreter exit: a daemon thread may be inside a call, and the process frees the memory anyway.
        weakref.finalize(self, _close, library, self._handle, self._file).atexit = False
        special = Special()
        library.moembed_tokenizer_special(self._handle, ctypes.byref(special))
        self.bos, self.eos, self.pad = special.bos, special.eos, special.pad
        if sha256 is not None and bytes(special.source).hex() != sha256:
            raise BundleError(
                f"{path} was made from another tokenizer.json than the one beside it: export the bundle again"
            )

    def encode(self, texts: Sequence[str], most: int | None = None) -> list[NDArray[np.int32]]:
        """Return the ids of each text, between the special tokens; only its first `most`, special tokens not counted.

        Raises:
            UnicodeEncodeError: a text has a lone surrogate.
        """
        rows, ids, _ = self._tokens(texts, spans=False, most=most)
        return [ids[start:end] for start, end in pairwise(rows)]

    def encode_with_spans(
        self, text: str, most: int | None = None, *, last: bool = False
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the ids of a text without special tokens, its first or last `most`, and their character ranges `[n, 2]`.

        Raises:
            UnicodeEncodeError: the text has a lone surrogate.
        """
        _, ids, spans = self._tokens([text], spans=True, most=most, last=last)
        return ids, spans

    def token_string(self, token: int) -> str:
        """Return the piece of an id, or "" if the id is out of range."""
        text = ctypes.c_void_p()
        size = self._library.moembed_tokenizer_piece(self._handle, token, ctypes.byref(text))
        return ctypes.string_at(text.value or 0, size).decode(errors="replace") if size else ""

    def _tokens(
        self, texts: Sequence[str], *, spans: bool, most: int | None, last: bool = False
    ) -> tuple[list[int], NDArray[np.int32], NDArray[np.int64]]:
        encoded = [text.encode() for text in texts]
        # An array's address takes a third of the time that NumPy takes for that of its own.
        starts = array("q", accumulate(map(len, encoded), initial=0))
        found = self._library.moembed_tokenizer_encode(
            self._handle,
            b"".join(encoded),
            starts.buffer_info()[0],
            len(texts),
            spans,
            -1 if most is None else most,
            last,
        )
        if not found:
            raise MemoryError(f"no memory to tokenize {starts[-1]} bytes of text")
        try:
            tokens = found.contents
            rows: list[int] = memoryview(_copied(tokens.rows, 8 * (len(texts) + 1))).cast("q").tolist()
            ids = np.frombuffer(_copied(tokens.ids, 4 * rows[-1]), np.int32)
            where = np.frombuffer(_copied(tokens.spans, 16 * rows[-1] if spans else 0), np.int64).reshape(-1, 2)
        finally:
            self._library.moembed_tokens_free(found)
        return rows, ids, where


def _copied(pointer: int | None, size: int) -> bytearray | memoryview:
    """Return a copy of the library's memory, which can be written to. A large one is copied once, a small one sooner."""
    if size < _LARGE:
        return bytearray(ctypes.string_at(pointer or 0, size)) if size else bytearray()
    copy = np.empty(size, np.uint8)
    ctypes.memmove(copy.ctypes.data, pointer or 0, size)
    return copy.data


def _close(library: ctypes.CDLL, handle: int, file: NDArray[np.uint8]) -> None:
    library.moembed_tokenizer_close(handle)
    del file  # it must stay mapped until here
