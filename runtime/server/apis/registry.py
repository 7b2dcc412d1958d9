"""All APIs."""

from moembed.server.apis.cohere import COHERE
from moembed.server.apis.endpoint import Api
from moembed.server.apis.health import OPERATIONS
from moembed.server.apis.ollama import OLLAMA
from moembed.server.apis.openai import OPENAI
from moembed.server.apis.page import PAGE
from moembed.server.apis.tei import TEI

# The last one has every path that no other has, and what is no path: `*`, a whole URL.
APIS: tuple[Api, ...] = (OPENAI, TEI, COHERE, OLLAMA, PAGE, OPERATIONS)


def ending(path: str) -> str | None:
    """The endpoint that the end of a path names, if there is one: `/v1/embeddings` for `/openai/v3/embeddings`."""
    named = {
        end: operation.path
        for api in reversed(APIS)
        for operation in api.operations
        for end in (operation.path, operation.path.removeprefix("/v1"))
        if end != "/" and path.endswith(end)
    }
    return named[max(named, key=len)] if named else None


def api_of(path: str) -> Api:
    """The API whose form errors of a path have: of its endpoint, else by its start, else by its end."""
    for api in APIS:
        if any(operation.serves(path) for operation in api.operations):
            return api
    for api in APIS[:-1]:
        if path.startswith(api.prefix):
            return api
    found = ending(path)
    return api_of(found) if found else APIS[-1]
