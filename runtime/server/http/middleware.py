"""ASGI middleware: observability outside, access control inside."""

import hashlib
import hmac
import random
import time
from collections.abc import Collection, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moembed.server.apis.registry import api_of
from moembed.server.errors import ApiError, OverloadedError, UnauthorizedError
from moembed.server.http.handler import error_response
from moembed.server.http.hosts import HostPolicy
from moembed.server.http.url_paths import normalize_path
from moembed.server.logs import log_request
from moembed.server.metrics import Metrics
from moembed.server.record import Record
from moembed.server.tracing import Tracing

_MAX_REQUEST_ID = 128


class ObservabilityMiddleware:
    """Gives every request an id and a `Record`, and makes metrics, a span and a log line of it.

    Args:
        app: the inner application.
        metrics: Prometheus metrics.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics, self._tracing = app, metrics, Tracing()
        self._active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        record = Record(_request_id(_header(scope, b"x-request-id")))
        scope.setdefault("state", {})["record"] = record

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", record.id.encode())]
            await send(message)

        self._active += 1
        self._metrics.active.set(self._active)
        try:
            if self._tracing.enabled:
                with self._tracing.span(scope, record):
                    await self._app(scope, receive, send_with_id)
            else:
                await self._app(scope, receive, send_with_id)
        finally:
            self._active -= 1
            self._metrics.active.set(self._active)
            seconds = time.perf_counter() - started
            self._metrics.observe(record, seconds)
            log_request(record, scope, seconds)


class ApiKeys:
    """API keys, compared in constant time."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def check(self, authorization: bytes) -> None:
        """Check the value of an Authorization header.

        Raises:
            UnauthorizedError: keys are set, and the header holds none of them.
        """
        if not self._digests:
            return
        scheme, _, key = authorization.partition(b" ")
        digest = hashlib.sha256(key.strip()).digest()
        # Every key is compared, so that the time does not depend on which one matches.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if scheme.lower() != b"bearer" or not any(matches):
            raise UnauthorizedError(
                "missing or wrong API key: send one in the header Authorization: Bearer KEY",
                headers={"www-authenticate": "Bearer"},
            )


class AuthMiddleware:
    """Rejects requests from foreign hosts and pages, without an API key, or beyond the limit of concurrent requests.

    Args:
        app: the inner application.
        hosts: allowed hosts and origins.
        keys: API keys.
        public: methods and paths that need neither a key nor a free slot.
        max_requests: concurrent requests.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: HostPolicy,
        keys: ApiKeys,
        public: Collection[tuple[str, str]],
        max_requests: int,
    ) -> None:
        self._app, self._hosts, self._keys = app, hosts, keys
        self._public, self._max_requests = public, max_requests
        self._active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        normalize_path(scope)  # before the checks, so that the checked path is the routed one
        app = self._app
        self._active += 1
        try:
            try:
                self._check(scope)
            except ApiError as error:
                api, record = api_of(scope["path"]), scope["state"]["record"]
                record.api, record.refused = api.name, error.kind
                app = error_response(api, error)
            await app(scope, receive, send)
        finally:
            self._active -= 1

    def _check(self, scope: Scope) -> None:
        self._hosts.check(scope)
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        if (method, scope["path"]) in self._public:
            return
        self._keys.check(_header(scope, b"authorization"))
        if self._active > self._max_requests:
            raise OverloadedError(
                f"the limit of {self._max_requests} concurrent requests is reached: try again later", retry_after=1
            )


def _header(scope: Scope, name: bytes) -> bytes:
    # The last one counts.
    return next((value for given, value in reversed(scope["headers"]) if given == name), b"")


def _request_id(given: bytes) -> str:
    text = given.decode("ascii", "replace")
    if 0 < len(text) <= _MAX_REQUEST_ID and text.isprintable() and text.isascii():
        return text
    return f"{random.getrandbits(128):032x}"  # an id, not a secret
