"""What is known of one request when it is over: a line of the log and some figures are made of it."""

import traceback
from dataclasses import dataclass, field

from moembed.server.reply import Reply

GONE = 499


@dataclass
class Record:
    """One request.

    Attributes:
        id: what the client called it, or a random name.
        api: name of the API, "" for a path that belongs to none.
        endpoint: path of the operation, "" if there is none.
        reply: what was answered.
        refused: kind of refusal, "" if there was none.
        status: HTTP status, 499 if the client went away before there was one.
        failure: type and places of an exception that should not have been; never its message, which may quote a text.
    """

    id: str
    api: str = ""
    endpoint: str = ""
    reply: Reply = field(default_factory=lambda: Reply(None))
    refused: str = ""
    status: int = GONE
    failure: list[str] = field(default_factory=list)

    def failed(self, error: BaseException) -> None:
        """Keep what went wrong."""
        self.refused = "internal"
        self.failure = [
            type(error).__name__,
            *(f"{f.filename}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)),
        ]
