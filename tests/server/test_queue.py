"""Fair queue: requests take turns, counted in tokens."""

import numpy as np
import pytest

from moembed.server.engine.queue import FairQueue, Flow, RowOutput


def flow(*sizes, output=RowOutput.EMBEDDING):
    return Flow([np.zeros(size, np.int32) for size in sizes], output)


def filled(*flows):
    queue = FairQueue()
    for each in flows:
        queue.push(each)
    return queue


def tokens_of(taken):
    return [len(flow.rows[index]) for flow, index in taken]


def test_short_query_is_in_the_next_call_whatever_is_queued():
    documents = [flow(*[512] * 100) for _ in range(3)]
    query = flow(12)
    queue = filled(*documents)
    assert tokens_of(queue.take(1024)) == [512, 512]
    queue.push(query)
    calls = [queue.take(1024) for _ in range(3)]
    position = next(i for i, taken in enumerate(calls) if (query, 0) in taken)
    assert position <= 1, "the query waited for the calls of all others"


def test_short_query_does_not_wait_for_many_requests():
    queue = filled(*(flow(510) for _ in range(64)))
    while queue.texts:
        query = flow(20)
        queue.push(query)
        taken = queue.take(1024)
        assert (query, 0) in taken
        assert 510 in tokens_of(taken), "documents do not wait for short queries"


@pytest.mark.parametrize("budget", [100, 256, 512, 1024])
def test_endless_short_queries_leave_documents_half(budget):
    queue = filled(*(flow(510) for _ in range(400)))
    served = {20: 0, 510: 0}
    for _ in range(200):
        for _ in range(60):
            queue.push(flow(20))
        for size in tokens_of(queue.take(budget)):
            served[size] += size
    assert served[510] > 0.4 * sum(served.values())
    assert served[20] > 0.1 * sum(served.values()), (
        "a document may be more than a call's budget, and goes every other time"
    )


@pytest.mark.parametrize("sizes", [(512, 16), (300, 7), (500, 300), (500, 20, 300, 100, 40), (400, 400, 400, 20, 20)])
def test_requests_get_equal_shares_of_tokens(sizes):
    flows = [flow(*[size] * (40_000 // size)) for size in sizes]
    queue = filled(*flows)
    served = dict.fromkeys(flows, 0)
    for _ in range(20 * len(sizes)):
        for owner, index in queue.take(1024):
            served[owner] += len(owner.rows[index])
    # Not exactly equal: the rest of a call goes to flows whose rows fit.
    assert max(served.values()) < 1.4 * min(served.values())


def test_calls_keep_to_the_budget_and_longer_rows_run_alone():
    queue = filled(flow(*[100] * 30), flow(2000), flow(5))
    seen = []
    while queue.texts:
        sizes = tokens_of(queue.take(1024))
        assert sizes
        assert sum(sizes) <= 1024 or sizes == [2000]
        seen += sizes
    assert sorted(seen) == sorted([100] * 30 + [2000, 5])
    assert (queue.tokens, queue.texts, queue.take(1024)) == (0, 0, [])


def test_skipped_row_is_first_in_the_next_call():
    long = flow(512)
    queue = filled(*(flow(*[16] * 60) for _ in range(2)), long)
    for _ in range(4):
        taken = queue.take(1024)
        if (long, 0) in taken:
            break
    else:
        pytest.fail("the long row starved")
    assert sum(tokens_of(taken)) > 900, "the call was filled"


def test_each_call_has_one_output():
    queue = filled(flow(10, 10), flow(10, output=RowOutput.TOKENS), flow(10))
    outputs = []
    while queue.texts:
        (output,) = {owner.output for owner, _ in queue.take(1024)}
        outputs.append(output)
    assert set(outputs) == {RowOutput.EMBEDDING, RowOutput.TOKENS}
    assert len(outputs) == 2


def test_dropped_flows_leave_no_trace():
    gone, stays = flow(*[100] * 50), flow(30)
    queue = filled(gone, stays)
    queue.take(256)
    queue.drop(gone)
    queue.drop(gone)
    while queue.texts:
        assert all(owner is stays for owner, _ in queue.take(256))
    assert queue.tokens == 0


def test_random_queues_lose_nothing():
    rng = np.random.default_rng(0)
    for _ in range(50):
        flows = [flow(*rng.integers(1, 513, rng.integers(1, 40))) for _ in range(rng.integers(1, 30))]
        queue, taken = filled(*flows), []
        budget = int(rng.integers(1, 2048))
        while queue.texts:
            call = queue.take(budget)
            assert call
            assert sum(tokens_of(call)) <= budget or len(call) == 1
            taken += [(id(owner), index) for owner, index in call]
        assert sorted(taken) == sorted((id(f), i) for f in flows for i in range(len(f.rows)))
        assert queue.tokens == 0
