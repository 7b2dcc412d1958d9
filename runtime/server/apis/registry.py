"""Registry of all APIs, and lookup of the API that a path belongs to."""

from moembed.server.apis.cohere import COHERE
from moembed.server.apis.endpoint import Api
from moembed.server.apis.health import OPERATIONS
from moembed.server.apis.ollama import OLLAMA
from moembed.server.apis.openai import OPENAI
from moembed.server.apis.page import PAGE
from moembed.server.apis.tei import TEI

# The last one also formats the errors of all other paths, and of targets that are not paths: `*` or a full URL.
APIS: tuple[Api, ...] = (OPENAI, TEI, COHERE, OLLAMA, PAGE, OPERATIONS)


def match_suffix(path: str) -> str | None:
    """Return the endpoint path that a path ends with, if any: `/v1/embeddings` for `/openai/v3/embeddings`."""
    matches = {
        suffix: endpoint.path
        for api in reversed(APIS)
        for endpoint in api.endpoints
        for suffix in (endpoint.path, endpoint.path.removeprefix("/v1"))
        if suffix != "/" and path.endswith(suffix)
    }
    return matches[max(matches, key=len)] if matches else None


def api_of(path: str) -> Api:
    """Return the API whose error format applies to a path: by its endpoint, else by its prefix, else by its suffix."""
    for api in APIS:
        if any(endpoint.serves(path) for endpoint in api.endpoints):
            return api
    for api in APIS[:-1]:
        if path.startswith(api.prefix):
            return api
    similar = match_suffix(path)
    return api_of(similar) if similar else APIS[-1]
