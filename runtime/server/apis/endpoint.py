"""Description of an API: its endpoints and its error format."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from moembed.server.errors import ApiError
from moembed.server.reply import Reply

if TYPE_CHECKING:
    from moembed.server.engine.service import Service


@dataclass(frozen=True)
class Endpoint:
    """One endpoint.

    Attributes:
        path: path; `/v1/models/{model}` has a parameter, which may contain slashes.
        summary: one line for the OpenAPI document.
        handle: handler; called with the decoded body, the path parameter, or None. Raises an `ApiError`.
        request: type of the body, a msgspec.Struct, or None for a GET.
        reply: type of the response body, or None if it is not JSON.
        public: whether no API key is required.
    """

    path: str
    summary: str
    handle: "Callable[[Service, Any], Awaitable[Reply]]"
    request: Any = None
    reply: Any = None
    public: bool = False

    @property
    def method(self) -> str:
        """HTTP method."""
        return "GET" if self.request is None else "POST"

    @property
    def parameter(self) -> str:
        """Name of the parameter at the end of the path, "" if there is none."""
        return self.path.partition("{")[2].rstrip("}")

    def serves(self, path: str) -> bool:
        """Return whether a request path belongs to this endpoint."""
        start, parameter, _ = self.path.partition("{")
        return path.startswith(start) and path != start if parameter else path == start


@dataclass(frozen=True)
class Api:
    """Group of endpoints with a common error format.

    Attributes:
        name: label in metrics and logs, and tag in the OpenAPI document.
        prefix: start of the paths whose errors have this format, including paths without an endpoint.
        error_body: function from an error to the body of its response.
        endpoints: the endpoints.
        statuses: HTTP statuses by kind of error, where they differ from the error's own.
    """

    name: str
    prefix: str
    error_body: Callable[[ApiError], Any]
    endpoints: tuple[Endpoint, ...]
    statuses: dict[str, int] = field(default_factory=dict)

    def status(self, error: ApiError) -> int:
        """Return the HTTP status of an error."""
        return self.statuses.get(error.kind, error.status)
