"""Around every request: a number, a host and an origin, a key, a place among those in flight, figures and a line of the log."""

import hashlib
import hmac
import time
import uuid
from collections.abc import Collection, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moembed.server.apis.registry import api_of
from moembed.server.errors import ApiError, ForbiddenError, OverloadedError, UnauthorizedError
from moembed.server.http.handler import refused
from moembed.server.http.hosts import Hosts
from moembed.server.http.url_paths import put_right
from moembed.server.logs import log_request
from moembed.server.metrics import Metrics
from moembed.server.record import Record
from moembed.server.tracing import Tracing

_LONGEST_ID = 128


class Keys:
    """API keys, compared in constant time."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def check(self, authorization: bytes) -> None:
        """Check the value of an Authorization header.

        Raises:
            UnauthorizedError: there are keys, and it is none of them.
        """
        if not self._digests:
            return
        scheme, _, key = authorization.partition(b" ")
        found = hashlib.sha256(key.strip()).digest()
        # Every key is compared, whichever matches: the time tells nothing of them.
        matches = [hmac.compare_digest(found, digest) for digest in self._digests]
        if scheme.lower() != b"bearer" or not any(matches):
            raise UnauthorizedError(
                "no API key of this server: send one as the header Authorization: Bearer KEY",
                headers={"www-authenticate": "Bearer"},
            )


class AuthMiddleware:
    """The outermost ASGI application.

    Args:
        app: what answers.
        hosts: hosts and origins that may call.
        keys: keys, one of which is needed except for the paths in `public`.
        public: methods and paths that need none.
        most: requests that may be in flight.
        metrics: figures.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Hosts,
        keys: Keys,
        public: Collection[tuple[str, str]],
        most: int,
        metrics: Metrics,
    ) -> None:
        self._app, self._hosts, self._keys, self._public, self._most = app, hosts, keys, public, most
        self._metrics, self._tracing = metrics, Tracing()
        self._active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        put_right(scope)  # before any check, so that what is checked is what is routed
        headers: dict[bytes, bytes] = dict(scope["headers"])
        record = Record(_id_of(headers.get(b"x-request-id", b"")))
        scope.setdefault("state", {})["record"] = record

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", record.id.encode())]
            await send(message)

        self._active += 1
        self._metrics.active.set(self._active)
        try:
            with self._tracing.span(scope, record):
                if refusal := self._refusal(scope, headers):
                    api = api_of(scope["path"])
                    record.api, record.refused = api.name, refusal.kind
                    await refused(api, refusal)(scope, receive, sending)
                else:
                    await self._app(scope, receive, sending)
        finally:
            self._active -= 1
            self._metrics.active.set(self._active)
            seconds = time.perf_counter() - started
            self._metrics.observe(record, seconds)
            log_request(record, scope, seconds)

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> ApiError | None:
        try:
            self._hosts.check(scope)
        except ForbiddenError as refusal:
            return refusal
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        if (method, scope["path"]) in self._public:
            return None
        try:
            self._keys.check(headers.get(b"authorization", b""))
        except UnauthorizedError as refusal:
            return refusal
        if self._active > self._most:
            return OverloadedError(
                f"{self._most} requests are being answered, the most at a time: try again later", retry_after=1
            )
        return None


def _id_of(given: bytes) -> str:
    text = given.decode("ascii", "replace")
    return text if 0 < len(text) <= _LONGEST_ID and text.isprintable() and text.isascii() else uuid.uuid4().hex
