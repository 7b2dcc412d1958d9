"""Structured log: one JSON object per line, on stderr."""

import json
import logging
import sys
import time
import traceback
from datetime import UTC, datetime
from typing import Any

from starlette.types import Scope

from moembed.pull.report import Reporter
from moembed.server.record import Record

LOGGER = logging.getLogger("moembed.server")
# Seconds between two warnings about a kind of requests.
_WARNING_SECONDS = 3600.0

# `json.dumps` with arguments makes an encoder for each line.
_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode
_warned: dict[tuple[str, str], float] = {}


class JsonFormatter(logging.Formatter):
    """Formats a record's `fields`, or its message, as a JSON object. Exceptions lose their message, which may quote a text."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": time, "level": record.levelname.lower()}
        fields = getattr(record, "fields", None)
        line |= fields if fields else {"event": "message", "logger": record.name, "message": record.getMessage()}
        if record.exc_info and record.exc_info[0]:
            frames = traceback.extract_tb(record.exc_info[2])
            line["failure"] = [record.exc_info[0].__name__, *(f"{f.filename}:{f.lineno}" for f in frames)]
        return _encode(line)


def configure(level: str) -> None:
    """Configure the loggers of the server and of uvicorn to write JSON lines, at a level and above."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name in ("moembed.server", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler] if name != "uvicorn.error" else []
        logger.propagate = name == "uvicorn.error"
        logger.setLevel(level.upper())


def log(level: int, **fields: Any) -> None:
    """Write a log line."""
    if LOGGER.isEnabledFor(level):
        # Not `LOGGER.log`, which walks up the stack for the caller's name, which no line shows.
        LOGGER.handle(LOGGER.makeRecord(LOGGER.name, level, "", 0, "", (), None, extra={"fields": fields}))


class LogReporter(Reporter):
    """Reporter that writes notes about a model's download and conversion as log lines."""

    def note(self, text: str) -> None:
        """Write a line."""
        log(logging.WARNING, event="model", message=text)


def warn_default_task(model: str, api: str, task: str) -> None:
    """Warn, once per hour, model and API, that requests without a task get the server's default."""
    now = time.monotonic()
    if now - _warned.get((model, api), -_WARNING_SECONDS) < _WARNING_SECONDS:
        return
    _warned[model, api] = now
    log(
        logging.WARNING,
        event="default_task",
        model=model,
        api=api,
        task=task,
        message=f"requests without a task get the default task {task}, so queries and documents are embedded alike. Clients "
        f"select a task by the model name ({model}:query, {model}:document) or the field input_type. The header x-moembed-task "
        "marks responses with the default",
    )


def log_request(record: Record, scope: Scope, seconds: float) -> None:
    """Write the log line of a finished request."""
    reply = record.reply
    optional = {
        "model": reply.model,
        "texts": reply.texts,
        "tokens": reply.tokens,
        "truncated": len(reply.truncated),
        "default_task": reply.default_task,
        "refused": record.refused,
        "failure": record.failure,
    }
    log(
        logging.ERROR if record.failure else logging.INFO,
        event="request",
        id=record.id,
        method=scope["method"],
        path=record.endpoint or "-",
        api=record.api,
        status=record.status,
        ms=round(seconds * 1e3, 3),
        **{name: value for name, value in optional.items() if value},
    )
