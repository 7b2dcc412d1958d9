"""Scheduler that runs the rows of many requests in shared model calls, on a thread of its own."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moembed.server.engine.queue import FairQueue, Flow, RowOutput
from moembed.server.errors import OverloadedError
from moembed.tokenizer.tokenizer import Ids

Vectors = list[NDArray[np.float32]]
Run = Callable[[RowOutput, list[Ids]], Sequence[NDArray[np.float32]]]

_MAX_RETRY_SECONDS = 60
# Passes of the event loop without a new request, from the delivery of results to the next call. One writes the responses, one
# reads what the clients send next, one tokenizes it.
_PASSES = 4
# The wait for them, at most, as a share of the duration of the last call.
_MAX_SETTLING = 0.5


class Observer(Protocol):
    """Receiver of queue and call statistics. Its methods run under a lock and must be fast."""

    def queued(self, tokens: int, texts: int) -> None:
        """Receive the new size of the queue."""

    def dropped(self, tokens: int, texts: int) -> None:
        """Receive the size of the waiting rows that were dropped because their request was cancelled."""

    def called(self, texts: int, tokens: int, seconds: float, waits: Sequence[float]) -> None:
        """Receive the size and duration of a finished call, and how long each of its requests had waited."""


class Scheduler:
    """Runs queued rows in calls of a token budget. Methods belong to one event loop; calls run on the scheduler's thread.

    There is no batching delay: a call starts as soon as the thread is free, with the rows that are queued, and rows that arrive
    in the meantime share the next call. Measured on 2 busy cores, medians of 7 rounds: a delay of 1 or 3 ms before each call
    made no difference beyond noise with 64 clients (25.8 texts per call without it, 27.6 and 26.3 with it, equal CPU time per
    request), and raised the median latency of a single client from 6.3 ms to 7.4 and 9.3 ms.

    After a call, the event loop first delivers its results and reads what has arrived, then the next call starts. Otherwise both
    would compete for the same CPUs, and the clients of one call would never share a call with those of the next.

    Args:
        run: computes an output of rows; the result for a row must not depend on the other rows.
        call_tokens: tokens per call, at most.
        queue_tokens: waiting tokens, at most.
        queue_texts: waiting rows, at most. One request at a time may exceed either limit: its rows take turns with those of
            other requests, and do not count towards the limits.
        observer: receives statistics.
        name: name of the model, for the thread.
    """

    def __init__(
        self, run: Run, *, call_tokens: int, queue_tokens: int, queue_texts: int, observer: Observer, name: str = ""
    ) -> None:
        self._run = run
        self._call_tokens = call_tokens
        self._queue_tokens, self._queue_texts = queue_tokens, queue_texts
        self._observer = observer
        self._queue = FairQueue()
        self._oversized: Flow | None = None
        self._futures: dict[Flow, asyncio.Future[Vectors]] = {}
        self._changed = threading.Condition()
        self._closing = False
        # Whether the event loop has handled what the last call left to it, and how many requests have come so far.
        self._settled, self._arrived = True, 0
        self._speed = 0.0  # tokens per second, moving average
        self._call_started = 0.0
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name=f"moembed-{name}", daemon=True)
        self._thread.start()

    def check_capacity(self, texts: int, tokens: int = 0) -> None:
        """Check that the queue has room for more rows; before tokenization, by their number only.

        Raises:
            OverloadedError: the queue is full.
        """
        large = self._oversized
        for count, limit, waiting, unit in (
            (texts, self._queue_texts, self._queue.texts - (len(large.waiting) if large else 0), "texts"),
            (tokens, self._queue_tokens, self._queue.tokens - (large.tokens if large else 0), "tokens"),
        ):
            if count > limit and large is not None and large.waiting:
                raise OverloadedError(
                    f"the request has {count} {unit}, more than the queue limit of {limit}, and another such request is "
                    "running: try again later, or send fewer at a time",
                    retry_after=self.estimated_wait,
                )
            if waiting >= limit if count > limit else waiting + count > limit:
                raise OverloadedError(
                    f"the queue is full: {waiting} {unit} are waiting, {count} more exceed the limit of {limit}: try again later",
                    retry_after=self.estimated_wait,
                )

    @property
    def estimated_wait(self) -> int:
        """Seconds until the waiting rows will be computed, at least 1."""
        return min(_MAX_RETRY_SECONDS, 1 + int(self._queue.tokens / self._speed)) if self._speed else 1

    @property
    def call_running_for(self) -> float:
        """Seconds since the current call started; 0 if there is none."""
        started = self._call_started
        return time.perf_counter() - started if started else 0.0

    async def submit(self, rows: Sequence[Ids], output: RowOutput) -> Vectors:
        """Compute an output for rows. If the caller is cancelled, its waiting rows are dropped.

        Raises:
            OverloadedError: the queue is full, or the rows exceed its limits while another such request is running.
        """
        if not rows:
            return []
        flow = Flow(rows, output, time.perf_counter())
        future: asyncio.Future[Vectors] = self._loop.create_future()
        with self._changed:
            if self._closing:
                raise OverloadedError("the server is stopping: try again later", retry_after=1)
            self.check_capacity(len(rows), flow.tokens)
            if len(rows) > self._queue_texts or flow.tokens > self._queue_tokens:
                self._oversized = flow
            self._futures[flow] = future
            self._queue.push(flow)
            self._observer.queued(self._queue.tokens, self._queue.texts)
            self._arrived += 1
            if self._settled or self._is_full:
                self._changed.notify()
        try:
            return await future
        finally:
            if flow is self._oversized:
                self._oversized = None
            if self._futures.pop(flow, None):
                with self._changed:
                    self._observer.dropped(*self._queue.drop(flow))
                    self._observer.queued(self._queue.tokens, self._queue.texts)

    async def close(self) -> None:
        """Compute the queued rows, then stop the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while taken := self._next():
            rows = [flow.rows[index] for flow, index in taken]
            self._call_started = started = time.perf_counter()
            error: BaseException | None = None
            results: Sequence[NDArray[np.float32]] = ()
            try:
                results = self._run(taken[0][0].output, rows)
            except BaseException as raised:  # any: the waiting requests must get it
                error = raised
            finished, self._call_started = time.perf_counter(), 0.0
            tokens = sum(len(row) for row in rows)
            speed = tokens / max(finished - started, 1e-6)
            self._speed += (speed - self._speed) * (0.1 if self._speed else 1.0)
            waits = [started - flow.started for flow in {flow for flow, _ in taken}]
            with self._changed:
                self._observer.called(len(rows), tokens, finished - started, waits)
                self._settled = False
            self._post(taken, results, error)
            with self._changed:
                self._changed.wait_for(
                    lambda: self._settled or self._closing or self._is_full, _MAX_SETTLING * (finished - started)
                )
                self._settled = True

    def _next(self) -> list[tuple[Flow, int]]:
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._queue.texts)
            taken = self._queue.take(self._call_tokens)
            self._observer.queued(self._queue.tokens, self._queue.texts)
            return taken

    @property
    def _is_full(self) -> bool:
        return self._queue.tokens >= self._call_tokens

    def _settle(self, passes: int, arrived: int) -> None:
        """Let the next call start after some passes of the event loop in which no request came."""
        if self._settled:
            return
        if arrived != self._arrived:
            passes, arrived = _PASSES, self._arrived
        if passes:
            self._loop.call_soon(self._settle, passes - 1, arrived)
            return
        with self._changed:
            self._settled = True
            self._changed.notify()

    def _post(
        self, taken: list[tuple[Flow, int]], results: Sequence[NDArray[np.float32]], error: BaseException | None
    ) -> None:
        try:
            self._loop.call_soon_threadsafe(self._deliver, taken, results, error)
        except RuntimeError:  # the loop was closed without close(): no request is waiting
            self._closing = True

    def _deliver(
        self, taken: list[tuple[Flow, int]], results: Sequence[NDArray[np.float32]], error: BaseException | None
    ) -> None:
        for row, (flow, index) in enumerate(taken):
            future = self._futures.get(flow)
            if future is None or future.done():
                continue
            if error is not None:
                future.set_exception(error)
                continue
            flow.results[index] = results[row]
            flow.missing -= 1
            if not flow.missing:
                self._futures.pop(flow)
                future.set_result([result for result in flow.results if result is not None])
        self._settle(_PASSES, self._arrived)
