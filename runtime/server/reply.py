"""Handler result, before it becomes an HTTP response."""

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from moembed.stamps.stamp import Stamp


@dataclass(frozen=True)
class Reply:
    """Result of a handler.

    Attributes:
        body: object that msgspec encodes, with a `LazyArray` for a long array; or bytes of a finished body, whose type the
            header content-type gives.
        model: name of the model that was used.
        texts: number of texts that were embedded.
        tokens: number of tokens that were processed.
        truncated: indices of the texts that were truncated.
        default_task: the server's default task, if the request named none and the default was used.
        stamps: stamps of the vectors, one for each type.
        headers: additional headers.
        status: HTTP status.
    """

    body: Any
    model: str = ""
    texts: int = 0
    tokens: int = 0
    truncated: tuple[int, ...] = ()
    default_task: str | None = None
    stamps: tuple[Stamp, ...] = ()
    headers: dict[str, str] = field(default_factory=dict)
    status: int = HTTPStatus.OK
