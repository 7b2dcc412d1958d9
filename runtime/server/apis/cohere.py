"""Cohere's embed API, versions 1 and 2.

Written against cohere 7.3 (`base_client.py`, `v2/raw_client.py`, `types/embed_response.py`,
`types/embed_by_type_response.py`) and langchain-cohere 0.6, which uses version 1. As in the original, `truncate` defaults to
END; `meta.warnings` reports truncated texts.
"""

import builtins
import uuid
from dataclasses import replace
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from moembed.precision import Precision, quantize_embeddings, shares_scale
from moembed.server.apis.encoding import base64_floats, json_numbers, lazy_array
from moembed.server.apis.endpoint import Api, Endpoint
from moembed.server.engine.service import Service
from moembed.server.engine.tasks import requested_task
from moembed.server.errors import ApiError, InvalidRequestError
from moembed.server.reply import Reply
from moembed.truncation import Overlong

EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]
_POLICIES: dict[str, Overlong] = {"NONE": "error", "START": "truncate_start", "END": "truncate"}


class ImageUrl(msgspec.Struct):
    """Image; always rejected."""

    url: str = ""


class Content(msgspec.Struct, forbid_unknown_fields=True):
    """Part of an input."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: ImageUrl | None = None


class Input(msgspec.Struct, forbid_unknown_fields=True):
    """Text in parts, which are joined by line breaks."""

    content: list[Content]


class EmbedRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /v2/embed`; `priority` has no effect: requests share the model fairly."""

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
    """Body of `POST /v1/embed`; `model` defaults to the first model."""

    texts: list[str] | None = None
    images: list[str] | None = None
    model: str | None = None
    input_type: str | None = None
    embedding_types: list[EmbeddingType] | None = None
    truncate: Literal["NONE", "START", "END"] | None = "END"


class Embeddings(msgspec.Struct, omit_defaults=True):
    """One list per requested type."""

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
    """Tokens processed, including prompts and special tokens."""

    input_tokens: int


class Meta(msgspec.Struct, omit_defaults=True):
    """Token counts, and warnings about truncated texts."""

    api_version: ApiVersion
    billed_units: BilledUnits
    warnings: list[str] | None = None


class EmbedReply(msgspec.Struct, tag_field="response_type", tag="embeddings_by_type"):
    """Response of `POST /v2/embed`."""

    id: str
    embeddings: Embeddings
    texts: list[str]
    meta: Meta


class EmbedFloatsReply(msgspec.Struct, tag_field="response_type", tag="embeddings_floats"):
    """Response of `POST /v1/embed` to a request without `embedding_types`."""

    id: str
    embeddings: list[list[float]]
    texts: list[str]
    meta: Meta


class ErrorReply(msgspec.Struct):
    """Error response."""

    id: str
    message: str


async def _embed(service: Service, body: EmbedRequest) -> Reply:
    return await _respond(service, body, "2", body.embedding_types or ["float"])


async def _embed_v1(service: Service, body: EmbedRequestV1) -> Reply:
    request = EmbedRequest(
        model=body.model or "",
        input_type=body.input_type,
        texts=body.texts,
        images=body.images,
        truncate=body.truncate,
    )
    return await _respond(service, request, "1", body.embedding_types)


async def _respond(
    service: Service, body: EmbedRequest, version: Literal["1", "2"], types: list[EmbeddingType] | None
) -> Reply:
    """Embed a request's texts and return vectors of each type; a plain list of vectors if no types are given."""
    texts = _texts(body)
    engine, suffix = service.engine(body.model)
    task = requested_task(body.input_type, None, suffix)
    dim = engine.resolve_dim(body.output_dimension)
    if dim % 8 and {"binary", "ubinary"} & set(types or ()):
        raise InvalidRequestError(
            f"binary types pack 8 dimensions into a byte, and {dim} is not a multiple of 8: choose another output_dimension",
            param="output_dimension",
        )
    result = await engine.embed(
        texts, task=task, overlong=_POLICIES[body.truncate or "END"], dim=dim, limit=body.max_tokens
    )
    used = sum(result.tokens)
    meta = Meta(ApiVersion(version), BilledUnits(used))
    if result.truncated:
        meta.warnings = [f"texts[{index}] was truncated to {result.tokens[index]} tokens" for index in result.truncated]
    reply: EmbedReply | EmbedFloatsReply
    scale = engine.embedder.int8_scale(dim)
    if types:
        embeddings = Embeddings(**{kind: _typed(result.vectors, kind, scale) for kind in dict.fromkeys(types)})
        reply = EmbedReply(str(uuid.uuid4()), embeddings, texts, meta)
    else:
        reply = EmbedFloatsReply(str(uuid.uuid4()), lazy_array(json_numbers, result.vectors), texts, meta)
    truncated, default_task = tuple(result.truncated), engine.default_task(texts, task)
    precisions: dict[Precision, None] = dict.fromkeys([_precision(kind) for kind in types] if types else ["float32"])
    stamps = tuple(
        replace(result.stamp, precision=precision, scale=scale if shares_scale(precision) else None)
        for precision in precisions
        if result.stamp
    )
    return Reply(reply, engine.name, len(texts), used, truncated, default_task, stamps)


def _typed(vectors: NDArray[np.float32], kind: EmbeddingType, scale: float) -> Any:
    if kind == "base64":
        return lazy_array(base64_floats, vectors)
    precision = _precision(kind)
    shared = scale if shares_scale(precision) else None
    return lazy_array(json_numbers, quantize_embeddings(vectors, precision, scale=shared).codes)


def _precision(kind: EmbeddingType) -> Precision:
    return "float32" if kind == "float" or kind == "base64" else kind


def _texts(body: EmbedRequest) -> list[str]:
    if body.images:
        raise InvalidRequestError("images are not supported, this model embeds text only: send texts", param="images")
    if (body.texts is None) == (body.inputs is None):
        raise InvalidRequestError("send exactly one of texts and inputs", param="texts")
    texts = body.texts if body.texts is not None else [_joined(item) for item in body.inputs or ()]
    if not texts:
        raise InvalidRequestError("texts is empty: send at least one text", param="texts")
    if "" in texts:
        raise InvalidRequestError(f"texts[{texts.index('')}] is an empty string: leave it out", param="texts")
    return texts


def _joined(item: Input) -> str:
    if any(part.type != "text" for part in item.content):
        raise InvalidRequestError(
            "inputs contains images, this model embeds text only: send text parts", param="inputs"
        )
    return "\n".join(part.text or "" for part in item.content)


def _error_body(error: ApiError) -> ErrorReply:
    return ErrorReply(str(uuid.uuid4()), error.message)


COHERE = Api(
    name="cohere",
    prefix="/v2",
    error_body=_error_body,
    endpoints=(
        Endpoint("/v2/embed", "Embed texts (Cohere)", _embed, EmbedRequest, EmbedReply),
        Endpoint(
            "/v1/embed", "Embed texts, version 1 (Cohere)", _embed_v1, EmbedRequestV1, EmbedReply | EmbedFloatsReply
        ),
    ),
)
