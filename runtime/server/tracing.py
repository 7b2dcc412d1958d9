"""OpenTelemetry spans, if it is installed. `opentelemetry-instrument moembed serve` configures the exporter."""

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any

from starlette.types import Scope

from moembed.server.record import Record


class Tracing:
    """Factory of request spans, children of the spans in the clients' headers."""

    def __init__(self) -> None:
        self._trace: Any = None
        if importlib.util.find_spec("opentelemetry") is not None:
            from opentelemetry import propagate, trace

            self._trace, self._propagate = trace, propagate
            self._tracer = trace.get_tracer("moembed")

    @property
    def enabled(self) -> bool:
        """Whether spans go anywhere: OpenTelemetry is installed, and has a provider; one may be set at any time."""
        return self._trace is not None and not isinstance(
            self._trace.get_tracer_provider(), self._trace.ProxyTracerProvider
        )

    @contextlib.contextmanager
    def span(self, scope: Scope, record: Record) -> Iterator[None]:
        """Trace a request, if `enabled`. The record's final values become attributes; none contains text of a user."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        context = self._propagate.extract(headers)
        with self._tracer.start_as_current_span(scope["method"], context, kind=self._trace.SpanKind.SERVER) as span:
            try:
                yield
            finally:
                span.update_name(f"{scope['method']} {record.endpoint}".rstrip())
                span.set_attributes(
                    {
                        "http.request.method": scope["method"],
                        "http.route": record.endpoint,
                        "http.response.status_code": record.status,
                        "moembed.request_id": record.id,
                        "moembed.api": record.api,
                        "moembed.model": record.reply.model,
                        "moembed.texts": record.reply.texts,
                        "moembed.tokens": record.reply.tokens,
                        "moembed.truncated": len(record.reply.truncated),
                        "moembed.refused": record.refused,
                    }
                )
