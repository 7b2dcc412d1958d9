"""Endpoints for operating the server: health, readiness, metrics, OpenAPI document."""

from http import HTTPStatus
from typing import Literal

import msgspec

from moembed.server.apis.endpoint import Api, Endpoint
from moembed.server.engine.service import Service
from moembed.server.errors import ApiError
from moembed.server.metrics import CONTENT_TYPE
from moembed.server.reply import Reply
from moembed.version import __version__


class Health(msgspec.Struct):
    """Response of `GET /health`: the process is alive."""

    status: Literal["ok"] = "ok"
    version: str = __version__


class Progress(msgspec.Struct):
    """Progress of a conversion: its step, and finished and all bytes of the step (0 if it does not count them)."""

    step: str
    done: int
    total: int


class Ready(msgspec.Struct):
    """Response of `GET /ready`: whether each model answered a probe; status 503 if one did not or its call is stuck.

    `converting` has the models that are downloaded and converted, and is absent otherwise.
    """

    ready: bool
    models: dict[str, bool]
    converting: dict[str, Progress] | msgspec.UnsetType = msgspec.UNSET


class ErrorReply(msgspec.Struct):
    """Error response."""

    error: str


async def _health(_service: Service, _body: None) -> Reply:
    return Reply(Health())


async def _ready(service: Service, _body: None) -> Reply:
    models = service.ready
    ready = all(models.values())
    converting = {name: Progress(found.step, found.done, found.total) for name, found in service.conversions.items()}
    return Reply(
        Ready(ready, models, converting or msgspec.UNSET),
        status=HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE,
    )


async def _openapi(service: Service, _body: None) -> Reply:
    return Reply(service.document(), headers={"content-type": "application/json"})


async def _metrics(service: Service, _body: None) -> Reply:
    return Reply(service.metrics.exposition(), headers={"content-type": CONTENT_TYPE})


def _error_body(error: ApiError) -> ErrorReply:
    return ErrorReply(error.message)


OPERATIONS = Api(
    name="operations",
    prefix="/",
    error_body=_error_body,
    endpoints=(
        Endpoint("/health", "Check that the process is alive", _health, None, Health, public=True),
        Endpoint("/ready", "Check that every model is loaded and answers", _ready, None, Ready, public=True),
        Endpoint("/metrics", "Get metrics for Prometheus", _metrics),
        Endpoint("/openapi.json", "Get the OpenAPI description of this server", _openapi),
    ),
)
