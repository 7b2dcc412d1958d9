"""The answer to a request, before it is written as HTTP."""

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes:
        body: anything that msgspec encodes, with `Rows` where an array is long; or bytes of a body that is written already,
            which the header content-type has to describe.
        model: name of the model that was used.
        texts: how many texts it read.
        tokens: how many tokens it read.
        truncated: indices of texts of which a part was left out.
        default_task: the server's default task, where the request named none and its texts got that prompt.
        headers: more headers.
        status: HTTP status.
    """

    body: Any
    model: str = ""
    texts: int = 0
    tokens: int = 0
    truncated: tuple[int, ...] = ()
    default_task: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    status: int = HTTPStatus.OK
