"""Paths as people type base URLs, put right before anything is checked or routed."""

import re

from starlette.types import Scope

from moembed.server.apis.endpoint import Operation
from moembed.server.apis.registry import APIS

_OPERATIONS: tuple[Operation, ...] = tuple(operation for api in APIS for operation in api.operations)
# What may be in front of a path by mistake: the base URL of this or another API, or the whole URL of an endpoint.
_BASES = ("/v1", "/v2", "/api", *(o.path for o in _OPERATIONS if o.method == "POST" and o.path != "/"))
# The base that OpenAI's clients are given, and that may be missing: TEI serves /embeddings, too.
_OPENAI = "/v1"
_ABSOLUTE = re.compile(r"https?://([^/]*)", re.IGNORECASE)


def put_right(scope: Scope) -> None:
    """Give a request the path that it means, and in absolute form (`GET http://host/path`) the Host header of its target."""
    path: str = scope["path"]
    if absolute := _ABSOLUTE.match(path):
        path = path[absolute.end() :]
        others = [(name, value) for name, value in scope["headers"] if name != b"host"]
        scope["headers"] = [(b"host", absolute[1].encode()), *others]
    scope["path"] = canonical(path)


def canonical(path: str) -> str:
    """The path of the endpoint that a path means, or the path without empty segments if it means none.

    `//api/embed`, `/v1/embeddings/`, `/embeddings`, `/v1/v1/embeddings`, `/v1/api/embed` and
    `/v1/embeddings/embeddings` mean what they look like.
    """
    path = "/" + "/".join(filter(None, path.split("/")))
    for base in ("", *_BASES):
        if path.startswith(f"{base}/"):
            for meant in (path[len(base) :], _OPENAI + path[len(base) :]):
                if methods(meant):
                    return meant
    return path


def methods(path: str) -> list[str]:
    """HTTP methods of a path's endpoints; none if there is no such path."""
    found = {operation.method for operation in _OPERATIONS if operation.serves(path)}
    return sorted(found | {"HEAD"} if "GET" in found else found)
