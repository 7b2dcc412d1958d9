"""The ASGI application: every API's endpoints, the models behind them, and what stands around."""

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from moembed.errors import MoembedError
from moembed.server.apis.registry import APIS, api_of, ending
from moembed.server.apis.schema import document
from moembed.server.engine.service import Service, sources_of
from moembed.server.errors import ApiError, InternalError, MethodNotAllowedError, NotFoundError, clipped
from moembed.server.http.handler import BodyReader, endpoint, refused
from moembed.server.http.hosts import Hosts
from moembed.server.http.middleware import AuthMiddleware, Keys
from moembed.server.http.url_paths import methods
from moembed.server.logs import log
from moembed.server.record import Record
from moembed.server.settings import DEFAULT_CONNECTIONS, SPARE_CONNECTIONS, Settings


def create_app(settings: Settings, *, on_failure: Callable[[MoembedError], None]) -> ASGIApp:
    """Make the application.

    Args:
        settings: what was set.
        on_failure: is called if a model cannot be loaded; one worker loads while it listens, several load first.

    Returns:
        An ASGI application that loads the models when it is started, and drains when it is stopped.

    Raises:
        InputError: the settings contradict each other, a key or a host cannot be used, or the file of API keys cannot be read.
    """
    service = Service(settings, sources_of(settings.model), functools.cache(functools.partial(document, APIS)))
    bodies = BodyReader(settings.max_body_bytes, settings.body_timeout)
    routes = [
        Route(operation.path.replace("}", ":path}"), endpoint(api, operation, bodies), methods=[operation.method])
        for api in APIS
        for operation in api.operations
    ]
    inner = Starlette(routes=routes, lifespan=_lifespan, exception_handlers={HTTPException: _unrouted})
    inner.router.redirect_slashes = False  # paths were put right before they are routed; see paths.py
    inner.state.service, inner.state.on_failure = service, on_failure
    door = AuthMiddleware(
        inner,
        hosts=Hosts(settings),
        keys=Keys(settings.keys),
        public={(operation.method, operation.path) for api in APIS for operation in api.operations if operation.open},
        most=_most_requests(settings),
        metrics=service.metrics,
    )
    if not settings.cors_origins:
        return door
    return CORSMiddleware(
        door,
        settings.cors_origins,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        # Who lists an origin means its pages to reach this server, wherever it is.
        allow_private_network=True,
        expose_headers=["retry-after", "x-moembed-task", "x-request-id", "x-truncated-inputs"],
    )


def _most_requests(settings: Settings) -> int:
    connections = settings.max_connections or DEFAULT_CONNECTIONS
    return min(settings.max_requests, max(1, connections - SPARE_CONNECTIONS))


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    service: Service = app.state.service
    loading = asyncio.create_task(_load(service, app.state.on_failure))
    if service.settings.workers > 1:
        # Another worker answers meanwhile: this one listens as soon as it can.
        await loading
    try:
        yield
    finally:  # also where it is made to leave at once: a thread must not outlive the interpreter
        loading.cancel()
        await service.close()


async def _load(service: Service, on_failure: Callable[[MoembedError], None]) -> None:
    try:
        await service.load()
    except Exception as error:  # whatever it was: without its models the server is of no use
        failure = error if isinstance(error, MoembedError) else InternalError(f"a model cannot be loaded: {error!r}")
        log(logging.ERROR, event="failed", message=str(failure))
        on_failure(failure)
        return
    log(logging.INFO, event="ready", models=service.names)


async def _unrouted(request: Request, error: Exception) -> Response:
    path: str = clipped(request.scope["path"])
    api = api_of(path)
    if isinstance(error, HTTPException) and error.status_code == MethodNotAllowedError.status:
        allowed = ", ".join(methods(path))
        refusal: ApiError = MethodNotAllowedError(
            f"{path} is not for {clipped(request.method)}, but for {allowed}", headers={"allow": allowed}
        )
    else:
        meant = f"did you mean {found}? " if (found := ending(path)) else ""
        refusal = NotFoundError(f"there is no {path} here; {meant}/openapi.json lists what there is")
    record: Record = request.scope["state"]["record"]
    record.api, record.refused = api.name, refusal.kind
    return refused(api, refusal)
