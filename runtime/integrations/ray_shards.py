"""Shards of a run as tasks of Ray.

Any node computes any shard and commits it to the folder that all nodes share, so that a second attempt of a task changes
nothing: it finds the shard finished, or puts the same bytes in place. Ray repeats nothing by itself; a shard whose worker died
is given out again, and one that kills its workers again and again ends the run.
"""

import os
import re
import signal
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from moembed.corpus.job import Job
from moembed.corpus.run_record import RECORD, RunRecord
from moembed.corpus.shards import Counts, Progress, finished, make_shard
from moembed.corpus.storage import is_remote
from moembed.corpus.target import existing_target, open_target
from moembed.corpus.vectors import Encoder
from moembed.embedder import Embedder
from moembed.errors import InputError, MoembedError, OutputError, extra
from moembed.inference.cpu import available_cpus
from moembed.integrations.batches import check_stamp, open_model
from moembed.integrations.ray import assigned_cpus
from moembed.pull.opening import DEFAULT_FOLDER

_ATTEMPTS = 6
_STORE_BYTES = 128 << 20  # of a local Ray: shards do not pass through its store
_LOOK_SECONDS, _KNOCK_SECONDS = 2.0, 10.0
_HOST_AND_PORT = re.compile(r"(\[[^\]]+\]|[^/:\[\]]+):(\d{1,5})")


@dataclass(frozen=True, kw_only=True)
class RayShards:
    """Computes shards on Ray; what `moembed.corpus.runs.embed_files` takes as `compute`.

    Attributes:
        embedder: the model, which each node opens by its hub name, or its path, or as the built-in one.
        address: address of the cluster; None for that of `RAY_ADDRESS`, or a Ray of this machine and this run.
        workers: maximum number of shards at the same time; None for as many as there are CPUs.
        threads: CPUs of a task, and threads per call of its model.
        log: writes a message.
    """

    embedder: Embedder
    address: str | None = None
    workers: int | None = None
    threads: int = 1
    log: Callable[[str], object]

    def __call__(
        self, job: Job, shards: Sequence[int], advance: Progress, done: Callable[[int, Counts], object]
    ) -> None:
        """Compute shards.

        Args:
            job: the job; all nodes must see its inputs and its folder at the same paths.
            shards: numbers of the shards.
            advance: called with the rows and tokens of each shard that is finished.
            done: called with each shard that is finished and its counts.

        Raises:
            InputError: Ray cannot be reached, or a node cannot read the input.
            OutputError: a node cannot write the folder, or does not share it.
            BundleError: a node has another model.
            MoembedError: the workers of a shard died again and again.
        """
        with _connected(self.address):
            self._run(_absolute(job), shards, advance, done)

    def _run(self, job: Job, shards: Sequence[int], advance: Progress, done: Callable[[int, Counts], object]) -> None:
        import ray

        task = ray.remote(num_cpus=self.threads, max_retries=0)(compute_shard)
        content, source = ray.put(job.to_json()), _source(self.embedder)
        todo, running, deaths = deque(shards), dict[Any, int](), Counter[int]()
        waiting = False
        try:
            while todo or running:
                most = self.workers or 2 * int(ray.cluster_resources().get("CPU", 0) // self.threads) + 1
                while todo and len(running) < most:
                    shard = todo.popleft()
                    running[task.remote(content, source, shard)] = shard
                ready, _ = ray.wait(list(running), timeout=_LOOK_SECONDS)
                for reference in ready:
                    shard = running.pop(reference)
                    answer = _answer(reference)
                    if answer is None:
                        deaths[shard] += 1
                        self._check_deaths(job, shard, deaths[shard])
                        todo.append(shard)
                    else:
                        first, last = job.span(shard)
                        advance(last - first, answer[1])
                        done(shard, answer[0])
                if not ready and not waiting and (waiting := not _has_room(self.threads)):
                    self.log(f"moembed: no node of Ray has {self.threads} CPUs; waiting for one")
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    def _check_deaths(self, job: Job, shard: int, deaths: int) -> None:
        if deaths == _ATTEMPTS:
            raise MoembedError(
                f"the worker that computed shard {shard} of {job.folder} died {deaths} times, often for lack of memory: give the "
                "same command again to go on, perhaps with smaller --shard-rows, fewer --workers, or more memory per node"
            )
        self.log(f"moembed: the worker that computed shard {shard} died; the shard is given out again")


def compute_shard(content: str, source: tuple[str | None, str | None], shard: int) -> tuple[Counts, int] | MoembedError:
    """Compute a shard in a task of Ray, unless it is finished.

    Args:
        content: the job as JSON.
        source: name or folder of the model, None for the built-in one, and its revision.
        shard: number of the shard.

    Returns:
        Its counts, and the number of tokens that were computed; or the error, which names the host.
    """
    try:
        return _computed(_job(content), source, shard)
    except MoembedError as error:
        error.args = (f"on {socket.gethostname()}: {error}",)
        return error


@lru_cache(1)
def _job(content: str) -> Job:
    return Job.from_json(content)


def _computed(job: Job, source: tuple[str | None, str | None], shard: int) -> tuple[Counts, int]:
    target = existing_target(job.folder)
    record = target.read(RECORD) if target else None
    found = RunRecord.from_json(record, f"{job.folder}/{RECORD}") if record is not None else None
    # A folder that is not shared would be made here, and nobody would see its shards.
    if target is None or found is None or found.digest != job.digest:
        raise OutputError(
            f"{job.folder} is not the folder of this run: name one that all nodes see at the same path, or an s3:// address"
        )
    if (counts := finished(job, target, shard)) is not None:
        return counts, 0
    embedder, model = open_model(*source, assigned_cpus() or 1), job.model
    encoder = Encoder(
        embedder, prompt=model.prompt, dim=model.dim, precision=model.checked_precision, overlong=model.policy
    )
    check_stamp(encoder.stamp, found.stamp.to_json())
    tokens = 0

    def advance(_rows: int, computed: int) -> None:
        nonlocal tokens
        tokens += computed

    # Two attempts of one shard must not write into one unfinished file.
    token = f"{job.token}-{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"
    return make_shard(job, encoder, open_target(job.folder, token, renames=job.renames), shard, advance), tokens


def _absolute(job: Job) -> Job:
    """Return a job that means the same in another working directory."""
    sources = tuple(
        source if is_remote(source.path) else replace(source, path=str(Path(source.path).absolute()), label=source.name)
        for source in job.sources
    )
    folder = job.folder if is_remote(job.folder) else str(Path(job.folder).absolute())
    return replace(job, sources=sources, folder=folder)


def _source(embedder: Embedder) -> tuple[str | None, str | None]:
    bundle = embedder.bundle
    if bundle.folder == DEFAULT_FOLDER:
        return None, None
    return bundle.hub or (str(bundle.folder.absolute()), None)


def _answer(reference: Any) -> tuple[Counts, int] | None:
    """Return the answer of a task; None if its worker or its node died.

    Raises:
        MoembedError: the task failed.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        answer: tuple[Counts, int] | MoembedError = ray.get(reference)
    except RayTaskError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise MoembedError(f"a task of Ray failed: {lines[-1].strip() if lines else error!r}") from error
    except RayError:
        return None
    if isinstance(answer, MoembedError):
        raise answer
    return answer


def _has_room(threads: int) -> bool:
    import ray

    return any(node["Alive"] and node["Resources"].get("CPU", 0) >= threads for node in ray.nodes())


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Connect to Ray for the duration of the block; a program that is connected already stays so."""
    with extra("ray", "moembed embed --engine ray"):
        import ray
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a Ray that is started here reports to nobody
    where = address or os.environ.get("RAY_ADDRESS")
    own = {"num_cpus": available_cpus(), "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    try:
        if where:
            _knock(where)
        with _same_signals():
            ray.init(
                address=where or "local",
                log_to_driver=False,
                logging_level="error",
                configure_logging=True,
                **({} if where else own),
            )
    except (OSError, RuntimeError, ValueError) as error:
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"Ray at {where} cannot be reached: {told}. Pass --ray-address, or unset RAY_ADDRESS to use this machine alone"
            if where
            else f"Ray cannot be started on this machine: {told}"
        ) from error
    try:
        yield
    finally:
        with _same_signals():
            ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError if nobody listens at `host:port`: Ray itself tries for many minutes. Ray reads other addresses itself."""
    if found := _HOST_AND_PORT.fullmatch(address):
        socket.create_connection((found[1].strip("[]"), int(found[2])), _KNOCK_SECONDS).close()


@contextmanager
def _same_signals() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray replaces: the command's own says how to go on."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)
