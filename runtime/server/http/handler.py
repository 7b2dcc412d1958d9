"""From an HTTP request to a handler and back: reads the body, decodes it, gives up when the client does."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from moembed.server.apis.encoding import encoded
from moembed.server.apis.endpoint import Api, Operation
from moembed.server.apis.fields import REFUSED
from moembed.server.engine.service import Service
from moembed.server.errors import (
    ApiError,
    InternalError,
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    RequestTimeoutError,
    TooLargeError,
    clipped,
)
from moembed.server.http.content_encoding import decoded
from moembed.server.http.json_outline import SMALL, outline
from moembed.server.http.unicode_errors import fault_in
from moembed.server.logs import warn_default_task
from moembed.server.record import GONE, Record
from moembed.server.reply import Reply
from moembed.server.settings import Settings

_T = TypeVar("_T")
_JSON = "application/json"
# Bodies of the greatest size that may be in memory before they are decoded, in each worker.
_LARGE_BODIES = 8

_encode = msgspec.json.Encoder().encode


class BodyReader:
    """Reads bodies within the limits of one and of all that arrive at a time."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most, self._seconds, self._arriving = most, seconds, 0

    async def read(self, request: Request) -> bytes:
        """The body of a request, decoded.

        Raises:
            TooLargeError: it has more bytes than a body may have, as it arrives or decoded.
            UnsupportedEncodingError: it is in a Content-Encoding that is not read.
            InvalidRequestError: it is not what its Content-Encoding says.
            OverloadedError: too many bytes are arriving already.
            RequestTimeoutError: it did not arrive in time.
            ClientDisconnect: the client went away.
        """
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self._most:
            raise self._too_large()
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._seconds):
                async for part in request.stream():
                    size += len(part)
                    self._arriving += len(part)
                    if size > self._most:
                        raise self._too_large()
                    if self._arriving > self._most * _LARGE_BODIES:
                        raise OverloadedError("too many large requests are arriving: try again later", retry_after=1)
                    parts.append(part)
        except TimeoutError:
            raise RequestTimeoutError(f"the body did not arrive within {self._seconds:g} seconds") from None
        finally:
            self._arriving -= size
        body = b"".join(parts)
        coding = request.headers.get("content-encoding", "")
        if not coding:
            return body
        plain = await asyncio.to_thread(decoded, coding, body, self._most)
        if plain is None:
            raise self._too_large()
        return plain

    def _too_large(self) -> TooLargeError:
        return TooLargeError(
            f"the body has more than {self._most} bytes: send less at a time (`moembed serve --max-body-bytes`)",
            headers={"connection": "close"},
        )


def endpoint(api: Api, operation: Operation, bodies: BodyReader) -> Callable[[Request], Awaitable[Response]]:
    """What Starlette calls for an operation."""
    decoder = None if operation.request is None else msgspec.json.Decoder(operation.request)

    async def handle(request: Request) -> Response:
        record: Record = request.scope["state"]["record"]
        record.api, record.endpoint = api.name, operation.path
        service: Service = request.app.state.service
        try:
            given = request.path_params.get(operation.parameter)
            body = given if decoder is None else await _read(decoder, await bodies.read(request), service.settings)
            reply = await unless_gone(request, operation.handle(service, body))
        except ClientDisconnect:
            return Response(status_code=GONE)
        except ApiError as refusal:
            record.refused = refusal.kind
            return refused(api, refusal)
        except asyncio.CancelledError:
            record.refused = NotReadyError.kind
            return refused(api, NotReadyError("the server is stopping and waits no longer: try again"))
        except Exception as error:  # whatever it was, the client gets an answer in its API's form
            record.failed(error)
            return refused(api, InternalError("the server failed to answer; its log says where"))
        record.reply = reply
        if reply.default_task is not None:
            warn_default_task(reply.model, api.name, reply.default_task)
        return answer(reply)

    return handle


def answer(reply: Reply) -> Response:
    """A reply as an HTTP response; texts that were not read as a whole, and a default task, are in its headers."""
    headers = dict(reply.headers)
    if reply.default_task is not None:
        headers["x-moembed-task"] = f"{quote(reply.default_task)} (default)"
    if reply.truncated:
        headers["x-truncated-inputs"] = str(len(reply.truncated))
    if isinstance(reply.body, bytes):
        return Response(reply.body, reply.status, headers)
    written = encoded(reply.body)
    if isinstance(written, bytes):
        return Response(written, reply.status, headers, media_type=_JSON)
    return StreamingResponse(written, reply.status, headers, media_type=_JSON)


def refused(api: Api, refusal: ApiError) -> Response:
    """A refusal as an HTTP response in an API's form."""
    return Response(_encode(api.error(refusal)), api.status(refusal), refusal.headers, media_type=_JSON)


async def unless_gone(request: Request, work: Awaitable[_T]) -> _T:
    """Wait for work, and cancel it as soon as the client goes away.

    Raises:
        ClientDisconnect: the client went away.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        leaving.cancel()
        working.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _read(decoder: "msgspec.json.Decoder[Any]", raw: bytes, settings: Settings) -> Any:
    """Decode a body, a large one beside the event loop and not before its values are counted."""
    if len(raw) <= SMALL:
        return _decoded(decoder, raw)

    def checked(raw: bytes) -> Any:
        outline(raw).check(settings)
        return _decoded(decoder, raw)

    return await asyncio.to_thread(checked, raw)


def _decoded(decoder: "msgspec.json.Decoder[Any]", raw: bytes) -> Any:
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at ")
        field = place.strip("`").removeprefix("$").lstrip(".") or None
        message, field = clipped(message[:1].lower() + message[1:]), field and clipped(field)
        if message.startswith("expected `null`,"):
            message = f"{REFUSED}: leave it out"
        elif not field and "unknown field" in message:
            message += f"; there are {', '.join(decoder.type.__struct_fields__)}"
        raise InvalidRequestError(f"{field or 'the body'}: {message}", param=field) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if fault := fault_in(raw, decoder):
            where, what = fault
            raise InvalidRequestError(f"{where or 'the body'}: {what}", param=where) from None
        raise InvalidRequestError(f"the body is not JSON that can be read: {error}") from None
