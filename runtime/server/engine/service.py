"""The models that are served, by name, and whether they are ready."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from moembed.bundle.locate import open_bundle
from moembed.embedder import Embedder
from moembed.errors import InputError
from moembed.server.engine.engine import Engine
from moembed.server.engine.tasks import prompt_named, suffixes
from moembed.server.errors import InternalError, ModelNotFoundError, NotReadyError, quoted
from moembed.server.metrics import Metrics, QueueMetrics
from moembed.server.settings import Settings

_PROBE = "Is anybody there?"
_STUCK_SECONDS = 120.0
# What Ollama's clients append to a name.
LATEST = "latest"
# Characters that suffixes may add to a name.
_LONGEST_SUFFIX = 256
# What stands for the bundle inside the package.
BUILT_IN = "built-in"


class Service:
    """All that the handlers need.

    Args:
        settings: what was set.
        sources: name -> bundle folder, hub name, or None for the built-in model; the first is the default.
        document: gives the OpenAPI document.

    Attributes:
        settings: what was set.
        metrics: figures.
        document: gives the OpenAPI document, as JSON.
        names: names of the models.
        started: Unix time.
    """

    def __init__(self, settings: Settings, sources: dict[str, str | None], document: Callable[[], bytes]) -> None:
        self.settings, self._sources, self.metrics = settings, sources, Metrics()
        self.document = document
        self.names = list(sources)
        self.started = int(time.time())
        self._engines: dict[str, Engine] = {}
        self._longest = max(map(len, self.names)) + _LONGEST_SUFFIX

    async def load(self) -> None:
        """Open every model and let it answer a probe; one bundle under several names is opened once.

        Raises:
            MoembedError: a model cannot be opened.
        """
        loop = asyncio.get_running_loop()
        opened: dict[str | None, Engine] = {}
        with ThreadPoolExecutor(1) as opener:
            for name, source in self._sources.items():
                if source not in opened:
                    embedder = await loop.run_in_executor(opener, self._open, source)
                    opened[source] = Engine(name, embedder, self.settings, QueueMetrics(self.metrics, name))
                    await self._probe(opened[source])
                self._engines[name] = opened[source]

    def engine(self, name: str | None = None) -> tuple[Engine, str | None]:
        """The model of a name, and the task that the name's suffix asks for: `name`, `name:query`, `name:latest`.

        Args:
            name: None or "" for the default.

        Raises:
            ModelNotFoundError: no such name.
            NotReadyError: the model is still being loaded.
        """
        wanted, task = name or self.names[0], None
        while len(wanted) <= self._longest and wanted not in self._sources and ":" in wanted:
            wanted, _, suffix = wanted.rpartition(":")
            task = task if suffix == LATEST else suffix
        if wanted not in self._sources:
            raise ModelNotFoundError(
                f"no model {quoted(name or wanted)}; this server has {', '.join(self.names)} (add :query, :document or another "
                "task's name to choose the prompt)",
                param="model",
            )
        if wanted not in self._engines:
            raise NotReadyError(f"{wanted} is being loaded: try again in a moment")
        return self._engines[wanted], task

    def suffixed(self) -> list[tuple[str, str]]:
        """Names of the models and what may follow each after a colon: what embeds a text if nothing else names a task.

        Raises:
            NotReadyError: a model is still being loaded.
        """
        return [
            (name, suffix)
            for name in self.names
            for suffix in suffixes(self.engine(name)[0].embedder, self.settings.task)
        ]

    @property
    def ready(self) -> dict[str, bool]:
        """Name -> whether the model answered its probe and is not stuck in a call."""
        return {
            name: name in self._engines and self._engines[name].scheduler.stuck_for < _STUCK_SECONDS
            for name in self.names
        }

    async def close(self) -> None:
        """Compute what waits, then let go of the models."""
        for engine in dict.fromkeys(self._engines.values()):
            await engine.close()

    def _open(self, source: str | None) -> Embedder:
        settings = self.settings
        bundle = open_bundle(source, local_files_only=settings.offline)
        # A server has neighbours, its own event loop among them, which spinning threads would take the CPUs from.
        embedder = Embedder(bundle, providers=settings.provider, threads=settings.threads, spin=False)
        if self.settings.task is not None:
            prompt_named(embedder, self.settings.task)
        return embedder

    async def _probe(self, engine: Engine) -> None:
        result = await engine.embed([_PROBE], task="none", overlong="truncate")
        length = float(np.linalg.norm(result.vectors[0]))
        if not 0.999 < length < 1.001:
            raise InternalError(
                f"{engine.name} answered the probe with a vector of length {length}, expected 1: verify the bundle"
            )


def sources_of(models: tuple[str, ...]) -> dict[str, str | None]:
    """Name -> bundle, from `NAME=BUNDLE` or `BUNDLE`; without any, the built-in model under its own name.

    Raises:
        InputError: a name is given twice.
    """
    sources: dict[str, str | None] = {}
    for model in models:
        name, _, source = model.partition("=")
        name, source = (name, source) if source else (model.rstrip("/").rpartition("/")[2], model)
        if not name or name in sources:
            raise InputError(f"model {model!r}: the name {name!r} is empty or already taken; give another, NAME=BUNDLE")
        sources[name] = None if source == BUILT_IN else source
    return sources or {"moembed": None}
