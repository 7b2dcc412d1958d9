"""Facts about one request, from which its log line, metrics and span are made."""

import traceback
from dataclasses import dataclass, field

from moembed.server.reply import Reply

CLIENT_CLOSED_REQUEST = 499


@dataclass
class Record:
    """One request.

    Attributes:
        id: the client's request id, or a random one.
        api: name of the API, "" for a path without one.
        endpoint: path of the endpoint, "" if there is none.
        reply: the handler's result.
        refused: kind of the error response, "" if there was none.
        status: HTTP status, 499 if the client disconnected before there was one.
        failure: type and traceback locations of an unexpected exception; never its message, which may quote a text.
    """

    id: str
    api: str = ""
    endpoint: str = ""
    reply: Reply = field(default_factory=lambda: Reply(None))
    refused: str = ""
    status: int = CLIENT_CLOSED_REQUEST
    failure: list[str] = field(default_factory=list)

    def failed(self, error: BaseException) -> None:
        """Record an unexpected exception."""
        self.refused = "internal"
        self.failure = [
            type(error).__name__,
            *(f"{f.filename}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)),
        ]
