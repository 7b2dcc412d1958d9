"""API of Hugging Face's Text Embeddings Inference, extended with the field `model`, which defaults to the first model.

Written against its `router/src/http/types.rs` (265deb2a) and huggingface_hub 2.4 (`inference/_client.py`).
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from moembed.server.apis.encoding import json_numbers, lazy_array
from moembed.server.apis.endpoint import Api, Endpoint
from moembed.server.apis.fields import Ignored, LenientRequest, ignored
from moembed.server.apis.openai import IDS_REJECTED
from moembed.server.engine.engine import Engine
from moembed.server.engine.service import Service
from moembed.server.engine.tasks import prompt_for_task, requested_task
from moembed.server.errors import ApiError, EmptyInputError, InvalidRequestError, TooLargeError
from moembed.server.reply import Reply
from moembed.stamps.stamp import Stamp
from moembed.tokenizer.tokenizer import Ids
from moembed.truncation import Overlong
from moembed.version import __version__

# Tokens in a response of `/tokenize`: about 18 MB of JSON.
_MAX_TOKENS = 2**18
_TOKENS_PER_CHUNK = 4096
_json = msgspec.json.Encoder().encode

Inputs = str | list[str | int | list[int]]
Direction = Literal["left", "right", "Left", "Right"]


class NoParameters(msgspec.Struct, forbid_unknown_fields=True):
    """Empty object: TEI has these fields of the Inference API at the top level, beside `inputs`."""


class EmbedRequest(LenientRequest, kw_only=True):
    """Body of `POST /embed`."""

    inputs: Inputs
    model: str | None = None
    truncate: bool | None = None
    truncation_direction: Direction | None = "right"
    prompt_name: str | None = None
    normalize: bool | None = True
    dimensions: Annotated[int, msgspec.Meta(ge=1)] | None = None
    parameters: NoParameters | None = None
    options: Ignored = ignored()


class EmbedAllRequest(LenientRequest, kw_only=True):
    """Body of `POST /embed_all`."""

    inputs: Inputs
    model: str | None = None
    truncate: bool | None = None
    truncation_direction: Direction | None = "right"
    prompt_name: str | None = None
    parameters: NoParameters | None = None
    options: Ignored = ignored()


class SimilarityInputs(msgspec.Struct):
    """A text, and the texts that it is compared with."""

    source_sentence: str
    sentences: list[str]


class SimilarityParameters(LenientRequest, kw_only=True):
    """Options for embedding the texts."""

    truncate: bool | None = None
    truncation_direction: Direction | None = "right"
    prompt_name: str | None = None


class SimilarityRequest(LenientRequest, kw_only=True):
    """Body of `POST /similarity`."""

    inputs: SimilarityInputs
    model: str | None = None
    parameters: SimilarityParameters | None = None
    options: Ignored = ignored()


class TokenizeRequest(msgspec.Struct):
    """Body of `POST /tokenize`."""

    inputs: str | list[str]
    model: str | None = None
    add_special_tokens: bool | None = True
    prompt_name: str | None = None
    options: Ignored = ignored()


class Token(msgspec.Struct):
    """Token and the characters it covers, counted from the start of the prompt; special tokens cover none."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class EmbeddingModel(msgspec.Struct):
    """Pooling of the model."""

    pooling: str = "mean"


class ModelType(msgspec.Struct):
    """Type of the model."""

    embedding: EmbeddingModel


class Info(msgspec.Struct):
    """Response of `GET /info`; `prompts`, `dimension` and `models` are extensions."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    model_type: ModelType
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: str | None
    docker_label: str | None
    prompts: dict[str, str]
    dimension: int
    models: list[str]


class ErrorReply(msgspec.Struct):
    """Error response."""

    error: str
    error_type: Literal["Unhealthy", "Backend", "OverloadedError", "Validation", "Tokenizer", "Empty"]


def _policy(body: Any) -> Overlong | None:
    if body.truncate is None:
        return None
    if not body.truncate:
        return "error"
    return "truncate" if (body.truncation_direction or "right").lower() == "right" else "truncate_start"


def _texts(inputs: str | list[Any]) -> list[str]:
    texts = [inputs] if isinstance(inputs, str) else inputs
    if not texts:
        raise EmptyInputError("`inputs` cannot be empty: send at least one text", param="inputs")
    if not all(isinstance(text, str) for text in texts):
        raise InvalidRequestError(IDS_REJECTED.replace("input", "inputs", 1), param="inputs")
    if "" in texts:
        raise InvalidRequestError(
            f"`inputs` cannot be empty: text {texts.index('')} is an empty string", param="inputs"
        )
    return texts


def _reply(
    body: Any,
    engine: Engine,
    tokens: list[int],
    truncated: list[int],
    default_task: str | None,
    stamp: Stamp | None = None,
) -> Reply:
    used, stamps = sum(tokens), () if stamp is None else (stamp,)
    headers = {"x-compute-tokens": str(used)}
    return Reply(body, engine.name, len(tokens), used, tuple(truncated), default_task, stamps, headers)


async def _embed(service: Service, body: EmbedRequest) -> Reply:
    engine, suffix = service.engine(body.model)
    task = requested_task(None, body.prompt_name, suffix)
    texts = _texts(body.inputs)
    result = await engine.embed(
        texts,
        task=task,
        overlong=_policy(body),
        dim=body.dimensions,
        normalize=body.normalize is not False,
    )
    vectors = lazy_array(json_numbers, result.vectors)
    default_task = engine.default_task(texts, task)
    return _reply(vectors, engine, result.tokens, result.truncated, default_task, result.stamp)


async def _embed_all(service: Service, body: EmbedAllRequest) -> Reply:
    engine, suffix = service.engine(body.model)
    task = requested_task(None, body.prompt_name, suffix)
    texts = _texts(body.inputs)
    states, windows = await engine.token_embeddings(texts, task=task, overlong=_policy(body))
    truncated = [window.text for window in windows if window.truncated]
    return _reply(
        [lazy_array(json_numbers, state) for state in states],
        engine,
        [len(window.ids) for window in windows],
        truncated,
        engine.default_task(texts, task),
    )


async def _similarity(service: Service, body: SimilarityRequest) -> Reply:
    engine, suffix = service.engine(body.model)
    parameters = body.parameters or SimilarityParameters()
    task = requested_task(None, parameters.prompt_name, suffix)
    texts = _texts([body.inputs.source_sentence, *_texts(list(body.inputs.sentences))])
    result = await engine.embed(texts, task=task, overlong=_policy(parameters))
    cosines = result.vectors[1:] @ result.vectors[0]
    return _reply(json_numbers(cosines), engine, result.tokens, result.truncated, engine.default_task(texts, task))


async def _tokenize(service: Service, body: TokenizeRequest) -> Reply:
    engine, suffix = service.engine(body.model)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    prefix = prompt_for_task(engine.embedder, requested_task(None, body.prompt_name, suffix) or "none")
    tokens = await engine.offload(texts, lambda: b"".join(_tokens(engine, prefix, texts, body)))
    return Reply(tokens, engine.name, headers={"content-type": "application/json"})


def _tokens(engine: Engine, prefix: str, texts: list[str], body: TokenizeRequest) -> Iterator[bytes]:
    """Yield the JSON of all texts' tokens, in chunks."""
    tokenizer = engine.embedder.tokenizer
    first, last = (
        _json([Token(token, name, True, None, None)] if body.add_special_tokens is not False else [])[1:-1]
        for token, name in ((token, tokenizer.token_strings([token])[0]) for token in (tokenizer.bos, tokenizer.eos))
    )
    room = _MAX_TOKENS
    yield b"["
    for count, text in enumerate(texts):
        ids, spans = tokenizer.encode_with_offsets(text, prefix=prefix, max_tokens=room + 1)
        room -= len(ids)
        if room < 0:
            raise TooLargeError(
                f"the texts have more than {_MAX_TOKENS} tokens, the limit of a response: send fewer or shorter texts at a time",
                param="inputs",
            )
        parts = (part for part in (first, *_spans(prefix + text, ids, spans), last) if part)
        yield b",[" if count else b"["
        yield b",".join(parts)
        yield b"]"
    yield b"]"


def _spans(text: str, ids: Ids, spans: NDArray[np.int64]) -> Iterator[bytes]:
    """Yield the JSON of a text's tokens, in chunks, without the brackets of the array."""
    for first in range(0, len(ids), _TOKENS_PER_CHUNK):
        rows = slice(first, first + _TOKENS_PER_CHUNK)
        tokens = [
            Token(token, text[start:stop], False, start, stop)
            for token, (start, stop) in zip(ids[rows].tolist(), spans[rows].tolist(), strict=True)
        ]
        yield _json(tokens)[1:-1]


async def _info(service: Service, _body: None) -> Reply:
    engine, _ = service.engine()
    embedder, settings = engine.embedder, service.settings
    manifest = embedder.bundle.manifest
    info = Info(
        model_id=manifest.source.repo or manifest.name,
        model_sha=manifest.source.revision,
        model_dtype="int8" if manifest.recipe.startswith("int8") else "float32",
        model_type=ModelType(EmbeddingModel()),
        max_concurrent_requests=settings.max_requests,
        max_input_length=embedder.max_tokens,
        max_batch_tokens=settings.call_tokens,
        max_batch_requests=None,
        max_client_batch_size=settings.max_inputs,
        auto_truncate=settings.overlong == "truncate",
        tokenization_workers=1,
        version=__version__,
        sha=None,
        docker_label=None,
        prompts=embedder.prompts,
        dimension=embedder.dim,
        models=service.names,
    )
    return Reply(info, engine.name)


def _error_body(error: ApiError) -> ErrorReply:
    kinds: dict[str, Any] = {
        "empty": "Empty",
        "overloaded": "OverloadedError",
        "unready": "Unhealthy",
        "internal": "Backend",
    }
    return ErrorReply(error.message, kinds.get(error.kind, "Validation"))


_VECTORS = list[list[float]]
TEI = Api(
    name="tei",
    prefix="/embed",
    error_body=_error_body,
    statuses={"invalid": 422, "too_long": 413},
    endpoints=(
        Endpoint("/embed", "Embed texts (TEI)", _embed, EmbedRequest, _VECTORS),
        Endpoint("/", "Embed texts, as /embed (TEI)", _embed, EmbedRequest, _VECTORS),
        Endpoint("/embed_all", "Get the vectors of all tokens (TEI)", _embed_all, EmbedAllRequest, list[_VECTORS]),
        Endpoint("/similarity", "Compare a text with others (TEI)", _similarity, SimilarityRequest, list[float]),
        Endpoint("/tokenize", "Tokenize texts (TEI)", _tokenize, TokenizeRequest, list[list[Token]]),
        Endpoint("/info", "Describe the model and the limits (TEI)", _info, None, Info),
    ),
)
