"""Page at `/`, and the endpoints that only the page needs: the models served, and the routing of a text's tokens."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from moembed.digits import json_list
from moembed.pull.opening import DEFAULT_FOLDER
from moembed.server.apis.endpoint import Api, Endpoint
from moembed.server.apis.health import ErrorReply
from moembed.server.engine.service import Service
from moembed.server.engine.tasks import requested_task
from moembed.server.errors import ApiError
from moembed.server.reply import Reply
from moembed.version import __version__

_FOLDER = Path(__file__).parents[1] / "static"
_INDEX = "index.html"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Only the server's own scripts and styles are loaded, and no script can turn a string into markup.
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


class Card(msgspec.Struct):
    """Description of a model.

    `built_in` says whether it is the built-in model, `num_experts` how many experts an MoE layer has, 0 without such layers.
    `origin` and `revision` are the hub name and commit of its checkpoint, if they are known.
    """

    id: str
    name: str
    built_in: bool
    origin: str | None
    revision: str | None
    recipe: str
    size: int
    dim: int
    max_tokens: int
    prompts: dict[str, str]
    num_experts: int
    kernels: str
    threads: int


class About(msgspec.Struct):
    """Response of `GET /about`."""

    version: str
    models: list[Card]


class RoutingRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /routing`; `model` and `input_type` as for `POST /v1/embeddings`."""

    input: str
    model: str | None = None
    input_type: str | None = None


class Layer(msgspec.Struct):
    """Routing of one layer.

    `experts` and `weights` have one list per token, by descending weight; `load` has the number of tokens per expert.
    """

    layer: int
    experts: list[list[int]]
    weights: list[list[float]]
    load: list[int]


class RoutingReply(msgspec.Struct):
    """Response of `POST /routing`."""

    model: str
    num_experts: int
    tokens: list[str]
    layers: list[Layer]


async def _about(service: Service, _body: None) -> Reply:
    return Reply(About(__version__, [_card(service, name) for name in service.names]))


def _card(service: Service, name: str) -> Card:
    embedder = service.engine(name)[0].embedder
    manifest = embedder.bundle.manifest
    return Card(
        id=name,
        name=manifest.name,
        built_in=embedder.bundle.folder == DEFAULT_FOLDER,
        origin=manifest.source.repo,
        revision=manifest.source.revision,
        recipe=manifest.recipe,
        size=embedder.bundle.size,
        dim=embedder.dim,
        max_tokens=embedder.max_tokens,
        prompts=embedder.prompts,
        num_experts=manifest.num_experts,
        kernels=embedder.kernels,
        threads=embedder.threads,
    )


async def _routing(service: Service, body: RoutingRequest) -> Reply:
    engine, suffix = service.engine(body.model)
    routing = await engine.routing(body.input, task=requested_task(body.input_type, None, suffix))
    rows = zip(routing.layers, routing.experts, routing.weights, routing.load.tolist(), strict=True)
    layers = [Layer(layer, experts.tolist(), json_list(weights), load) for layer, experts, weights, load in rows]
    reply = RoutingReply(engine.name, routing.num_experts, list(routing.tokens), layers)
    return Reply(reply, model=engine.name, texts=1, tokens=len(routing.tokens))


def _error_body(error: ApiError) -> ErrorReply:
    return ErrorReply(error.message)


def _file(path: Path) -> Callable[[Service, Any], Coroutine[Any, Any, Reply]]:
    content, headers = path.read_bytes(), _HEADERS | {"content-type": _TYPES[path.suffix]}

    async def handle(_service: Service, _body: None) -> Reply:
        return Reply(content, headers=headers)

    return handle


PAGE = Api(
    name="page",
    prefix="/static/",
    error_body=_error_body,
    endpoints=(
        Endpoint("/", "Show the page", _file(_FOLDER / _INDEX), public=True),
        *(
            Endpoint(f"/static/{path.name}", "Get a file of the page", _file(path), public=True)
            for path in sorted(_FOLDER.iterdir())
            if path.suffix in _TYPES and path.name != _INDEX
        ),
        Endpoint("/about", "Describe the models served", _about, None, About),
        Endpoint("/routing", "Route the tokens of a text to experts", _routing, RoutingRequest, RoutingReply),
    ),
)
