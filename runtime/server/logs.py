"""Log lines: one JSON object each, on stderr."""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

LOGGER = logging.getLogger("moembed.server")


class JsonFormatter(logging.Formatter):
    """Writes a record's `fields`, or its message, as one JSON object; exceptions as type and places, without their words."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": time, "level": record.levelname.lower()}
        fields = getattr(record, "fields", None)
        line |= fields if fields else {"event": "message", "logger": record.name, "message": record.getMessage()}
        if record.exc_info and record.exc_info[0]:
            places = traceback.extract_tb(record.exc_info[2])
            line["failure"] = [record.exc_info[0].__name__, *(f"{p.filename}:{p.lineno}" for p in places)]
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(level: str) -> None:
    """Let the server's and uvicorn's loggers write JSON lines from a level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name in ("moembed.server", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler] if name != "uvicorn.error" else []
        logger.propagate = name == "uvicorn.error"
        logger.setLevel(level.upper())


def log(level: int, **fields: Any) -> None:
    """Write a line of fields."""
    if LOGGER.isEnabledFor(level):
        LOGGER.log(level, "", extra={"fields": fields})
