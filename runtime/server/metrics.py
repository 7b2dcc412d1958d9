"""Prometheus metrics. Several workers share theirs through files of prometheus_client's multiprocess mode."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from moembed.server.record import Record
from moembed.version import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_FOLDER_PREFIX = "moembed-metrics-"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class Metrics:
    """Metrics of one worker."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._children: dict[tuple[Any, tuple[str, ...]], Any] = {}

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"moembed_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"moembed_{name}", text, labels, registry=registry, buckets=buckets)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"moembed_{name}", text, labels, registry=registry, multiprocess_mode="livesum")

        self.requests = counter("requests", "Requests by endpoint and HTTP status", "api", "endpoint", "status")
        self.refused = counter("refused_requests", "Requests with an error response, by reason", "api", "reason")
        self.seconds = histogram(
            "request_seconds", "Time from the head of a request to the end of its response", _SECONDS, "endpoint"
        )
        self.active = gauge("active_requests", "Requests in progress")
        self.texts = counter("texts", "Texts embedded", "model")
        self.tokens = counter("tokens", "Tokens processed, including prompts and special tokens", "model")
        self.truncated = counter("truncated_texts", "Texts truncated", "model", "api")
        self.dropped_texts = counter(
            "dropped_texts", "Texts dropped from the queue because their request was cancelled", "model"
        )
        self.dropped_tokens = counter("dropped_tokens", "Tokens of the dropped texts", "model")
        self.queue_texts = gauge("queue_texts", "Texts waiting for a model call", "model")
        self.queue_tokens = gauge("queue_tokens", "Tokens waiting for a model call", "model")
        self.queue_seconds = histogram(
            "queue_seconds", "Time that a request's texts waited for a model call", _SECONDS, "model"
        )
        self.call_texts = histogram("call_texts", "Texts per model call", _TEXTS, "model")
        self.call_tokens = histogram("call_tokens", "Tokens per model call", _TOKENS, "model")
        self.call_seconds = histogram("call_seconds", "Duration of a model call", _SECONDS, "model")
        self.workers = gauge("workers", "Worker processes", "version")
        self.workers.labels(__version__).set(1)

    def observe(self, record: Record, seconds: float) -> None:
        """Count a finished request."""
        api, endpoint = record.api or "none", record.endpoint or "none"
        self._child(self.requests, api, endpoint, str(record.status)).inc()
        self._child(self.seconds, endpoint).observe(seconds)
        if record.refused:
            self._child(self.refused, api, record.refused).inc()
        if model := record.reply.model:
            self._child(self.texts, model).inc(record.reply.texts)
            self._child(self.tokens, model).inc(record.reply.tokens)
            self._child(self.truncated, model, api).inc(len(record.reply.truncated))

    def _child(self, metric: Any, *labels: str) -> Any:
        """Return a metric with labels; `labels` of prometheus_client takes a lock and checks them each time."""
        child = self._children.get((metric, labels))
        if child is None:
            child = self._children[metric, labels] = metric.labels(*labels)
        return child

    def exposition(self) -> bytes:
        """Return the metrics of all workers in Prometheus' text format."""
        folder = os.environ.get(FOLDER_VARIABLE)
        if not folder:
            return generate_latest(self._registry)
        _remove_dead_workers(Path(folder))
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


@contextlib.contextmanager
def shared_folder() -> Iterator[None]:
    """Create a temporary folder in which the workers started in the block share their metrics; remove it at the end.

    Folders left behind by killed servers are removed first, on systems whose file locks end with their owner.
    """
    _remove_stale_folders(Path(tempfile.gettempdir()))
    # Renamed once it is locked: no other server can remove it in between.
    fresh = Path(tempfile.mkdtemp(prefix=f".{_FOLDER_PREFIX}"))
    lock = _lock(fresh)
    folder = fresh.rename(fresh.with_name(fresh.name.removeprefix(".")))
    os.environ[FOLDER_VARIABLE] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(FOLDER_VARIABLE, None)
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _remove_stale_folders(parent: Path) -> None:
    for folder in parent.glob(f"{_FOLDER_PREFIX}*"):
        lock = _lock(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """Return a descriptor that locks a folder until it is closed or its process ends, or None if it cannot be locked."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
        else:
            return descriptor
    return None


def _remove_dead_workers(folder: Path) -> None:
    """Remove the gauges of workers that are no longer running."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid)  # type: ignore[no-untyped-call]


@dataclass
class QueueMetrics:
    """Metrics of one model's queue and calls; the observer of its scheduler."""

    metrics: Metrics
    model: str

    def __post_init__(self) -> None:
        metrics, model = self.metrics, self.model
        self._texts, self._tokens = metrics.queue_texts.labels(model), metrics.queue_tokens.labels(model)
        self._call_texts, self._call_tokens = metrics.call_texts.labels(model), metrics.call_tokens.labels(model)
        self._dropped_texts = metrics.dropped_texts.labels(model)
        self._dropped_tokens = metrics.dropped_tokens.labels(model)
        self._call_seconds, self._waits = metrics.call_seconds.labels(model), metrics.queue_seconds.labels(model)

    def queued(self, tokens: int, texts: int) -> None:
        """Set the size of the queue."""
        self._tokens.set(tokens)
        self._texts.set(texts)

    def dropped(self, tokens: int, texts: int) -> None:
        """Count dropped rows."""
        self._dropped_tokens.inc(tokens)
        self._dropped_texts.inc(texts)

    def called(self, texts: int, tokens: int, seconds: float, waits: Sequence[float]) -> None:
        """Count a finished call."""
        self._call_texts.observe(texts)
        self._call_tokens.observe(tokens)
        self._call_seconds.observe(seconds)
        for wait in waits:
            self._waits.observe(wait)
