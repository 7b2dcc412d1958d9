"""What an API is to this server: its endpoints, and its words for an error."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from moembed.server.errors import ApiError
from moembed.server.reply import Reply

if TYPE_CHECKING:
    from moembed.server.engine.service import Service


@dataclass(frozen=True)
class Operation:
    """One endpoint.

    Attributes:
        path: its path; `/v1/models/{model}` has a parameter, which may hold slashes.
        summary: one line for the OpenAPI document.
        handle: answers a request, given its body, or the parameter of its path, or None; or raises a `ApiError`.
        request: type of the body, a msgspec.Struct, or None for a GET.
        reply: type of the answer's body, or None if it is not JSON.
        open: whether it needs no API key.
    """

    path: str
    summary: str
    handle: "Callable[[Service, Any], Awaitable[Reply]]"
    request: Any = None
    reply: Any = None
    open: bool = False

    @property
    def method(self) -> str:
        """HTTP method."""
        return "GET" if self.request is None else "POST"

    @property
    def parameter(self) -> str:
        """Name of the parameter at the end of the path, "" if there is none."""
        return self.path.partition("{")[2].rstrip("}")

    def serves(self, path: str) -> bool:
        """Tell whether a path is this endpoint's."""
        start, parameter, _ = self.path.partition("{")
        return path.startswith(start) and path != start if parameter else path == start


@dataclass(frozen=True)
class Api:
    """A family of endpoints with one form of errors.

    Attributes:
        name: what figures and logs call it.
        prefix: start of the paths whose errors have its form, even where there is no such endpoint.
        error: body of the answer to a refused request.
        statuses: kind of refusal -> HTTP status, where it is not the refusal's own.
        operations: its endpoints.
    """

    name: str
    prefix: str
    error: Callable[[ApiError], Any]
    operations: tuple[Operation, ...]
    statuses: dict[str, int] = field(default_factory=dict)

    def status(self, refusal: ApiError) -> int:
        """HTTP status of a refusal."""
        return self.statuses.get(refusal.kind, refusal.status)
