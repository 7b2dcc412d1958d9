"""Normalization of request paths: base URLs are configured in many ways."""

import re

from starlette.types import Scope

from moembed.server.apis.endpoint import Endpoint
from moembed.server.apis.registry import APIS

_ENDPOINTS: tuple[Endpoint, ...] = tuple(endpoint for api in APIS for endpoint in api.endpoints)
# Paths that are canonical already: those of nearly all requests.
_PATHS = frozenset(endpoint.path for endpoint in _ENDPOINTS if not endpoint.parameter)
# Prefixes that clients add by mistake: the base URL of this or another API, or the full URL of an endpoint.
_BASES = ("/v1", "/v2", "/api", *(e.path for e in _ENDPOINTS if e.method == "POST" and e.path != "/"))
# The base of OpenAI clients. It may be missing: TEI serves /embeddings, too.
_OPENAI = "/v1"
_ABSOLUTE = re.compile(r"https?://([^/]*)", re.IGNORECASE)


def normalize_path(scope: Scope) -> None:
    """Replace the path of a request by the canonical one; for a target in absolute form, set the Host header from it.

    An absolute form is `GET http://host/path` (RFC 9112, section 3.2.2).
    """
    path: str = scope["path"]
    if path in _PATHS:
        return
    if absolute := _ABSOLUTE.match(path):
        path = path[absolute.end() :]
        others = [(name, value) for name, value in scope["headers"] if name != b"host"]
        scope["headers"] = [(b"host", absolute[1].encode()), *others]
    scope["path"] = canonical_path(path)


def canonical_path(path: str) -> str:
    """Return the path of the endpoint that is meant, or the path without empty segments if there is none.

    Accepts `//api/embed`, `/v1/embeddings/`, `/embeddings`, `/v1/v1/embeddings`, `/v1/api/embed` and
    `/v1/embeddings/embeddings`, among others.
    """
    path = "/" + "/".join(filter(None, path.split("/")))
    for base in ("", *_BASES):
        if path.startswith(f"{base}/"):
            for candidate in (path[len(base) :], _OPENAI + path[len(base) :]):
                if allowed_methods(candidate):
                    return candidate
    return path


def allowed_methods(path: str) -> list[str]:
    """Return the HTTP methods of a path's endpoints; empty if the path has no endpoint."""
    methods = {endpoint.method for endpoint in _ENDPOINTS if endpoint.serves(path)}
    if "GET" in methods:
        methods.add("HEAD")
    return sorted(methods)
