"""What a request can be refused for; each API has its own words for it."""

from http import HTTPStatus

from moembed.errors import InputError, MoembedError

# What an error quotes of a client's words, and its greatest length, in characters.
_QUOTED = 200
_LONGEST_MESSAGE = 4000


def clipped(text: str, most: int = _QUOTED) -> str:
    """A text as an error quotes it: its start, if it is long, and how long it is."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def quoted(text: str) -> str:
    """A text in quotes as an error shows it, control characters escaped, clipped if it is long."""
    return repr(text) if len(text) <= _QUOTED else f"{text[:_QUOTED]!r}... ({len(text)} characters)"


class ApiError(MoembedError):
    """A request that is not answered.

    Args:
        message: what was asked, what was found, what to do.
        param: the field that is wrong.
        headers: of the answer.

    Attributes:
        status: HTTP status, where an API has no other for it.
        kind: one word, of which figures and logs are made.
    """

    status = HTTPStatus.BAD_REQUEST
    kind = "invalid"

    def __init__(self, message: str, *, param: str | None = None, headers: dict[str, str] | None = None) -> None:
        message = clipped(message, _LONGEST_MESSAGE)
        super().__init__(message)
        self.message, self.param, self.headers = message, param, headers or {}


class InvalidRequestError(ApiError, InputError):
    """A body or a value that cannot be used."""


class EmptyInputError(InvalidRequestError):
    """No text at all."""

    kind = "empty"


class TooManyTextsError(ApiError):
    """More texts than a request may have."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    kind = "too_many"


class TooLargeError(ApiError):
    """More bytes, characters or tokens than a request may have."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    kind = "too_large"


class UnsupportedEncodingError(ApiError):
    """A body in a Content-Encoding that is not read."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    kind = "encoding"

    def __init__(self, coding: str) -> None:
        shown = coding if len(coding) <= 40 else f"{coding[:40]}..."
        super().__init__(
            f"the Content-Encoding {shown!r} is not read here: send gzip, deflate, or no compression",
            headers={"accept-encoding": "gzip, deflate, identity"},
        )


class TooLongError(InvalidRequestError):
    """A text of more tokens than the model reads."""

    kind = "too_long"


class UnauthorizedError(ApiError):
    """No API key, or a wrong one."""

    status = HTTPStatus.UNAUTHORIZED
    kind = "unauthorized"


class ForbiddenError(ApiError):
    """A host name that is none of the server's, or a page that may not call."""

    status = HTTPStatus.FORBIDDEN
    kind = "forbidden"


class NotFoundError(ApiError):
    """No such path."""

    status = HTTPStatus.NOT_FOUND
    kind = "not_found"


class ModelNotFoundError(NotFoundError):
    """No model of this name."""

    kind = "no_model"


class MethodNotAllowedError(ApiError):
    """A path that is there, asked for with another method."""

    status = HTTPStatus.METHOD_NOT_ALLOWED
    kind = "method"


class RequestTimeoutError(ApiError):
    """A body that did not arrive in time."""

    status = HTTPStatus.REQUEST_TIMEOUT
    kind = "timeout"


class OverloadedError(ApiError):
    """No room in a queue now."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    kind = "overloaded"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message, headers={"retry-after": str(retry_after)})


class NotReadyError(ApiError):
    """A model that is still being loaded."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    kind = "unready"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"retry-after": "1"})


class InternalError(ApiError):
    """A defect of ours."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    kind = "internal"
