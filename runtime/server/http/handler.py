"""Starlette endpoints around the handlers: read and decode the body, call the handler, write the response."""

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, TypeVar, cast
from urllib.parse import quote

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from moembed.server.apis.encoding import encode_body
from moembed.server.apis.endpoint import Api, Endpoint
from moembed.server.apis.fields import UNSUPPORTED
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
from moembed.server.http.content_encoding import decompress
from moembed.server.http.json_counts import SMALL, count_json
from moembed.server.http.unicode_errors import find_invalid_text
from moembed.server.logs import warn_default_task
from moembed.server.record import CLIENT_CLOSED_REQUEST, Record
from moembed.server.reply import Reply
from moembed.server.settings import Settings
from moembed.stamps.stamp import Stamp

_T = TypeVar("_T")
_JSON = "application/json"
# Bodies of the maximum size that may be in memory before they are decoded, per worker.
_LARGE_BODIES = 8

_encode = msgspec.json.Encoder().encode


class BodyReader:
    """Reads request bodies, within a size limit per body and for all bodies in transit together.

    Args:
        max_bytes: size of a body, before and after decompression.
        timeout: seconds in which a body has to arrive.
    """

    def __init__(self, max_bytes: int, timeout: float) -> None:
        self._max_bytes, self._timeout, self._arriving = max_bytes, timeout, 0

    async def read(self, request: Request) -> bytes:
        """Read a request's body, without its Content-Encoding.

        Raises:
            TooLargeError: the body exceeds the size limit, as received or decompressed.
            UnsupportedEncodingError: the Content-Encoding is not supported.
            InvalidRequestError: the body is not valid in its Content-Encoding.
            OverloadedError: too many bytes are in transit.
            RequestTimeoutError: the body did not arrive in time.
            ClientDisconnect: the client disconnected.
        """
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self._max_bytes:
            raise self._too_large()
        body = await self._receive(request)
        coding = request.headers.get("content-encoding", "")
        if not coding:
            return body
        plain = await asyncio.to_thread(decompress, coding, body, self._max_bytes)
        if plain is None:
            raise self._too_large()
        return plain

    async def _receive(self, request: Request) -> bytes:
        parts, size, more = [], 0, True
        try:
            async with asyncio.timeout(self._timeout):
                while more:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    part, more = message.get("body", b""), message.get("more_body", False)
                    size += len(part)
                    self._arriving += len(part)
                    if size > self._max_bytes:
                        raise self._too_large()
                    if self._arriving > self._max_bytes * _LARGE_BODIES:
                        raise OverloadedError("too many large requests are arriving: try again later", retry_after=1)
                    parts.append(part)
        except TimeoutError:
            raise RequestTimeoutError(f"the body did not arrive within {self._timeout:g} seconds") from None
        finally:
            self._arriving -= size
        return b"".join(parts)

    def _too_large(self) -> TooLargeError:
        return TooLargeError(
            f"the body has more than {self._max_bytes} bytes: send less at a time (`moembed serve --max-body-bytes`)",
            headers={"connection": "close"},
        )


def route_handler(api: Api, endpoint: Endpoint, body_reader: BodyReader) -> Callable[[Request], Awaitable[Response]]:
    """Return the function that Starlette calls for an endpoint."""
    decoder = None if endpoint.request is None else msgspec.json.Decoder(endpoint.request)

    async def handle(request: Request) -> Response:
        record: Record = request.scope["state"]["record"]
        record.api, record.endpoint = api.name, endpoint.path
        service: Service = request.app.state.service
        try:
            if decoder is None:
                argument = request.path_params.get(endpoint.parameter)
            else:
                argument = await _decode(decoder, await body_reader.read(request), service.settings)
            reply = await cancel_on_disconnect(request, endpoint.handle(service, argument))
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        except ApiError as error:
            record.refused = error.kind
            return error_response(api, error)
        except asyncio.CancelledError:
            record.refused = NotReadyError.kind
            return error_response(api, NotReadyError("the server stopped before it could answer: try again"))
        except Exception as error:  # any other: the client still gets an error in the format of the API
            record.failed(error)
            return error_response(api, InternalError("internal server error; the server's log has the location"))
        record.reply = reply
        if reply.default_task is not None:
            warn_default_task(reply.model, api.name, reply.default_task)
        return _response(reply)

    return handle


def _response(reply: Reply) -> Response:
    """Return a reply as an HTTP response, with headers for the stamp, truncated texts and a default task."""
    headers = dict(reply.headers)
    if reply.default_task is not None:
        headers["x-moembed-task"] = f"{quote(reply.default_task)} (default)"
    if reply.truncated:
        headers["x-truncated-inputs"] = str(len(reply.truncated))
    if reply.stamps:
        headers["x-moembed-stamp"] = _stamp_header(reply.stamps)
    if isinstance(reply.body, bytes):
        return Response(reply.body, reply.status, headers)
    written = encode_body(reply.body)
    if isinstance(written, bytes):
        return Response(written, reply.status, headers, media_type=_JSON)
    return StreamingResponse(written, reply.status, headers, media_type=_JSON)


@functools.lru_cache(maxsize=256)
def _stamp_header(stamps: tuple[Stamp, ...]) -> str:
    """Return a stamp, or an array of several, as JSON in ASCII."""
    written = [asdict(stamp) for stamp in stamps]
    return json.dumps(written[0] if len(written) == 1 else written, separators=(",", ":"))


def error_response(api: Api, error: ApiError) -> Response:
    """Return an error as an HTTP response in an API's format."""
    return Response(_encode(api.error_body(error)), api.status(error), error.headers, media_type=_JSON)


async def cancel_on_disconnect(request: Request, work: Awaitable[_T]) -> _T:
    """Await work, and cancel it as soon as the client disconnects.

    Raises:
        ClientDisconnect: the client disconnected.
    """
    task = cast("asyncio.Task[Any]", asyncio.current_task())
    watching = asyncio.create_task(_cancel_when_gone(request, task))
    try:
        return await work
    except asyncio.CancelledError:
        if watching.done() and not task.uncancel():
            raise ClientDisconnect from None
        raise
    finally:
        watching.cancel()


async def _cancel_when_gone(request: Request, task: "asyncio.Task[Any]") -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    task.cancel()


async def _decode(decoder: "msgspec.json.Decoder[Any]", raw: bytes, settings: Settings) -> Any:
    """Decode a JSON body. A large one is counted first, and decoded in another thread."""
    if len(raw) <= SMALL:
        return _decode_json(decoder, raw)

    def count_and_decode() -> Any:
        count_json(raw).check(settings)
        return _decode_json(decoder, raw)

    return await asyncio.to_thread(count_and_decode)


def _decode_json(decoder: "msgspec.json.Decoder[Any]", raw: bytes) -> Any:
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at ")
        field = path.strip("`").removeprefix("$").lstrip(".") or None
        message, field = clipped(message[:1].lower() + message[1:]), field and clipped(field)
        if message.startswith("expected `null`,"):
            message = f"{UNSUPPORTED}: leave it out"
        elif not field and "unknown field" in message:
            message += f"; the fields are {', '.join(decoder.type.__struct_fields__)}"
        raise InvalidRequestError(f"{field or 'the body'}: {message}", param=field) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if invalid := find_invalid_text(raw, decoder):
            field, problem = invalid
            raise InvalidRequestError(f"{field or 'the body'}: {problem}", param=field) from None
        raise InvalidRequestError(f"the body is not valid JSON: {error}") from None
