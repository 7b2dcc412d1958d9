"""Text to token ids, with the tokenizer file of the bundle and the model's own limits.

The published `tokenizer.json` carries neither truncation nor padding; both are decided here, where the caller is told.
Special tokens that are written out in a text (`<s>`, `<pad>`, ...) become special ids, as upstream.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding
from tokenizers import Tokenizer as _Tokenizer

from moembed.errors import BundleError, InputError

Ids = NDArray[np.int32]
_AT_ONCE = 1024


class Tokenizer:
    """A fast tokenizer that frames every text with its two special tokens; safe to share between threads.

    Args:
        path: a `tokenizer.json`.

    Raises:
        BundleError: the file is missing, damaged, or does not frame a text with two special tokens.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._tokenizer = _Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises plain Exception
            raise BundleError(
                f"{path} is not a readable tokenizer ({error}): copy or export the bundle again"
            ) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        frame = self._tokenizer.encode("").ids
        if len(frame) != 2:
            raise BundleError(f"{path} frames a text with {len(frame)} special tokens; this model family has two")
        self.bos, self.eos = frame
        self.pad = self._tokenizer.token_to_id("<pad>") or 0  # masked out: no vector depends on it

    def encode(self, texts: Sequence[str], *, prefix: str = "", first: int = 0) -> Iterable[Ids]:
        """Yield the ids of each text, `prefix` in front and special tokens around, int32 of any length.

        Args:
            texts: the texts.
            prefix: put in front of each.
            first: what to call the first text's index in an error.

        Raises:
            InputError: an item is not a string, or not valid Unicode.
        """
        for start in range(0, len(texts), _AT_ONCE):
            for encoding in self._batch(texts[start : start + _AT_ONCE], prefix, first + start, fast=True):
                yield np.array(encoding.ids, dtype=np.int32)

    def encode_with_offsets(self, text: str, *, prefix: str = "") -> tuple[Ids, NDArray[np.int64]]:
        """Ids of one text without special tokens around, and where each token lies.

        Returns:
            ids `[n]` and character offsets `[n, 2]` into `prefix + text`.
        """
        (encoding,) = self._batch([text], prefix, 0, fast=False)
        return np.array(encoding.ids[1:-1], np.int32), np.array(encoding.offsets[1:-1], np.int64).reshape(-1, 2)

    def token_strings(self, ids: Sequence[int]) -> list[str]:
        """The vocabulary's pieces for ids."""
        return [self._tokenizer.id_to_token(int(i)) or "" for i in ids]

    def _batch(self, texts: Sequence[str], prefix: str, first: int, *, fast: bool) -> list[Encoding]:
        encode = self._tokenizer.encode_batch_fast if fast else self._tokenizer.encode_batch
        try:
            return encode([prefix + text for text in texts])
        except TypeError:
            for index, text in enumerate(texts, first):
                _refuse(text, index)
            raise


def _refuse(text: object, index: int) -> None:
    if not isinstance(text, str):
        raise InputError(f"text {index} is {type(text).__name__}, expected str")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"text {index} has the lone surrogate U+{ord(text[error.start]):04X} at character {error.start}, which is "
            "not valid Unicode: decode its source with errors='replace', or text.encode('utf-8', 'replace').decode()"
        ) from None
