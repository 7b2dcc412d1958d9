"""Options and results of `Embedder`."""

from dataclasses import dataclass
from typing import Any, TypedDict

from numpy.typing import NDArray

from moembed.precision import Precision
from moembed.truncation import Overlong


class EncodeOptions(TypedDict, total=False):
    """Keyword arguments of `Embedder.encode`, which `encode_query` and `encode_document` take too."""

    prompt_name: str | None
    prompt: str | None
    batch_size: int
    show_progress_bar: bool | None
    precision: Precision
    normalize_embeddings: bool
    truncate_dim: int | None
    overlong: Overlong


@dataclass(frozen=True, slots=True)
class Embedding:
    """Vector of a text or of a window of it, as `Embedder.embed` yields it.

    Attributes:
        index: position of the text in the input.
        text: the whole text.
        vector: `[dim]` in the requested precision.
        scale: scale of the quantized vector; see `moembed.dequantize_embeddings`.
        tokens: number of tokens processed, prompt and special tokens included.
        start: index of the first character of the text that the vector covers.
        end: index after the last character that it covers.
        truncated: whether the text was cut off before `start` or after `end`.
    """

    index: int
    text: str
    vector: NDArray[Any]
    scale: float
    tokens: int
    start: int
    end: int
    truncated: bool
