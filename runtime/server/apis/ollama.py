"""Ollama's embedding API.

Written against ollama 0.6 (`_client.py`, `_types.py`). As in the original, over-long texts are truncated unless `truncate` is
false; the extension `truncated` reports them. `/api/embeddings` returns unit vectors; for this architecture the original's are
not normalized.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from moembed.bundle.manifest import MANIFEST_FILE
from moembed.server.apis.encoding import json_numbers, lazy_array
from moembed.server.apis.endpoint import Api, Endpoint
from moembed.server.apis.fields import Ignored, LenientRequest, ignored
from moembed.server.engine.engine import Engine, Result
from moembed.server.engine.service import LATEST, Service
from moembed.server.engine.tasks import requested_task
from moembed.server.errors import ApiError, InvalidRequestError
from moembed.server.reply import Reply
from moembed.truncation import Overlong
from moembed.version import __version__

_WITH_EXPERTS, _WITHOUT = "nomic-bert-moe", "bert"  # architectures by their names in Ollama


class Options(msgspec.Struct):
    """Model options. Only the context length has an effect: at most the model's own, which 0 and negative values select."""

    num_ctx: int | float | None = None


class EmbedRequest(LenientRequest, kw_only=True):
    """Body of `POST /api/embed`; `input_type` and `prompt_name` are extensions.

    As in the original, `dimensions` of 0 or less select all.
    """

    model: str
    input: str | list[str] | None = ""
    truncate: bool | None = None
    options: Options | None = None
    keep_alive: float | str | None = None
    stream: Ignored = ignored()
    dimensions: int | None = None
    input_type: str | None = None
    prompt_name: str | None = None


class EmbeddingsRequest(LenientRequest, kw_only=True):
    """Body of `POST /api/embeddings`; `truncate`, `dimensions`, `input_type` and `prompt_name` are extensions."""

    model: str
    prompt: str | None = None
    truncate: bool | None = None
    options: Options | None = None
    keep_alive: float | str | None = None
    stream: Ignored = ignored()
    dimensions: int | None = None
    input_type: str | None = None
    prompt_name: str | None = None


class EmbedReply(msgspec.Struct):
    """Response of `POST /api/embed`, durations in nanoseconds; `truncated` is an extension."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int
    truncated: list[int] | msgspec.UnsetType = msgspec.UNSET


class EmbeddingsReply(msgspec.Struct):
    """Response of `POST /api/embeddings`; `truncated` is an extension."""

    embedding: list[float]
    truncated: bool | msgspec.UnsetType = msgspec.UNSET


class Details(msgspec.Struct):
    """Details of a model."""

    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class Model(msgspec.Struct):
    """Model that the server offers."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details


class Tags(msgspec.Struct):
    """Response of `GET /api/tags` and `GET /api/ps`."""

    models: list[Model]


class ShowRequest(msgspec.Struct):
    """Body of `POST /api/show`; `name` is the former name of the field `model`."""

    model: str | None = None
    name: str | None = None
    verbose: Ignored = ignored()
    system: Ignored = ignored()
    template: Ignored = ignored()
    options: Ignored = ignored()


class ShowReply(msgspec.Struct):
    """Response of `POST /api/show`."""

    modified_at: str
    details: Details
    model_info: dict[str, str | int]
    capabilities: list[str]


class Version(msgspec.Struct):
    """Response of `GET /api/version`: the version of moembed."""

    version: str


class ErrorReply(msgspec.Struct):
    """Error response."""

    error: str


async def _embed(service: Service, body: EmbedRequest) -> Reply:
    started = time.perf_counter_ns()
    texts = [body.input] if isinstance(body.input, str) else body.input or []
    if texts == [""]:  # Ollama clients send this to load a model
        texts = []
    engine, task, result = await _embed_texts(service, body, texts)
    reply = EmbedReply(
        body.model,
        lazy_array(json_numbers, result.vectors),
        time.perf_counter_ns() - started,
        0,
        sum(result.tokens),
        result.truncated or msgspec.UNSET,
    )
    return _reply(reply, engine, texts, task, result)


async def _embeddings(service: Service, body: EmbeddingsRequest) -> Reply:
    texts = [body.prompt] if body.prompt else []
    engine, task, result = await _embed_texts(service, body, texts)
    (vector,) = result.vectors if texts else [[]]
    reply = EmbeddingsReply(json_numbers(vector) if texts else [], bool(result.truncated) or msgspec.UNSET)  # type: ignore[arg-type]
    return _reply(reply, engine, texts, task, result)


def _reply(body: Any, engine: Engine, texts: Sequence[str], task: str | None, result: Result) -> Reply:
    used, truncated = sum(result.tokens), tuple(result.truncated)
    default_task, stamps = engine.default_task(texts, task), (result.stamp,) if result.stamp else ()
    return Reply(body, engine.name, len(texts), used, truncated, default_task, stamps)


async def _embed_texts(
    service: Service, body: EmbedRequest | EmbeddingsRequest, texts: Sequence[str]
) -> tuple[Engine, str | None, Result]:
    engine, suffix = service.engine(body.model)
    if "" in texts:
        raise InvalidRequestError(f"input[{list(texts).index('')}] is an empty string: leave it out", param="input")
    task = requested_task(body.input_type, body.prompt_name, suffix)
    policy: Overlong = "error" if body.truncate is False else "truncate"
    dim, context = body.dimensions or 0, int(body.options.num_ctx or 0) if body.options else 0
    result = await engine.embed(
        texts,
        task=task,
        overlong=policy,
        dim=dim if dim > 0 else None,
        limit=context if context > 0 else None,
    )
    return engine, task, result


async def _tags(service: Service, _body: None) -> Reply:
    return Reply(Tags([_model(service, name, suffix) for name, suffix in service.served_names()]))


async def _show(service: Service, body: ShowRequest) -> Reply:
    if not (name := body.model or body.name):
        raise InvalidRequestError("model is required: send the name of a model", param="model")
    engine, _ = service.engine(name)
    model = _model(service, engine.name, "")
    architecture = model.details.family
    info: dict[str, str | int] = {
        "general.architecture": architecture,
        "general.basename": engine.embedder.bundle.manifest.name,
        f"{architecture}.context_length": engine.embedder.max_tokens,
        f"{architecture}.embedding_length": engine.embedder.dim,
    }
    return Reply(ShowReply(model.modified_at, model.details, info, ["embedding"]))


async def _version(_service: Service, _body: None) -> Reply:
    return Reply(Version(__version__))


def _model(service: Service, name: str, suffix: str) -> Model:
    engine, _ = service.engine(name)
    bundle = engine.embedder.bundle
    modified = datetime.fromtimestamp((bundle.folder / MANIFEST_FILE).stat().st_mtime, UTC).isoformat()
    architecture = _WITH_EXPERTS if bundle.manifest.routers else _WITHOUT
    details = Details("", "onnx", architecture, [architecture], "", bundle.manifest.recipe)
    tagged = f"{name}:{suffix or LATEST}"
    return Model(tagged, tagged, modified, bundle.size, bundle.fingerprint, details)


def _error_body(error: ApiError) -> ErrorReply:
    return ErrorReply(error.message)


OLLAMA = Api(
    name="ollama",
    prefix="/api",
    error_body=_error_body,
    endpoints=(
        Endpoint("/api/embed", "Embed texts (Ollama)", _embed, EmbedRequest, EmbedReply),
        Endpoint(
            "/api/embeddings", "Embed one text, deprecated (Ollama)", _embeddings, EmbeddingsRequest, EmbeddingsReply
        ),
        Endpoint("/api/tags", "List the models (Ollama)", _tags, None, Tags),
        Endpoint("/api/ps", "List the loaded models (Ollama)", _tags, None, Tags),
        Endpoint("/api/show", "Describe a model (Ollama)", _show, ShowRequest, ShowReply),
        Endpoint("/api/version", "Get the version of moembed (Ollama)", _version, None, Version),
    ),
)
