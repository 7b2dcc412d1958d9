"""Models of a server, by name, and their readiness."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from moembed.embedder import Embedder
from moembed.errors import InputError
from moembed.pull.opening import open_bundle, to_convert
from moembed.server.engine.converting import Conversion
from moembed.server.engine.engine import Engine
from moembed.server.engine.lanes import open_lanes
from moembed.server.engine.tasks import prompt_for_task, task_suffixes
from moembed.server.errors import ModelNotFoundError, NotReadyError, quoted
from moembed.server.logs import LogReporter
from moembed.server.metrics import Metrics, QueueMetrics
from moembed.server.settings import Settings
from moembed.store.ownership import Status

_PROBE = "Is anybody there?"
_STUCK_SECONDS = 120.0
# Suffix that Ollama clients append to a name.
LATEST = "latest"
# Characters that suffixes may add to a name.
_MAX_SUFFIX = 256
# Name of the built-in model on the command line.
BUILT_IN = "built-in"


class Service:
    """Models, settings, metrics and OpenAPI document, as the handlers use them.

    Args:
        settings: settings of the server.
        sources: bundle folder, hub name, or None for the built-in model, by name; the first is the default.
        document: function that returns the OpenAPI document.

    Attributes:
        settings: settings of the server.
        metrics: Prometheus metrics.
        document: function that returns the OpenAPI document, as JSON.
        names: names of the models.
        started: Unix time of the start.
    """

    def __init__(self, settings: Settings, sources: dict[str, str | None], document: Callable[[], bytes]) -> None:
        self.settings, self._sources, self.metrics = settings, sources, Metrics()
        self.document = document
        self.names = list(sources)
        self.started = int(time.time())
        self._engines: dict[str, Engine] = {}
        self._conversions: dict[str | None, Conversion] = {}
        self._closed = False
        self._longest = max(map(len, self.names)) + _MAX_SUFFIX

    async def load(self) -> None:
        """Open every model and embed a probe text; a bundle under several names is opened once.

        Raises:
            MoembedError: a model cannot be opened.
        """
        loop = asyncio.get_running_loop()
        opened: dict[str | None, Engine] = {}
        with ThreadPoolExecutor(1) as opener:
            for name, source in self._sources.items():
                if source not in opened:
                    embedder = await loop.run_in_executor(opener, self._open, source)
                    lanes = await loop.run_in_executor(opener, open_lanes, embedder)
                    opened[source] = Engine(name, embedder, self.settings, QueueMetrics(self.metrics, name), lanes)
                    await opened[source].embed([_PROBE], task="none", overlong="truncate")
                self._engines[name] = opened[source]

    def engine(self, name: str | None = None) -> tuple[Engine, str | None]:
        """Return the model of a name, and the task of the name's suffix: `name`, `name:query`, `name:latest`.

        Args:
            name: name, None or "" for the default model.

        Raises:
            ModelNotFoundError: the name is unknown.
            NotReadyError: the model is still loading.
        """
        base, task = name or self.names[0], None
        while len(base) <= self._longest and base not in self._sources and ":" in base:
            base, _, suffix = base.rpartition(":")
            task = task if suffix == LATEST else suffix
        if base not in self._sources:
            raise ModelNotFoundError(
                f"no model {quoted(name or base)}; this server has {', '.join(self.names)} (add :query, :document or another "
                "task to select the prompt)",
                param="model",
            )
        if base not in self._engines:
            status = self.conversions.get(base)
            doing = (
                "loading: try again in a moment"
                if status is None
                else f"being converted ({status.step}): try again later"
            )
            raise NotReadyError(f"{base} is {doing}")
        return self._engines[base], task

    def served_names(self) -> list[tuple[str, str]]:
        """Return names of the models with the task suffixes that select each prompt, "" if none is needed.

        Raises:
            NotReadyError: a model is still loading.
        """
        return [
            (name, suffix)
            for name in self.names
            for suffix in task_suffixes(self.engine(name)[0].embedder, self.settings.task)
        ]

    @property
    def ready(self) -> dict[str, bool]:
        """Readiness by model name: True if the model answered its probe and is not stuck in a call."""
        return {
            name: name in self._engines and self._engines[name].scheduler.call_running_for < _STUCK_SECONDS
            for name in self.names
        }

    @property
    def conversions(self) -> dict[str, Status]:
        """State of the models that are being converted, by name."""
        return {
            name: status
            for name, source in self._sources.items()
            if (conversion := self._conversions.get(source)) and (status := conversion.status)
        }

    async def close(self) -> None:
        """Compute the queued rows, then close the models."""
        self._closed = True
        for conversion in self._conversions.values():
            conversion.stop()
        for engine in dict.fromkeys(self._engines.values()):
            await engine.close()

    def _open(self, source: str | None) -> Embedder:
        settings = self.settings
        model = to_convert(source, LogReporter(), local_files_only=settings.offline)
        if source is not None and model is not None and model.folder is not None and not self._closed:
            self._conversions[source] = Conversion(source, model.folder, settings)
            self._conversions[source].run()
            del self._conversions[source]
        bundle = open_bundle(source, local_files_only=settings.offline, reporter=LogReporter())
        # Spinning threads would take CPU time from other processes and from the server's own event loop.
        embedder = Embedder(bundle, providers=settings.provider, threads=settings.threads, spin=False)
        if self.settings.task is not None:
            prompt_for_task(embedder, self.settings.task)
        return embedder


def parse_models(models: tuple[str, ...]) -> dict[str, str | None]:
    """Return the bundle of each name, from `NAME=BUNDLE` or `BUNDLE`; by default the built-in model as `moembed`.

    Raises:
        InputError: a name is empty or given twice.
    """
    sources: dict[str, str | None] = {}
    for model in models:
        name, _, source = model.partition("=")
        name, source = (name, source) if source else (model.rstrip("/").rpartition("/")[2], model)
        if not name or name in sources:
            problem = "already taken" if name else "empty"
            raise InputError(f"model = {model!r}: the name {name!r} is {problem}; give another one as NAME=BUNDLE")
        sources[name] = None if source == BUILT_IN else source
    return sources or {"moembed": None}
