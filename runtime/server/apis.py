"""All APIs."""

from moembed.server.api import Api
from moembed.server.cohere import COHERE
from moembed.server.ollama import OLLAMA
from moembed.server.openai import OPENAI
from moembed.server.operations import OPERATIONS
from moembed.server.tei import TEI

# The last one's prefix is that of every path.
APIS: tuple[Api, ...] = (OPENAI, TEI, COHERE, OLLAMA, OPERATIONS)


def api_of(path: str) -> Api:
    """The API whose form errors of a path have."""
    exact = (api for api in APIS for operation in api.operations if operation.path == path)
    return next(exact, None) or next(api for api in APIS if path.startswith(api.prefix))
