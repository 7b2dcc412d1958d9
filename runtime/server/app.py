"""ASGI application: routes of every API, the models behind them, and the middleware around them."""

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
from moembed.server.apis.registry import APIS, api_of, match_suffix
from moembed.server.apis.schema import openapi_document
from moembed.server.engine.service import Service, parse_models
from moembed.server.errors import ApiError, InternalError, MethodNotAllowedError, NotFoundError, clipped
from moembed.server.http.handler import BodyReader, error_response, route_handler
from moembed.server.http.hosts import HostPolicy
from moembed.server.http.middleware import ApiKeys, AuthMiddleware, ObservabilityMiddleware
from moembed.server.http.url_paths import allowed_methods
from moembed.server.logs import log
from moembed.server.record import Record
from moembed.server.settings import DEFAULT_CONNECTIONS, SPARE_CONNECTIONS, Settings


def create_app(settings: Settings, *, on_failure: Callable[[MoembedError], None], converting: bool = False) -> ASGIApp:
    """Create the application.

    Args:
        settings: the server's settings.
        on_failure: called if a model cannot be loaded. A single worker loads while it listens; several workers load first.
        converting: listen first, also with several workers, because a model has to be converted.

    Returns:
        An ASGI application that loads the models at startup and drains at shutdown.

    Raises:
        InputError: settings contradict each other, a key or a host is invalid, or the file of API keys cannot be read.
    """
    service = Service(
        settings, parse_models(settings.model), functools.cache(functools.partial(openapi_document, APIS))
    )
    body_reader = BodyReader(settings.max_body_bytes, settings.body_timeout)
    routes = [
        Route(
            endpoint.path.replace("}", ":path}"),
            route_handler(api, endpoint, body_reader),
            methods=[endpoint.method],
        )
        for api in APIS
        for endpoint in api.endpoints
    ]
    router = Starlette(routes=routes, lifespan=_lifespan, exception_handlers={HTTPException: _no_route})
    router.router.redirect_slashes = False  # AuthMiddleware normalizes paths before they are routed
    router.state.service, router.state.on_failure = service, on_failure
    router.state.listen_first = settings.workers == 1 or converting
    app: ASGIApp = AuthMiddleware(
        router,
        hosts=HostPolicy(settings),
        keys=ApiKeys(settings.keys),
        public={(endpoint.method, endpoint.path) for api in APIS for endpoint in api.endpoints if endpoint.public},
        max_requests=_max_requests(settings),
    )
    app = ObservabilityMiddleware(app, service.metrics)
    if not settings.cors_origins:
        return app
    return CORSMiddleware(
        app,
        settings.cors_origins,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        # Pages of a listed origin may call this server from a public network too.
        allow_private_network=True,
        expose_headers=["retry-after", "x-moembed-stamp", "x-moembed-task", "x-request-id", "x-truncated-inputs"],
    )


def _max_requests(settings: Settings) -> int:
    connections = settings.max_connections or DEFAULT_CONNECTIONS
    return min(settings.max_requests, max(1, connections - SPARE_CONNECTIONS))


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    service: Service = app.state.service
    loading = asyncio.create_task(_load(service, app.state.on_failure))
    if not app.state.listen_first:
        # Other workers answer in the meantime: this one listens once it has loaded.
        await loading
    try:
        yield
    finally:  # also on a forced exit: no thread may outlive the interpreter
        loading.cancel()
        await service.close()


async def _load(service: Service, on_failure: Callable[[MoembedError], None]) -> None:
    try:
        await service.load()
    except Exception as error:  # any failure: the server cannot work without its models
        failure = error if isinstance(error, MoembedError) else InternalError(f"cannot load a model: {error!r}")
        log(logging.ERROR, event="failed", message=str(failure))
        on_failure(failure)
        return
    log(logging.INFO, event="ready", models=service.names)


async def _no_route(request: Request, exception: Exception) -> Response:
    """Answer a path without an endpoint, or with an unsupported method, in the error format of the nearest API."""
    path: str = clipped(request.scope["path"])
    api = api_of(path)
    error: ApiError
    if isinstance(exception, HTTPException) and exception.status_code == MethodNotAllowedError.status:
        allowed = ", ".join(allowed_methods(path))
        error = MethodNotAllowedError(
            f"{path} does not support {clipped(request.method)}; use {allowed}", headers={"allow": allowed}
        )
    else:
        similar = match_suffix(path)
        hint = f"did you mean {similar}? " if similar else ""
        error = NotFoundError(f"no endpoint at {path}: {hint}see /openapi.json for all endpoints")
    record: Record = request.scope["state"]["record"]
    record.api, record.refused = api.name, error.kind
    return error_response(api, error)
