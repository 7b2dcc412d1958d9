"""Scheduler with its threads: shared calls, limits, cancelled requests, and lanes."""

import asyncio
import contextlib
import itertools
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from moembed.server.engine.lanes import division
from moembed.server.engine.queue import RowOutput
from moembed.server.errors import OverloadedError
from support.queues import doubled, rows, scheduled


def test_requests_share_calls_and_get_their_results():
    async def scenario(scheduler, observer):
        jobs = [scheduler.submit(rows(i, i + 1000), RowOutput.EMBEDDING) for i in range(100)]
        found = await asyncio.gather(*jobs)
        assert [[float(v[0]) for v in own] for own in found] == [[2.0 * i, 2.0 * (i + 1000)] for i in range(100)]
        assert len(observer.calls) < 10
        assert observer.last == (0, 0)
        assert await scheduler.submit([], RowOutput.EMBEDDING) == []

    scheduled(doubled(0.005), scenario)


def test_full_queue_reports_a_retry_time():
    async def scenario(scheduler, _):
        first = asyncio.ensure_future(scheduler.submit(rows(*range(100)), RowOutput.EMBEDDING))
        await asyncio.sleep(0.02)
        with pytest.raises(OverloadedError, match="tokens are waiting") as raised:
            await scheduler.submit(rows(*range(60)), RowOutput.EMBEDDING)
        assert int(raised.value.headers["retry-after"]) >= 1
        with pytest.raises(OverloadedError, match="texts are waiting"):
            scheduler.check_capacity(150)
        assert len(await first) == 100

    scheduled(doubled(0.05), scenario, call_tokens=100, queue_tokens=1200, queue_texts=200)


def test_cancelled_request_frees_its_room():
    async def scenario(scheduler, observer):
        blocker = asyncio.ensure_future(scheduler.submit(rows(1), RowOutput.EMBEDDING))
        await asyncio.sleep(0.02)
        waiting = asyncio.ensure_future(scheduler.submit(rows(*range(50)), RowOutput.EMBEDDING))
        await asyncio.sleep(0)
        assert observer.last == (500, 50)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert observer.last == (0, 0)
        await blocker
        assert sum(observer.calls) == 1, "none of its rows was computed"

    scheduled(doubled(0.1), scenario)


def test_failed_call_affects_only_its_requests():
    def run(lane, output, rows):
        if any(row[0] == 13 for row in rows):
            raise ValueError("13")
        return doubled()(lane, output, rows)

    async def scenario(scheduler, _):
        with pytest.raises(ValueError, match="13"):
            await scheduler.submit(rows(*range(20), size=100), RowOutput.EMBEDDING)
        assert len(await scheduler.submit(rows(1, 2), RowOutput.EMBEDDING)) == 2

    scheduled(run, scenario)


@pytest.mark.parametrize("ticks", range(8))
def test_a_wait_that_ends_between_two_looks_at_the_clock(monkeypatch, ticks):
    """The second call of the only request must not wait for another request to arrive."""
    clock = itertools.count()  # each look takes a second
    time = SimpleNamespace(perf_counter=lambda: float(next(clock)))
    monkeypatch.setattr("moembed.server.engine.scheduler.time", time)

    def run(lane, output, rows):
        for _ in range(ticks):
            next(clock)
        return doubled()(lane, output, rows)

    async def scenario(scheduler, _):
        assert len(await scheduler.submit(rows(*range(20), size=100), RowOutput.EMBEDDING)) == 20

    scheduled(run, scenario)


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize("size", [10, 300])  # beyond the share of a lane, too
def test_close_drains_and_then_rejects(lanes, size):
    async def scenario(scheduler, _):
        jobs = [asyncio.ensure_future(scheduler.submit(rows(i, size=size), RowOutput.EMBEDDING)) for i in range(20)]
        await asyncio.sleep(0)
        await scheduler.close()
        assert len(await asyncio.gather(*jobs)) == 20
        with pytest.raises(OverloadedError, match="stopping"):
            await scheduler.submit(rows(1), RowOutput.EMBEDDING)

    scheduled(doubled(0.02), scenario, call_tokens=20, lanes=lanes)


def test_clients_that_ask_again_share_a_call():
    clients, times = 8, 20

    async def scenario(scheduler, observer):
        async def client(number):
            for _ in range(times):
                (found,) = await scheduler.submit(rows(number), RowOutput.EMBEDDING)
                assert found == [2.0 * number]

        await asyncio.gather(*map(client, range(clients)))
        return observer.calls

    calls = scheduled(doubled(0.02), scenario)
    assert sum(calls) == clients * times
    # Two for each turn, if a call took its rows before the results of the last one are delivered.
    assert len(calls) < 1.5 * times
    assert max(calls) == clients


class Recorded:
    """A model that doubles numbers, and notes which calls overlapped."""

    def __init__(self, seconds):
        self._seconds, self._lock, self._running = seconds, threading.Lock(), []
        self.calls = []  # (lane, tokens, calls at the same time, their tokens)

    def __call__(self, lane, output, rows):
        call = (lane, sum(map(len, rows)))
        with self._lock:
            self._running.append(call)
            lanes, tokens = zip(*self._running, strict=True)
            assert len(set(lanes)) == len(lanes), "a lane has one call at a time"
            assert None not in lanes or len(lanes) == 1, "a call with all threads is alone"
            self.calls.append((*call, len(lanes), sum(tokens)))
        time.sleep(self._seconds)
        with self._lock:
            self._running.remove(call)
        return np.array([[2.0 * row[0]] for row in rows], np.float32)


@pytest.mark.parametrize("lanes", [2, 4])
def test_lanes_compute_many_requests_at_the_same_time(lanes):
    run = Recorded(0.03)

    async def scenario(scheduler, _):
        jobs = [scheduler.submit(rows(i, size=20), RowOutput.EMBEDDING) for i in range(120)]
        assert [found[0] for found in await asyncio.gather(*jobs)] == [[2.0 * i] for i in range(120)]

    scheduled(run, scenario, lanes=lanes)
    assert max(together for *_, together, _ in run.calls) == lanes
    assert max(tokens for *_, tokens in run.calls) <= 1024, "calls at the same time share the budget"


def test_few_requests_have_all_threads():
    run = Recorded(0.0)

    async def scenario(scheduler, _):
        for i in range(20):
            await scheduler.submit(rows(*range(i % 4 + 1)), RowOutput.EMBEDDING)

    scheduled(run, scenario, lanes=2)
    assert {lane for lane, *_ in run.calls} == {None}


def test_a_row_beyond_the_share_of_a_lane_runs_alone_with_all_threads():
    run = Recorded(0.005)

    async def scenario(scheduler, _):
        short = [scheduler.submit(rows(i, size=20), RowOutput.EMBEDDING) for i in range(40)]
        long = [scheduler.submit(rows(i, size=600), RowOutput.EMBEDDING) for i in range(3)]
        assert len(await asyncio.gather(*long, *short)) == 43

    scheduled(run, scenario, lanes=2)
    assert {lane for lane, tokens, *_ in run.calls if tokens >= 600} == {None}
    assert {lane for lane, *_ in run.calls} & {0, 1}, "the short rows shared the threads"


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_random_requests_lose_nothing(lanes):
    rng = np.random.default_rng(lanes)

    async def scenario(scheduler, observer):
        async def client(number):
            for turn in range(12):
                size = int(rng.choice([3, 20, 100, 500, 1500]))
                values = [float(number * 1000 + turn * 10 + i) for i in range(rng.integers(1, 5))]
                job = asyncio.ensure_future(scheduler.submit(rows(*values, size=size), RowOutput.EMBEDDING))
                if rng.random() < 0.2:
                    await asyncio.sleep(0)
                    job.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await job
                    continue
                assert [float(vector[0]) for vector in await job] == [2.0 * value for value in values]

        await asyncio.gather(*map(client, range(30)))
        assert observer.last == (0, 0)
        assert scheduler.call_running_for == 0

    scheduled(Recorded(0.001), scenario, lanes=lanes, queue_tokens=10**6)


@pytest.mark.parametrize("lanes", [2, 4])
def test_a_failed_call_leaves_the_other_lanes_alone(lanes):
    run = Recorded(0.002)

    def failing(lane, output, given):
        if any(row[0] == 13 for row in given):
            raise ValueError("13")
        return run(lane, output, given)

    async def scenario(scheduler, _):
        jobs = [scheduler.submit(rows(i, size=50), RowOutput.EMBEDDING) for i in range(60)]
        found = await asyncio.gather(*jobs, return_exceptions=True)
        assert isinstance(found[13], ValueError)
        assert sum(isinstance(each, ValueError) for each in found) < 30
        assert len(await scheduler.submit(rows(1, 2), RowOutput.EMBEDDING)) == 2

    scheduled(failing, scenario, lanes=lanes)


@pytest.mark.parametrize(
    ("threads", "expected"),
    [
        (1, (1, 1)),
        (2, (2, 1)),
        (3, (3, 1)),
        (4, (4, 1)),
        (5, (4, 1)),
        (6, (3, 2)),
        (7, (3, 2)),
        (8, (4, 2)),
        (16, (4, 4)),
    ],
)
def test_threads_are_divided_among_lanes(threads, expected):
    assert division(threads) == expected
