"""Request fields that are ignored because they have no effect, and fields that are rejected because they would have one."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

UNSUPPORTED = "not supported by this endpoint, and it would change the vectors"
# Field that the original API accepts and that does not change vectors: its value is skipped.
Ignored = Annotated[msgspec.Raw, msgspec.Meta(description="accepted, without effect")]

if TYPE_CHECKING:
    _Unsupported = Any  # an endpoint that supports the field overrides its type
else:
    _Unsupported = Annotated[None, msgspec.Meta(description=f"rejected: {UNSUPPORTED}")]


def ignored() -> Any:
    """Return the default of an `Ignored` field."""
    return msgspec.field(default_factory=msgspec.Raw)


class LenientRequest(msgspec.Struct, kw_only=True):
    """Body whose unknown fields are ignored, as Text Embeddings Inference and Ollama do.

    Fields that change vectors in these or other APIs are rejected by name unless the endpoint supports them: otherwise a client
    would get vectors that it did not ask for.
    """

    dimensions: _Unsupported = None
    embedding_types: _Unsupported = None
    encoding_format: Literal["float"] | None = None
    images: _Unsupported = None
    input_type: _Unsupported = None
    instruction: _Unsupported = None
    max_tokens: _Unsupported = None
    normalize: _Unsupported = None
    output_dimension: _Unsupported = None
    overlong: _Unsupported = None
    pooling: _Unsupported = None
    prompt: _Unsupported = None
    prompt_name: _Unsupported = None
    task: _Unsupported = None
    texts: _Unsupported = None
    truncate: _Unsupported = None
    truncation_direction: _Unsupported = None
