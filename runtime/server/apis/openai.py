"""OpenAI's embeddings API, extended with fields for the task and for over-long texts.

Written against openai 3.57 (`types/embedding_create_params.py`, `lib/_parsing/_embeddings.py`, `_exceptions.py`) and
langchain-openai 1.7 (`embeddings/base.py`).
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec

from moembed.server.apis.encoding import base64_floats, json_numbers, lazy_array
from moembed.server.apis.endpoint import Api, Endpoint
from moembed.server.engine.service import Service
from moembed.server.engine.tasks import prompt_for_task, requested_task
from moembed.server.errors import ApiError, InvalidRequestError, ModelNotFoundError
from moembed.server.reply import Reply
from moembed.stamps.stamp import Stamp

IDS_REJECTED = (
    "input contains token ids, and this server accepts text only: ids of another vocabulary (LangChain's OpenAIEmbeddings sends "
    "those of tiktoken) would give meaningless vectors. With LangChain set OpenAIEmbeddings(check_embedding_ctx_length=False); "
    "to send ids of this model's own vocabulary, start the server with --accept-token-ids"
)


class EmbeddingsRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /v1/embeddings`; `input_type`, `prompt_name` and `overlong` are extensions.

    As in the original, an unknown field is an error. `model` defaults to the first model, as for TEI. `stream` may be false.
    """

    input: str | list[str | int | list[int]]
    model: str | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1)] | None = None
    encoding_format: Literal["float", "base64"] | None = "float"
    user: str | None = None
    stream: bool | None = None
    input_type: str | None = None
    prompt_name: str | None = None
    overlong: Literal["error", "truncate", "truncate_start", "mean"] | None = None


class Embedding(msgspec.Struct):
    """One vector, as JSON numbers or in base64."""

    index: int
    embedding: list[float] | str
    object: Literal["embedding"] = "embedding"


class Usage(msgspec.Struct):
    """Tokens processed, including prompts and special tokens."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsReply(msgspec.Struct, omit_defaults=False):
    """Response of `POST /v1/embeddings`; the extension `truncated` lists the indices of truncated texts."""

    data: list[Embedding]
    model: str
    usage: Usage
    object: Literal["list"] = "list"
    truncated: list[int] | msgspec.UnsetType = msgspec.UNSET


class Model(msgspec.Struct):
    """Model that the server offers; the extension `stamp` is that of vectors of full width under the server's settings."""

    id: str
    created: int
    stamp: Stamp
    object: Literal["model"] = "model"
    owned_by: str = "moembed"


class Models(msgspec.Struct):
    """Response of `GET /v1/models`."""

    data: list[Model]
    object: Literal["list"] = "list"


class Error(msgspec.Struct):
    """Description of an error."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(msgspec.Struct):
    """Error response."""

    error: Error


async def _embeddings(service: Service, body: EmbeddingsRequest) -> Reply:
    if body.stream:
        raise InvalidRequestError("stream = true is not supported for embeddings: leave it out", param="stream")
    engine, suffix = service.engine(body.model)
    task = requested_task(body.input_type, body.prompt_name, suffix)
    texts, ids = _inputs(body.input)
    if ids is not None:
        if not service.settings.accept_token_ids:
            raise InvalidRequestError(IDS_REJECTED, param="input")
        result = await engine.embed_ids(ids, task=task, dim=body.dimensions)
    else:
        result = await engine.embed(texts, task=task, dim=body.dimensions, overlong=body.overlong)
    write: Callable[[Any], Any] = base64_floats if body.encoding_format == "base64" else json_numbers
    vectors = result.vectors
    used = sum(result.tokens)
    return Reply(
        EmbeddingsReply(
            lazy_array(lambda index: Embedding(index, write(vectors[index])), range(len(vectors))),
            body.model or engine.name,
            Usage(used, used),
            truncated=list(result.truncated) or msgspec.UNSET,
        ),
        model=engine.name,
        texts=len(result.tokens),
        tokens=used,
        truncated=tuple(result.truncated),
        default_task=engine.default_task(texts or [""], task),
        stamps=(result.stamp,) if result.stamp else (),
    )


def _inputs(given: str | list[Any]) -> tuple[list[str], list[list[int]] | None]:
    """Return the texts of a body, or its arrays of token ids."""
    inputs: list[Any] = [given] if isinstance(given, str) else given
    if not inputs:
        raise InvalidRequestError("input is an empty array: send at least one text", param="input")
    kinds = {type(item) for item in inputs}
    if kinds == {str}:
        if "" in inputs:
            raise InvalidRequestError(f"input[{inputs.index('')}] is an empty string: leave it out", param="input")
        return inputs, None
    if kinds == {int}:
        return [], [inputs]
    if kinds == {list}:
        if [] in inputs:
            raise InvalidRequestError(f"input[{inputs.index([])}] is an empty array: leave it out", param="input")
        return [], inputs
    raise InvalidRequestError("input mixes texts and token ids: send one or the other", param="input")


async def _models(service: Service, _body: None) -> Reply:
    names = [f"{name}:{suffix}" if suffix else name for name, suffix in service.served_names()]
    return Reply(Models([_described(service, name) for name in names]))


async def _model(service: Service, name: str) -> Reply:
    return Reply(_described(service, name))


def _described(service: Service, name: str) -> Model:
    engine, suffix = service.engine(name)
    task = suffix or service.settings.task
    try:
        prompt = "" if task is None else prompt_for_task(engine.embedder, task)
    except InvalidRequestError as error:
        raise ModelNotFoundError(f"no model {name!r}: {error.message}", param="model") from None
    stamp = engine.stamp(prompt, engine.embedder.dim, service.settings.overlong)
    return Model(name, service.started, stamp)


def _error_body(error: ApiError) -> ErrorReply:
    kinds = {"overloaded": "rate_limit_error", "internal": "server_error", "unready": "server_error"}
    codes = {"unauthorized": "invalid_api_key", "no_model": "model_not_found", "overloaded": "rate_limit_exceeded"}
    codes |= {"too_long": "context_length_exceeded"}
    kind = kinds.get(error.kind, "invalid_request_error")
    return ErrorReply(Error(error.message, kind, error.param, codes.get(error.kind)))


OPENAI = Api(
    name="openai",
    prefix="/v1",
    error_body=_error_body,
    endpoints=(
        Endpoint("/v1/embeddings", "Embed texts (OpenAI)", _embeddings, EmbeddingsRequest, EmbeddingsReply),
        Endpoint("/v1/models", "List the models (OpenAI)", _models, None, Models),
        Endpoint("/v1/models/{model}", "Describe a model (OpenAI)", _model, None, Model),
    ),
)
