"""Fields of a request's body that have no effect, and fields that are refused because they would have one."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

REFUSED = "no field of this endpoint, and it would change the vectors"
# A field that the original accepts and that changes no vector: whatever it holds is passed over unread.
Ignored = Annotated[msgspec.Raw, msgspec.Meta(description="accepted, without effect")]

if TYPE_CHECKING:
    _Refused = Any  # an endpoint that has the field gives it a type of its own
else:
    _Refused = Annotated[None, msgspec.Meta(description=f"{REFUSED}: refused")]


def ignored() -> Any:
    """The default of an `Ignored` field."""
    return msgspec.field(default_factory=msgspec.Raw)


class LenientRequest(msgspec.Struct, kw_only=True):
    """A body of which unknown fields are ignored, as Text Embeddings Inference and Ollama do.

    Fields that change vectors in these or other APIs are refused by name unless the endpoint has them: a client that sends one
    would get other vectors than it asked for.
    """

    dimensions: _Refused = None
    embedding_types: _Refused = None
    encoding_format: Literal["float"] | None = None
    images: _Refused = None
    input_type: _Refused = None
    instruction: _Refused = None
    max_tokens: _Refused = None
    normalize: _Refused = None
    output_dimension: _Refused = None
    overlong: _Refused = None
    pooling: _Refused = None
    prompt: _Refused = None
    prompt_name: _Refused = None
    task: _Refused = None
    texts: _Refused = None
    truncate: _Refused = None
    truncation_direction: _Refused = None
