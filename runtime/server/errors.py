"""Errors that a request is answered with. Each API formats them in its own way."""

from http import HTTPStatus

from moembed.errors import InputError, MoembedError

# Characters of client input that an error quotes, and characters of an error message, at most.
_MAX_QUOTED = 200
_MAX_MESSAGE = 4000


def clipped(text: str, limit: int = _MAX_QUOTED) -> str:
    """Return a text, cut to its start and its length if it is long, for use in an error message."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def quoted(text: str) -> str:
    """Return a text in quotes for use in an error message: control characters escaped, cut if it is long."""
    return repr(text) if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]!r}... ({len(text)} characters)"


class ApiError(MoembedError):
    """Error response to a request.

    Args:
        message: what was asked, what was found, what to do.
        param: name of the invalid field.
        headers: headers of the response.

    Attributes:
        status: HTTP status, unless the API maps `kind` to another one.
        kind: label of the error in metrics and logs.
    """

    status = HTTPStatus.BAD_REQUEST
    kind = "invalid"

    def __init__(self, message: str, *, param: str | None = None, headers: dict[str, str] | None = None) -> None:
        message = clipped(message, _MAX_MESSAGE)
        super().__init__(message)
        self.message, self.param, self.headers = message, param, headers or {}


class InvalidRequestError(ApiError, InputError):
    """Invalid body or field value."""


class EmptyInputError(InvalidRequestError):
    """Request without any text."""

    kind = "empty"


class TooManyTextsError(ApiError):
    """More texts than a request may contain."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    kind = "too_many"


class TooLargeError(ApiError):
    """More bytes, characters or tokens than a request may contain."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    kind = "too_large"


class UnsupportedEncodingError(ApiError):
    """Body in an unsupported Content-Encoding."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    kind = "encoding"

    def __init__(self, coding: str) -> None:
        shown = coding if len(coding) <= 40 else f"{coding[:40]}..."
        super().__init__(
            f"Content-Encoding {shown!r} is not supported: send gzip, deflate, or no compression",
            headers={"accept-encoding": "gzip, deflate, identity"},
        )


class TooLongError(InvalidRequestError):
    """Text with more tokens than the model accepts."""

    kind = "too_long"


class UnauthorizedError(ApiError):
    """Missing or wrong API key."""

    status = HTTPStatus.UNAUTHORIZED
    kind = "unauthorized"


class ForbiddenError(ApiError):
    """Host name or page origin that is not allowed."""

    status = HTTPStatus.FORBIDDEN
    kind = "forbidden"


class NotFoundError(ApiError):
    """Path without an endpoint."""

    status = HTTPStatus.NOT_FOUND
    kind = "not_found"


class ModelNotFoundError(NotFoundError):
    """Unknown model name."""

    kind = "no_model"


class MethodNotAllowedError(ApiError):
    """Existing path, requested with an HTTP method that it does not support."""

    status = HTTPStatus.METHOD_NOT_ALLOWED
    kind = "method"


class RequestTimeoutError(ApiError):
    """Body that did not arrive in time."""

    status = HTTPStatus.REQUEST_TIMEOUT
    kind = "timeout"


class OverloadedError(ApiError):
    """Full queue, or too many concurrent requests."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    kind = "overloaded"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message, headers={"retry-after": str(retry_after)})


class NotReadyError(ApiError):
    """Model that is still loading."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    kind = "unready"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"retry-after": "1"})


class InternalError(ApiError):
    """Bug in the server."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    kind = "internal"
