"""Ray Data: a dataset with a column of vectors added.

`embed_dataset` does it in one call. `EmbedBatches` is its callable class, for `Dataset.map_batches` with other arguments.
"""

import inspect
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Unpack

from moembed.arguments import whole
from moembed.errors import EngineWarning, InputError, extra, shown, warn
from moembed.inference.cpu import available_cpus
from moembed.integrations.batches import BatchEncoder, BatchKeywords, BatchOptions

DEFAULT_ROWS_PER_BLOCK = 2048
# Ray's own default is to start actors and to try batches again for ever, so that a job would wait for actors that only die.
_LIMITS = {"max_restarts": 10, "max_task_retries": 5}


class EmbedBatches:
    """Callable class for `ray.data.Dataset.map_batches(EmbedBatches, batch_format="pyarrow", compute=..., num_cpus=...)`.

    Each actor opens the model once, with as many threads as it has CPUs. Actors of one node share the weights, which are a
    mapped file: they are in memory once.

    Attributes:
        threads: threads per call of the model.
        stamp: stamp of the vectors.
    """

    def __init__(self, **options: Unpack[BatchKeywords]) -> None:
        """Open the model.

        Args:
            options: `moembed.integrations.batches.BatchOptions` describes them.

        Raises:
            InputError: an option cannot be used.
            BundleError: the model cannot be opened, or is not the one of the stamp.
            SourceError: there is no such model.
        """
        self._encoder = BatchEncoder(BatchOptions(**options), threads=assigned_cpus())
        self.stamp = self._encoder.stamp
        self.threads = self._encoder.encoder.embedder.threads

    def __call__(self, batch: Any) -> Any:
        """Return a batch with the columns of the vectors added, of as many rows.

        Args:
            batch: a `pyarrow.Table`.

        Raises:
            InputError: it is something else, or its columns cannot be used.
        """
        if not hasattr(batch, "append_column"):
            raise InputError(
                f"the batch is {type(batch).__name__}; expected a pyarrow.Table: pass batch_format='pyarrow' to map_batches"
            )
        return self._encoder(batch)


def assigned_cpus() -> int | None:
    """Return the number of CPUs that Ray assigned to this actor or task, at least 1; None outside of Ray."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized() or ray.get_runtime_context().worker.mode != ray.WORKER_MODE:
        return None
    return max(int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)), 1)


def embed_dataset(
    dataset: Any,
    *,
    actors: int | tuple[int, int],
    num_cpus: int = 1,
    rows_per_block: int | None = DEFAULT_ROWS_PER_BLOCK,
    **options: Unpack[BatchKeywords],
) -> Any:
    """Add a column of vectors to a dataset.

    An actor that dies is started again ten times at most, and a batch is tried six times; then the job ends with Ray's error.

    Rows keep their order within a block; blocks keep theirs only under Ray's `preserve_order`. This process opens the model
    too, and actors refuse to compute vectors with another stamp.

    Args:
        dataset: a `ray.data.Dataset`.
        actors: number of actors, or the least and the greatest number. One CPU of the Ray that is connected stays free for
            tasks that read and write; a warning tells if there are fewer actors for that.
        num_cpus: CPUs of an actor, and threads per call of its model. One gives the best throughput.
        rows_per_block: rows of a block, and so of a batch. Blocks are cut and joined as they stream, without a shuffle. A file
            of one row group is one block, which only one actor could compute. None leaves the blocks as they are.
        options: `moembed.integrations.batches.BatchOptions` describes them.

    Returns:
        A `ray.data.Dataset`, which nothing has computed yet.

    Raises:
        InputError: an option cannot be used.
        BundleError: the model cannot be opened.
        SourceError: there is no such model.
        MissingExtraError: Ray is not installed.
    """
    with extra("ray", "moembed.integrations.ray"):
        from ray.data import ActorPoolStrategy
    if isinstance(actors, tuple):
        if len(actors) != 2:
            raise InputError(f"actors = {shown(actors)}; expected a number, or the least and the greatest number")
        least, most = whole("actors", actors[0]), whole("actors", actors[1], f"at least {actors[0]}", least=actors[0])
    else:
        least = most = whole("actors", actors)
    room = _room_for_actors(whole("num_cpus", num_cpus))
    if least > room:
        warn(
            EngineWarning(
                f"{least} actors of {num_cpus} CPU leave no CPU of this Ray to tasks that read and write: {room} are started, "
                "and more when the cluster grows"
            )
        )
    pool = ActorPoolStrategy(min_size=min(least, room), max_size=most)
    encoder = BatchEncoder(BatchOptions(**options), threads=1)
    if (schema := dataset.schema(fetch_if_missing=False)) is not None:
        encoder.check(schema.names)
    if rows_per_block is not None:
        dataset = dataset.repartition(target_num_rows_per_block=whole("rows_per_block", rows_per_block))
    elif (blocks := _known_blocks(dataset)) is not None and blocks < least:
        warn(
            EngineWarning(
                f"the dataset has {blocks} blocks, and {least} actors were asked for: {least - blocks} of them will have no "
                "work. Pass rows_per_block, which cuts blocks without a shuffle"
            )
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")  # there is no other way to limit them
        return dataset.map_batches(
            EmbedBatches,
            fn_constructor_kwargs={"stamp": encoder.stamp.to_json(), **options},
            batch_format="pyarrow",
            batch_size=None,
            compute=pool,
            num_cpus=num_cpus,
            **(_LIMITS if _takes_limits(dataset.map_batches) else {}),
        )


def _takes_limits(function: Callable[..., Any]) -> bool:
    """Check whether a function takes any options of actors, as Ray announces to end."""
    return any(one.kind is one.VAR_KEYWORD for one in inspect.signature(function).parameters.values())


def _room_for_actors(num_cpus: int) -> int:
    """Return how many actors leave a CPU to the other tasks of a dataset, at least 1: without one the job waits for ever."""
    import ray

    cpus = ray.cluster_resources().get("CPU", 0) if ray.is_initialized() else available_cpus()
    return max(int(cpus - 1) // num_cpus, 1)


def _known_blocks(dataset: Any) -> int | None:
    """Return the number of blocks, if Ray knows it before it runs."""
    with suppress(NotImplementedError, AttributeError):
        return int(dataset.num_blocks())
    return None
