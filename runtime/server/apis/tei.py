"""The API of Hugging Face's Text Embeddings Inference; where the field `model` (ours) is not given, the first model answers.

Written against its `router/src/http/types.rs` (265deb2a) and huggingface_hub 2.4 (`inference/_client.py`).
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from moembed.server.apis.encoding import each, numbers
from moembed.server.apis.endpoint import Api, Operation
from moembed.server.apis.fields import Ignored, LenientRequest, ignored
from moembed.server.apis.openai import IDS_REFUSED
from moembed.server.engine.engine import Engine
from moembed.server.engine.service import Service
from moembed.server.engine.tasks import prompt_named, task_named
from moembed.server.errors import ApiError, EmptyInputError, InvalidRequestError, TooLargeError
from moembed.server.reply import Reply
from moembed.tokenizer.tokenizer import Ids
from moembed.truncation import Overlong
from moembed.version import __version__

# Tokens of an answer of `/tokenize`: about 18 MB of JSON.
_TOKENS_AT_MOST = 2**18
_TOKENS_AT_ONCE = 4096
_json = msgspec.json.Encoder().encode

Inputs = str | list[str | int | list[int]]
Direction = Literal["left", "right", "Left", "Right"]


class NoParameters(msgspec.Struct, forbid_unknown_fields=True):
    """An empty object: what the Inference API has in here stands beside `inputs` in TEI's."""


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
    """One text, and those it is compared with."""

    source_sentence: str
    sentences: list[str]


class SimilarityParameters(LenientRequest, kw_only=True):
    """How the texts are embedded."""

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
    """A token and the characters it comes from, prompt included; special tokens come from none."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class EmbeddingModel(msgspec.Struct):
    """How the vector of a text is made."""

    pooling: str = "mean"


class ModelType(msgspec.Struct):
    """What the model is for."""

    embedding: EmbeddingModel


class Info(msgspec.Struct):
    """Answer of `GET /info`; `prompts`, `dimension` and `models` are ours."""

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
    """Answer to a refused request."""

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
        raise InvalidRequestError(IDS_REFUSED.replace("input", "inputs", 1), param="inputs")
    if "" in texts:
        raise InvalidRequestError(f"`inputs` cannot be empty: text {texts.index('')} is", param="inputs")
    return texts


def _replied(body: Any, engine: Engine, tokens: list[int], truncated: list[int], default_task: str | None) -> Reply:
    used = sum(tokens)
    headers = {"x-compute-tokens": str(used)}
    return Reply(body, engine.name, len(tokens), used, tuple(truncated), default_task, headers)


async def _embed(service: Service, body: EmbedRequest) -> Reply:
    engine, suffix = service.engine(body.model)
    task = task_named(None, body.prompt_name, suffix)
    texts = _texts(body.inputs)
    result = await engine.embed(
        texts,
        task=task,
        overlong=_policy(body),
        dim=body.dimensions,
        normalize=body.normalize is not False,
    )
    vectors = each(numbers, result.vectors)
    return _replied(vectors, engine, result.tokens, result.truncated, engine.default_task(texts, task))


async def _embed_all(service: Service, body: EmbedAllRequest) -> Reply:
    engine, suffix = service.engine(body.model)
    task = task_named(None, body.prompt_name, suffix)
    texts = _texts(body.inputs)
    states, todo = await engine.token_embeddings(texts, task=task, overlong=_policy(body))
    truncated = [window.text for window in todo if window.truncated]
    return _replied(
        [each(numbers, state) for state in states],
        engine,
        [len(window.ids) for window in todo],
        truncated,
        engine.default_task(texts, task),
    )


async def _similarity(service: Service, body: SimilarityRequest) -> Reply:
    engine, suffix = service.engine(body.model)
    how = body.parameters or SimilarityParameters()
    task = task_named(None, how.prompt_name, suffix)
    texts = _texts([body.inputs.source_sentence, *_texts(list(body.inputs.sentences))])
    result = await engine.embed(texts, task=task, overlong=_policy(how))
    cosines = result.vectors[1:] @ result.vectors[0]
    return _replied(numbers(cosines), engine, result.tokens, result.truncated, engine.default_task(texts, task))


async def _tokenize(service: Service, body: TokenizeRequest) -> Reply:
    engine, suffix = service.engine(body.model)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    prefix = prompt_named(engine.embedder, task_named(None, body.prompt_name, suffix) or "none")
    tokens = await engine.aside(texts, lambda: b"".join(_tokens(engine, prefix, texts, body)))
    return Reply(tokens, engine.name, headers={"content-type": "application/json"})


def _tokens(engine: Engine, prefix: str, texts: list[str], body: TokenizeRequest) -> Iterator[bytes]:
    """The JSON of all texts' tokens, in parts."""
    tokenizer = engine.embedder.tokenizer
    first, last = (
        _json([Token(token, name, True, None, None)] if body.add_special_tokens is not False else [])[1:-1]
        for token, name in ((token, tokenizer.token_strings([token])[0]) for token in (tokenizer.bos, tokenizer.eos))
    )
    room = _TOKENS_AT_MOST
    yield b"["
    for count, text in enumerate(texts):
        ids, spans = tokenizer.encode_with_offsets(text, prefix=prefix, most=room + 1)
        room -= len(ids)
        if room < 0:
            raise TooLargeError(
                f"the texts have more than {_TOKENS_AT_MOST} tokens, the most of an answer: send fewer or shorter texts at a "
                "time",
                param="inputs",
            )
        parts = (part for part in (first, *_spans(prefix + text, ids, spans), last) if part)
        yield b",[" if count else b"["
        yield b",".join(parts)
        yield b"]"
    yield b"]"


def _spans(text: str, ids: Ids, spans: NDArray[np.int64]) -> Iterator[bytes]:
    """The JSON of a text's tokens, in parts without the brackets around."""
    for first in range(0, len(ids), _TOKENS_AT_ONCE):
        rows = slice(first, first + _TOKENS_AT_ONCE)
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


def _error(refusal: ApiError) -> ErrorReply:
    kinds: dict[str, Any] = {
        "empty": "Empty",
        "overloaded": "OverloadedError",
        "unready": "Unhealthy",
        "internal": "Backend",
    }
    return ErrorReply(refusal.message, kinds.get(refusal.kind, "Validation"))


_VECTORS = list[list[float]]
TEI = Api(
    name="tei",
    prefix="/embed",
    error=_error,
    statuses={"invalid": 422, "too_long": 413},
    operations=(
        Operation("/embed", "Embed texts (TEI)", _embed, EmbedRequest, _VECTORS),
        Operation("/", "Embed texts, as /embed (TEI)", _embed, EmbedRequest, _VECTORS),
        Operation("/embed_all", "Vectors of all tokens (TEI)", _embed_all, EmbedAllRequest, list[_VECTORS]),
        Operation("/similarity", "Cosines of a text with others (TEI)", _similarity, SimilarityRequest, list[float]),
        Operation("/tokenize", "Tokens of texts (TEI)", _tokenize, TokenizeRequest, list[list[Token]]),
        Operation("/info", "The model and the limits (TEI)", _info, None, Info),
    ),
)
