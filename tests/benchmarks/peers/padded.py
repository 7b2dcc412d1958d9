"""Texts as most peers want them."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from moembed.inference.batching import pad

Texts = list[NDArray[np.int64]]
Embed = Callable[[Texts], NDArray[np.float32]]
PAD_ID = 1


def padded(texts: Texts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and mask, each `[texts, longest]`."""
    return pad([text.astype(np.int32) for text in texts], PAD_ID)
