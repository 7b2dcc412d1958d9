"""Ollama's embedding API.

Written against ollama 0.6 (`_client.py`, `_types.py`). As there, a text is cut where `truncate` is not given or true, which the
field `truncated` (ours) tells. `/api/embeddings` gives unit vectors, for this architecture Ollama's own are not scaled.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from moembed.bundle.manifest import MANIFEST_FILE
from moembed.server.apis.encoding import each, numbers
from moembed.server.apis.endpoint import Api, Operation
from moembed.server.apis.fields import Ignored, LenientRequest, ignored
from moembed.server.engine.engine import Engine, Result
from moembed.server.engine.service import LATEST, Service
from moembed.server.engine.tasks import task_named
from moembed.server.errors import ApiError, InvalidRequestError
from moembed.server.reply import Reply
from moembed.truncation import Overlong
from moembed.version import __version__

_ARCHITECTURE = "nomic-bert-moe"


class Options(msgspec.Struct):
    """Only the length of the context has a meaning here; a model reads no more than its own, and 0 or less is its own."""

    num_ctx: int | float | None = None


class EmbedRequest(LenientRequest, kw_only=True):
    """Body of `POST /api/embed`; `input_type` and `prompt_name` are ours. `dimensions` of 0 or less are all, as there."""

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
    """Body of `POST /api/embeddings`; `truncate`, `dimensions`, `input_type` and `prompt_name` are ours."""

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
    """Answer of `POST /api/embed`, durations in nanoseconds; `truncated` is ours."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int
    truncated: list[int] | msgspec.UnsetType = msgspec.UNSET


class EmbeddingsReply(msgspec.Struct):
    """Answer of `POST /api/embeddings`; `truncated` is ours."""

    embedding: list[float]
    truncated: bool | msgspec.UnsetType = msgspec.UNSET


class Details(msgspec.Struct):
    """What a model is."""

    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class Model(msgspec.Struct):
    """A model that is served."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details


class Tags(msgspec.Struct):
    """Answer of `GET /api/tags` and `GET /api/ps`."""

    models: list[Model]


class ShowRequest(msgspec.Struct):
    """Body of `POST /api/show`; `name` is the older name of `model`."""

    model: str | None = None
    name: str | None = None
    verbose: Ignored = ignored()
    system: Ignored = ignored()
    template: Ignored = ignored()
    options: Ignored = ignored()


class ShowReply(msgspec.Struct):
    """Answer of `POST /api/show`."""

    modified_at: str
    details: Details
    model_info: dict[str, str | int]
    capabilities: list[str]


class Version(msgspec.Struct):
    """Answer of `GET /api/version`: moembed's own."""

    version: str


class ErrorReply(msgspec.Struct):
    """Answer to a refused request."""

    error: str


async def _embed(service: Service, body: EmbedRequest) -> Reply:
    started = time.perf_counter_ns()
    texts = [body.input] if isinstance(body.input, str) else body.input or []
    if texts == [""]:  # how Ollama's clients load a model
        texts = []
    engine, task, result = await _vectors(service, body, texts)
    reply = EmbedReply(
        body.model,
        each(numbers, result.vectors),
        time.perf_counter_ns() - started,
        0,
        sum(result.tokens),
        result.truncated or msgspec.UNSET,
    )
    return _replied(reply, engine, texts, task, result)


async def _embeddings(service: Service, body: EmbeddingsRequest) -> Reply:
    texts = [body.prompt] if body.prompt else []
    engine, task, result = await _vectors(service, body, texts)
    (vector,) = result.vectors if texts else [[]]
    reply = EmbeddingsReply(numbers(vector) if texts else [], bool(result.truncated) or msgspec.UNSET)  # type: ignore[arg-type]
    return _replied(reply, engine, texts, task, result)


def _replied(body: Any, engine: Engine, texts: Sequence[str], task: str | None, result: Result) -> Reply:
    used, truncated = sum(result.tokens), tuple(result.truncated)
    return Reply(body, engine.name, len(texts), used, truncated, engine.default_task(texts, task))


async def _vectors(
    service: Service, body: EmbedRequest | EmbeddingsRequest, texts: Sequence[str]
) -> tuple[Engine, str | None, Result]:
    engine, suffix = service.engine(body.model)
    if "" in texts:
        raise InvalidRequestError(f"input[{list(texts).index('')}] is an empty string: leave it out", param="input")
    task = task_named(body.input_type, body.prompt_name, suffix)
    policy: Overlong = "error" if body.truncate is False else "truncate"
    dim, context = body.dimensions or 0, int(body.options.num_ctx or 0) if body.options else 0
    result = await engine.embed(
        texts, task=task, overlong=policy, dim=dim if dim > 0 else None, limit=context if context > 0 else None
    )
    return engine, task, result


async def _tags(service: Service, _body: None) -> Reply:
    return Reply(Tags([_model(service, name, suffix) for name, suffix in service.suffixed()]))


async def _show(service: Service, body: ShowRequest) -> Reply:
    if not (name := body.model or body.name):
        raise InvalidRequestError("model is required: send the name of a model", param="model")
    engine, _ = service.engine(name)
    model = _model(service, engine.name, "")
    info: dict[str, str | int] = {
        "general.architecture": _ARCHITECTURE,
        "general.basename": engine.embedder.bundle.manifest.name,
        f"{_ARCHITECTURE}.context_length": engine.embedder.max_tokens,
        f"{_ARCHITECTURE}.embedding_length": engine.embedder.dim,
    }
    return Reply(ShowReply(model.modified_at, model.details, info, ["embedding"]))


async def _version(_service: Service, _body: None) -> Reply:
    return Reply(Version(__version__))


def _model(service: Service, name: str, suffix: str) -> Model:
    engine, _ = service.engine(name)
    bundle = engine.embedder.bundle
    modified = datetime.fromtimestamp((bundle.folder / MANIFEST_FILE).stat().st_mtime, UTC).isoformat()
    details = Details("", "onnx", _ARCHITECTURE, [_ARCHITECTURE], "", bundle.manifest.recipe)
    tagged = f"{name}:{suffix or LATEST}"
    return Model(tagged, tagged, modified, bundle.size, bundle.fingerprint, details)


def _error(refusal: ApiError) -> ErrorReply:
    return ErrorReply(refusal.message)


OLLAMA = Api(
    name="ollama",
    prefix="/api",
    error=_error,
    operations=(
        Operation("/api/embed", "Embed texts (Ollama)", _embed, EmbedRequest, EmbedReply),
        Operation(
            "/api/embeddings", "Embed one text, the older way (Ollama)", _embeddings, EmbeddingsRequest, EmbeddingsReply
        ),
        Operation("/api/tags", "Models that are served (Ollama)", _tags, None, Tags),
        Operation("/api/ps", "Models that are loaded (Ollama)", _tags, None, Tags),
        Operation("/api/show", "What a model is (Ollama)", _show, ShowRequest, ShowReply),
        Operation("/api/version", "Version of moembed (Ollama)", _version, None, Version),
    ),
)
