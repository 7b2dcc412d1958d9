"""Cohere's embed API, versions 1 and 2.

Written against cohere 7.3 (`base_client.py`, `v2/raw_client.py`, `types/embed_response.py`,
`types/embed_by_type_response.py`) and langchain-cohere 0.6, which uses version 1. `truncate` is END where it is not given, as
there; what was left out is told in `meta.warnings`.
"""

import builtins
import uuid
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from moembed.precision import Precision, quantize_embeddings
from moembed.server.apis.encoding import base64_floats, each, numbers
from moembed.server.apis.endpoint import Api, Operation
from moembed.server.engine.service import Service
from moembed.server.engine.tasks import task_named
from moembed.server.errors import ApiError, InvalidRequestError
from moembed.server.reply import Reply
from moembed.truncation import Overlong

EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]
_POLICIES: dict[str, Overlong] = {"NONE": "error", "START": "truncate_start", "END": "truncate"}


class ImageUrl(msgspec.Struct):
    """An image; never accepted."""

    url: str = ""


class Content(msgspec.Struct, forbid_unknown_fields=True):
    """A part of an input."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: ImageUrl | None = None


class Input(msgspec.Struct, forbid_unknown_fields=True):
    """A text in parts, which are joined by line breaks."""

    content: list[Content]


class EmbedRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /v2/embed`; `priority` has no effect: requests are served fairly."""

    model: str
    input_type: str | None = None
    texts: list[str] | None = None
    images: list[str] | None = None
    inputs: list[Input] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    output_dimension: Annotated[int, msgspec.Meta(ge=1)] | None = None
    embedding_types: list[EmbeddingType] | None = None
    truncate: Literal["NONE", "START", "END"] | None = "END"
    priority: int | None = None


class EmbedRequestV1(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /v1/embed`; without `model` the first model answers."""

    texts: list[str] | None = None
    images: list[str] | None = None
    model: str | None = None
    input_type: str | None = None
    embedding_types: list[EmbeddingType] | None = None
    truncate: Literal["NONE", "START", "END"] | None = "END"


class Embeddings(msgspec.Struct, omit_defaults=True):
    """One list for each type that was asked for."""

    float: list[list[builtins.float]] | None = None
    int8: list[list[int]] | None = None
    uint8: list[list[int]] | None = None
    binary: list[list[int]] | None = None
    ubinary: list[list[int]] | None = None
    base64: list[str] | None = None


class ApiVersion(msgspec.Struct):
    """Version of the API."""

    version: Literal["1", "2"]


class BilledUnits(msgspec.Struct):
    """Tokens that were read, prompts and special tokens included."""

    input_tokens: int


class Meta(msgspec.Struct, omit_defaults=True):
    """What was read, and what was not."""

    api_version: ApiVersion
    billed_units: BilledUnits
    warnings: list[str] | None = None


class EmbedReply(msgspec.Struct, tag_field="response_type", tag="embeddings_by_type"):
    """Answer of `POST /v2/embed`."""

    id: str
    embeddings: Embeddings
    texts: list[str]
    meta: Meta


class EmbedFloatsReply(msgspec.Struct, tag_field="response_type", tag="embeddings_floats"):
    """Answer of `POST /v1/embed` to a request without `embedding_types`."""

    id: str
    embeddings: list[list[float]]
    texts: list[str]
    meta: Meta


class ErrorReply(msgspec.Struct):
    """Answer to a refused request."""

    id: str
    message: str


async def _embed(service: Service, body: EmbedRequest) -> Reply:
    return await _answered(service, body, "2", body.embedding_types or ["float"])


async def _embed_v1(service: Service, body: EmbedRequestV1) -> Reply:
    given = EmbedRequest(
        model=body.model or "",
        input_type=body.input_type,
        texts=body.texts,
        images=body.images,
        truncate=body.truncate,
    )
    return await _answered(service, given, "1", body.embedding_types)


async def _answered(
    service: Service, body: EmbedRequest, version: Literal["1", "2"], kinds: list[EmbeddingType] | None
) -> Reply:
    """The answer with vectors of each kind, or, where there are none, with plain vectors."""
    texts = _texts(body)
    engine, suffix = service.engine(body.model)
    task = task_named(body.input_type, None, suffix)
    width = engine.width(body.output_dimension)
    if width % 8 and {"binary", "ubinary"} & set(kinds or ()):
        raise InvalidRequestError(
            f"binary types pack 8 dimensions to a byte, and {width} is not a multiple of 8: choose another output_dimension",
            param="output_dimension",
        )
    result = await engine.embed(
        texts, task=task, overlong=_POLICIES[body.truncate or "END"], dim=width, limit=body.max_tokens
    )
    used = sum(result.tokens)
    meta = Meta(ApiVersion(version), BilledUnits(used))
    if result.truncated:
        meta.warnings = [f"texts[{index}] was cut to {result.tokens[index]} tokens" for index in result.truncated]
    reply: EmbedReply | EmbedFloatsReply
    if kinds:
        embeddings = Embeddings(**{kind: _typed(result.vectors, kind) for kind in dict.fromkeys(kinds)})
        reply = EmbedReply(str(uuid.uuid4()), embeddings, texts, meta)
    else:
        reply = EmbedFloatsReply(str(uuid.uuid4()), _typed(result.vectors, "float"), texts, meta)
    truncated, default_task = tuple(result.truncated), engine.default_task(texts, task)
    return Reply(reply, engine.name, len(texts), used, truncated, default_task)


def _typed(vectors: NDArray[np.float32], kind: EmbeddingType) -> Any:
    if kind == "base64":
        return each(base64_floats, vectors)
    precision: Precision = "float32" if kind == "float" else kind
    return each(numbers, quantize_embeddings(vectors, precision).codes)


def _texts(body: EmbedRequest) -> list[str]:
    if body.images:
        raise InvalidRequestError("images were sent; this model reads text only: send texts", param="images")
    if (body.texts is None) == (body.inputs is None):
        raise InvalidRequestError("exactly one of texts and inputs is needed", param="texts")
    texts = body.texts if body.texts is not None else [_joined(given) for given in body.inputs or ()]
    if not texts:
        raise InvalidRequestError("no text was sent: send at least one", param="texts")
    if "" in texts:
        raise InvalidRequestError(f"texts[{texts.index('')}] is an empty string: leave it out", param="texts")
    return texts


def _joined(given: Input) -> str:
    if any(part.type != "text" for part in given.content):
        raise InvalidRequestError("inputs holds an image; this model reads text only: send text parts", param="inputs")
    return "\n".join(part.text or "" for part in given.content)


def _error(refusal: ApiError) -> ErrorReply:
    return ErrorReply(str(uuid.uuid4()), refusal.message)


COHERE = Api(
    name="cohere",
    prefix="/v2",
    error=_error,
    operations=(
        Operation("/v2/embed", "Embed texts (Cohere)", _embed, EmbedRequest, EmbedReply),
        Operation(
            "/v1/embed", "Embed texts, version 1 (Cohere)", _embed_v1, EmbedRequestV1, EmbedReply | EmbedFloatsReply
        ),
    ),
)
