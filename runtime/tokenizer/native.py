"""The tokenizer in the native library, over a bundle's memory-mapped `vocabulary.bin`.

It is `tokenizers` for one family, id for id and span for span; `moembed.export.vocabulary` describes the file.
"""

import ctypes
import mmap
import weakref
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moembed.errors import BundleError
from moembed.files.untrusted import open_regular

VOCABULARY_FILE = "vocabulary.bin"

_Pointer = ctypes.c_void_p


class _Special(ctypes.Structure):
    _fields_ = (
        ("bos", ctypes.c_int32),
        ("eos", ctypes.c_int32),
        ("pad", ctypes.c_int32),
        ("source", ctypes.c_uint8 * 32),
    )


class _Tokens(ctypes.Structure):
    _fields_ = (("texts", ctypes.c_int64), ("rows", _Pointer), ("ids", _Pointer), ("spans", _Pointer))


class NativeTokenizer:
    """A vocabulary that is mapped, not read; safe to share between threads, and other threads run while it works.

    Args:
        library: the loaded native library.
        path: a `vocabulary.bin`.
        sha256: of the `tokenizer.json` it has to be made from; None takes any.

    Attributes:
        bos: id in front of every text.
        eos: id behind every text.
        pad: id of padding.

    Raises:
        BundleError: the file is missing, damaged, or made from another tokenizer.
    """

    def __init__(self, library: ctypes.CDLL, path: Path, *, sha256: str | None = None) -> None:
        self._library = _declared(library)
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
        # Not when the interpreter ends: a daemon thread may be inside, and the process gives everything back.
        weakref.finalize(self, _close, library, self._handle, self._file).atexit = False
        special = _Special()
        library.moembed_tokenizer_special(self._handle, ctypes.byref(special))
        self.bos, self.eos, self.pad = special.bos, special.eos, special.pad
        if sha256 is not None and bytes(special.source).hex() != sha256:
            raise BundleError(
                f"{path} was made from another tokenizer.json than the one beside it: export the bundle again"
            )

    def encode(self, texts: Sequence[str], most: int | None = None) -> list[NDArray[np.int32]]:
        """The ids of each text, special tokens around; without these, its first `most`.

        Raises:
            UnicodeEncodeError: a text has a lone surrogate.
        """
        rows, ids, _ = self._tokens(texts, spans=False, most=most)
        return [ids[start:end] for start, end in pairwise(rows)]

    def encode_with_spans(
        self, text: str, most: int | None = None, *, last: bool = False
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The ids of a text without special tokens, its first or last `most`, and the characters `[n, 2]` each comes from.

        Raises:
            UnicodeEncodeError: the text has a lone surrogate.
        """
        _, ids, spans = self._tokens([text], spans=True, most=most, last=last)
        return ids, spans

    def token_string(self, token: int) -> str:
        """The piece of an id, or "" for an id that there is not."""
        text = _Pointer()
        size = self._library.moembed_tokenizer_piece(self._handle, token, ctypes.byref(text))
        return ctypes.string_at(text.value or 0, size).decode(errors="replace") if size else ""

    def _tokens(
        self, texts: Sequence[str], *, spans: bool, most: int | None, last: bool = False
    ) -> tuple[list[int], NDArray[np.int32], NDArray[np.int64]]:
        encoded = [text.encode() for text in texts]
        starts = np.zeros(len(texts) + 1, np.int64)
        np.cumsum([len(text) for text in encoded], out=starts[1:])
        found = self._library.moembed_tokenizer_encode(
            self._handle, b"".join(encoded), starts.ctypes.data, len(texts), spans, -1 if most is None else most, last
        )
        if not found:
            raise MemoryError(f"no memory to tokenize {starts[-1]} bytes of text")
        try:
            tokens = found.contents
            rows = _copied(tokens.rows, np.empty(len(texts) + 1, np.int64))
            ids = _copied(tokens.ids, np.empty(rows[-1], np.int32))
            where = _copied(tokens.spans, np.empty((rows[-1] if spans else 0, 2), np.int64))
        finally:
            self._library.moembed_tokens_free(found)
        return rows.tolist(), ids, where


def _copied(pointer: int | None, target: NDArray[Any]) -> NDArray[Any]:
    if target.nbytes:
        ctypes.memmove(target.ctypes.data, pointer or 0, target.nbytes)
    return target


def _close(library: ctypes.CDLL, handle: int, file: NDArray[np.uint8]) -> None:
    library.moembed_tokenizer_close(handle)
    del file  # it had to stay mapped until here


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """Tell ctypes the functions of native/api.h."""
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "moembed_tokenizer_open": (_Pointer, [_Pointer, ctypes.c_uint64, ctypes.POINTER(ctypes.c_char_p)]),
        "moembed_tokenizer_close": (None, [_Pointer]),
        "moembed_tokenizer_special": (None, [_Pointer, ctypes.POINTER(_Special)]),
        "moembed_tokenizer_piece": (ctypes.c_uint32, [_Pointer, ctypes.c_int64, ctypes.POINTER(_Pointer)]),
        "moembed_tokenizer_encode": (
            ctypes.POINTER(_Tokens),
            [_Pointer, ctypes.c_char_p, _Pointer, ctypes.c_int64, ctypes.c_int32, ctypes.c_int64, ctypes.c_int32],
        ),
        "moembed_tokens_free": (None, [ctypes.POINTER(_Tokens)]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
