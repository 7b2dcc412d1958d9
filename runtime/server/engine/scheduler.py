"""Scheduler that runs the rows of many requests in shared model calls, on threads of its own."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moembed.server.engine.queue import QUANTUM, FairQueue, Flow, RowOutput
from moembed.server.errors import OverloadedError
from moembed.tokenizer.tokenizer import Ids

Vectors = list[NDArray[np.float32]]
# Computes an output of rows, in a lane, or with all threads if the lane is None.
Run = Callable[[int | None, RowOutput, list[Ids]], Sequence[NDArray[np.float32]]]

_MAX_RETRY_SECONDS = 60
# Passes of the event loop without a new request, from the delivery of results to the next call. One makes the responses, one
# sends them, one reads what the clients send next, one tokenizes it.
_PASSES = 5
# The wait for them, at most, as a share of the duration of the last call.
_MAX_SETTLING = 0.5
# With fewer waiting rows per lane, one call with all threads is faster. With so many tokens, a lane need not wait for more.
_ROWS_PER_LANE, _ENOUGH = 4, QUANTUM


class Observer(Protocol):
    """Receiver of queue and call statistics. Its methods run under a lock and must be fast."""

    def queued(self, tokens: int, texts: int) -> None:
        """Receive the new size of the queue."""

    def dropped(self, tokens: int, texts: int) -> None:
        """Receive the size of the waiting rows that were dropped because their request was cancelled."""

    def called(self, texts: int, tokens: int, seconds: float, waits: Sequence[float]) -> None:
        """Receive the size and duration of a finished call, and how long each of its requests had waited."""


class Call:
    """Rows of one model call.

    Args:
        lane: lane that computes them; None for all threads, while no other call runs.
        taken: pairs of a flow and the index of one of its rows.
    """

    def __init__(self, lane: int | None, taken: list[tuple[Flow, int]]) -> None:
        self.lane, self.taken, self.started = lane, taken, time.perf_counter()

    @cached_property
    def rows(self) -> list[Ids]:
        """Token ids of each row."""
        return [flow.rows[index] for flow, index in self.taken]

    @cached_property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(map(len, self.rows))


class Scheduler:
    """Runs queued rows in calls of a token budget. Methods belong to one event loop; calls run on the scheduler's threads.

    While few rows wait, a call has all threads of the model. Otherwise each lane runs calls of its own, with its share of the
    threads and of the budget, so that no call waits for a thread that the event loop holds up. A row beyond that share runs with
    all threads, and alone, which keeps the memory of all calls within that of one full call.

    There is no batching delay: a call starts as soon as a lane is free, with the rows that are queued, and rows that arrive
    in the meantime share the next call. Measured on 2 busy cores, medians of 7 rounds: a delay of 1 or 3 ms before each call
    made no difference beyond noise with 64 clients (25.8 texts per call without it, 27.6 and 26.3 with it, equal CPU time per
    request), and raised the median latency of a single client from 6.3 ms to 7.4 and 9.3 ms.

    After a call, the event loop first delivers its results and reads what has arrived, then the next call starts, unless enough
    is waiting for it. Otherwise both would compete for the same CPUs, and the clients of one call would never share a call with
    those of the next.

    Args:
        run: computes an output of rows; the result for a row must not depend on the other rows.
        lanes: calls that may run at the same time.
        call_tokens: tokens per call, or of all calls that run at the same time, at most.
        queue_tokens: waiting tokens, at most.
        queue_texts: waiting rows, at most. One request at a time may exceed either limit: its rows take turns with those of
            other requests, and do not count towards the limits.
        observer: receives statistics.
        name: name of the model, for the threads.
    """

    def __init__(
        self,
        run: Run,
        *,
        lanes: int = 1,
        call_tokens: int,
        queue_tokens: int,
        queue_texts: int,
        observer: Observer,
        name: str = "",
    ) -> None:
        self._run = run
        self._lanes, self._call_tokens = lanes, call_tokens
        self._queue_tokens, self._queue_texts = queue_tokens, queue_texts
        self._observer = observer
        self._queue = FairQueue()
        self._oversized: Flow | None = None
        self._futures: dict[Flow, asyncio.Future[Vectors]] = {}
        # The lane that ended last is woken first: its memory is still in the cache.
        self._lock = threading.Lock()
        self._wake = [threading.Condition(self._lock) for _ in range(lanes)]
        self._idle: list[int] = []
        self._ended = threading.Condition(self._lock)
        self._closing = False
        # Calls whose clients may be about to ask again, each with the time until which others wait for them, and the number of
        # requests so far.
        self._settling: dict[Call, float] = {}
        self._arrived = 0
        self._speed = 0.0  # tokens per second of all lanes, moving average
        self._running: set[Call] = set()
        self._alone = False  # a call with all threads runs, or waits for the others to end
        self._loop = asyncio.get_running_loop()
        self._threads = [
            threading.Thread(target=self._work, args=(lane,), name=f"moembed-{name}-{lane}", daemon=True)
            for lane in range(lanes)
        ]
        for thread in self._threads:
            thread.start()

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
        """Seconds since the oldest of the current calls started; 0 if there is none."""
        with self._lock:
            started = [call.started for call in self._running]
        return time.perf_counter() - min(started) if started else 0.0

    async def submit(self, rows: Sequence[Ids], output: RowOutput) -> Vectors:
        """Compute an output for rows. If the caller is cancelled, its waiting rows are dropped.

        Raises:
            OverloadedError: the queue is full, or the rows exceed its limits while another such request is running.
        """
        if not rows:
            return []
        flow = Flow(rows, output, time.perf_counter())
        future: asyncio.Future[Vectors] = self._loop.create_future()
        with self._lock:
            if self._closing:
                raise OverloadedError("the server is stopping: try again later", retry_after=1)
            self.check_capacity(len(rows), flow.tokens)
            if len(rows) > self._queue_texts or flow.tokens > self._queue_tokens:
                self._oversized = flow
            self._futures[flow] = future
            self._queue.push(flow)
            self._observer.queued(self._queue.tokens, self._queue.texts)
            self._arrived += 1
            self._wake_one()
        try:
            return await future
        finally:
            if flow is self._oversized:
                self._oversized = None
            if self._futures.pop(flow, None):
                with self._lock:
                    self._observer.dropped(*self._queue.drop(flow))
                    self._observer.queued(self._queue.tokens, self._queue.texts)

    async def close(self) -> None:
        """Compute the queued rows, then stop the threads."""
        with self._lock:
            self._closing = True
            for wake in self._wake:
                wake.notify()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _work(self, lane: int) -> None:
        while call := self._next(lane):
            error: BaseException | None = None
            results: Sequence[NDArray[np.float32]] = ()
            try:
                results = self._run(call.lane, call.taken[0][0].output, call.rows)
            except BaseException as raised:  # any: the waiting requests must get it
                error = raised
            ended = time.perf_counter()
            seconds = max(ended - call.started, 1e-6)
            waits = [call.started - flow.started for flow in {flow for flow, _ in call.taken}]
            with self._lock:
                speed = call.tokens / seconds * (1 if call.lane is None else self._lanes)
                self._speed += (speed - self._speed) * (0.1 if self._speed else 1.0)
                self._observer.called(len(call.taken), call.tokens, seconds, waits)
                self._running.discard(call)
                self._alone = self._alone and call.lane is not None
                self._settling[call] = ended + _MAX_SETTLING * seconds
                self._ended.notify()
            self._post(call, results, error)

    def _next(self, lane: int) -> Call | None:
        """Take the rows of a lane's next call; None when the scheduler closes."""
        with self._lock:
            while (delay := self._delay()) != 0:
                if self._closing and not self._queue.texts:
                    for wake in self._wake:  # lanes that waited for the last call to end
                        wake.notify()
                    return None
                self._idle.append(lane)
                self._wake[lane].wait(delay)
                self._idle.remove(lane)
            most = self._call_tokens // self._lanes
            share = self._share()
            taken = self._queue.take(self._call_tokens if share is None else min(share, most))
            call = Call(lane, taken)
            if share is None or call.tokens > most:
                self._alone = True
                self._ended.wait_for(lambda: not self._running)
                call = Call(None, taken)
            self._running.add(call)
            self._observer.queued(self._queue.tokens, self._queue.texts)
            self._wake_one()
            return call

    def _share(self) -> int | None:
        """Return a lane's share of the waiting tokens; None if few rows wait, and no call runs."""
        idle, waiting = self._lanes - len(self._running), self._queue.tokens
        if idle == self._lanes and (self._lanes == 1 or self._queue.texts < _ROWS_PER_LANE * self._lanes):
            return None
        # What would fill one more lane stays in the queue, so that the lane that ends next need not wait for the clients of its
        # last call.
        return max(waiting // (idle + 1), min(waiting // idle, _ENOUGH))

    def _wake_one(self) -> None:
        if self._idle and self._delay() == 0:
            self._wake[self._idle[-1]].notify()

    def _delay(self) -> float | None:
        """Return the seconds until a call may start, or may be asked for again: 0 for now, None if no time decides that.

        Who waits must wait for the result of one call: at the next one the time may be over, which nobody else would tell.
        """
        left = 0.0
        if self._settling:
            left = max(0.0, max(self._settling.values()) - time.perf_counter())
            if not left:
                self._settling.clear()
        if not self._queue.texts or self._alone:
            return left or None
        enough = self._call_tokens if self._lanes == 1 else _ENOUGH
        return 0.0 if self._queue.tokens >= enough or self._closing else left

    def _settle(self, call: Call, passes: int, arrived: int) -> None:
        """Let the next call start after some passes of the event loop in which no request came."""
        if call not in self._settling:  # the wait is over
            passes = 0
        elif arrived != self._arrived:
            passes, arrived = _PASSES, self._arrived
        if passes:
            self._loop.call_soon(self._settle, call, passes - 1, arrived)
            return
        with self._lock:
            self._settling.pop(call, None)
            self._wake_one()

    def _post(self, call: Call, results: Sequence[NDArray[np.float32]], error: BaseException | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._deliver, call, results, error)
        except RuntimeError:  # the loop was closed without close(): no request is waiting
            self._closing = True

    def _deliver(self, call: Call, results: Sequence[NDArray[np.float32]], error: BaseException | None) -> None:
        for row, (flow, index) in enumerate(call.taken):
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
        self._settle(call, _PASSES, self._arrived)
