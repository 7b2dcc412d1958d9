"""The endpoints by which a server is operated: alive, ready, figures, description."""

from http import HTTPStatus
from typing import Literal

import msgspec

from moembed.server.apis.endpoint import Api, Operation
from moembed.server.engine.service import Service
from moembed.server.errors import ApiError
from moembed.server.metrics import CONTENT_TYPE
from moembed.server.reply import Reply
from moembed.version import __version__


class Health(msgspec.Struct):
    """Answer of `GET /health`: the process is alive."""

    status: Literal["ok"] = "ok"
    version: str = __version__


class Ready(msgspec.Struct):
    """Answer of `GET /ready`: which models answered a probe; status 503 if one did not, or the server is stopping."""

    ready: bool
    models: dict[str, bool]


class ErrorReply(msgspec.Struct):
    """Answer to a refused request."""

    error: str


async def _health(_service: Service, _body: None) -> Reply:
    return Reply(Health())


async def _ready(service: Service, _body: None) -> Reply:
    models = service.ready
    ready = all(models.values())
    return Reply(Ready(ready, models), status=HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)


async def _openapi(service: Service, _body: None) -> Reply:
    return Reply(service.document(), headers={"content-type": "application/json"})


async def _metrics(service: Service, _body: None) -> Reply:
    return Reply(service.metrics.exposition(), headers={"content-type": CONTENT_TYPE})


def _error(refusal: ApiError) -> ErrorReply:
    return ErrorReply(refusal.message)


OPERATIONS = Api(
    name="operations",
    prefix="/",
    error=_error,
    operations=(
        Operation("/health", "Whether the process is alive", _health, None, Health, open=True),
        Operation("/ready", "Whether every model is loaded and answers", _ready, None, Ready, open=True),
        Operation("/metrics", "Figures for Prometheus", _metrics),
        Operation("/openapi.json", "This document", _openapi),
    ),
)
