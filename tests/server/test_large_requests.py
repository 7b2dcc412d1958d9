"""Requests larger than the queue: one at a time is accepted, and takes turns with short ones."""

import asyncio
import threading
import time

import numpy as np
import pytest

from moembed.server.engine.queue import RowOutput
from moembed.server.errors import OverloadedError
from support.queues import doubled, rows, scheduled
from support.serving import BODIES, message_of, serving, wait_until

TEXTS = [f"document number {n} of a batch" for n in range(200)]


@pytest.fixture(scope="module")
def narrow():
    """Server whose queue holds a fifth of the texts' tokens."""
    with serving(queue_tokens=400, call_tokens=64) as started:
        yield started


@pytest.mark.parametrize("path", BODIES)
def test_idle_server_accepts_a_batch_larger_than_its_queue(narrow, path, model):
    answer = narrow.post(path, BODIES[path](TEXTS))
    assert answer.status == 200
    if path == "/embed":
        expected = model.encode_query(TEXTS)
        assert np.array(answer.json, np.float32).tobytes() == expected.tobytes()


def test_short_requests_are_answered_meanwhile_and_a_second_batch_gets_429(narrow):
    done = []
    batch = threading.Thread(target=lambda: done.append(narrow.post("/embed", BODIES["/embed"](TEXTS * 5))))
    batch.start()
    wait_until(lambda: narrow.metric("moembed_queue_tokens") > 400)
    short = narrow.post("/embed", BODIES["/embed"](["a query"]))
    assert short.status == 200
    assert not done, "the batch was over before: nothing was shown"
    second = narrow.post("/embed", BODIES["/embed"](TEXTS))
    assert second.status == 429
    assert "more than the queue limit of 400, and another such request is running" in message_of("/embed", second)
    assert int(second.headers["retry-after"]) >= 1
    batch.join()
    assert done[0].status == 200
    assert narrow.post("/embed", BODIES["/embed"](TEXTS)).status == 200, "another large request is accepted again"


def test_large_request_does_not_count_towards_the_limit():
    async def scenario(scheduler, _):
        large = asyncio.ensure_future(scheduler.submit(rows(*range(300)), RowOutput.EMBEDDING))
        await asyncio.sleep(0.02)
        others = [asyncio.ensure_future(scheduler.submit(rows(*range(40)), RowOutput.EMBEDDING)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="400 more exceed the limit"):
            await scheduler.submit(rows(*range(40)), RowOutput.EMBEDDING)
        with pytest.raises(OverloadedError, match="more than the queue limit of 1000"):
            await scheduler.submit(rows(*range(101)), RowOutput.EMBEDDING)
        assert [len(found) for found in await asyncio.gather(*others)] == [40, 40]
        assert not large.done(), "the other requests took turns"
        assert len(await large) == 300
        assert len(await scheduler.submit(rows(*range(200)), RowOutput.EMBEDDING)) == 200

    scheduled(doubled(0.02), scenario, call_tokens=100, queue_tokens=1000)


def test_cancelled_large_request_leaves_room_for_another():
    async def scenario(scheduler, observer):
        blocker = asyncio.ensure_future(scheduler.submit(rows(1), RowOutput.EMBEDDING))
        await asyncio.sleep(0.02)
        large = asyncio.ensure_future(scheduler.submit(rows(*range(300)), RowOutput.EMBEDDING))
        await asyncio.sleep(0)
        large.cancel()
        with pytest.raises(asyncio.CancelledError):
            await large
        assert observer.last == (0, 0)
        assert len(await scheduler.submit(rows(*range(300)), RowOutput.EMBEDDING)) == 300
        await blocker

    scheduled(doubled(0.02), scenario, queue_tokens=1000)


def test_full_queue_rejects_a_large_request():
    async def scenario(scheduler, _):
        full = [asyncio.ensure_future(scheduler.submit(rows(1), RowOutput.EMBEDDING))]
        await asyncio.sleep(0.02)
        full += [asyncio.ensure_future(scheduler.submit(rows(*range(50)), RowOutput.EMBEDDING)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="tokens are waiting"):
            await scheduler.submit(rows(*range(300)), RowOutput.EMBEDDING)
        await asyncio.gather(*full)

    scheduled(doubled(0.1), scenario, call_tokens=500, queue_tokens=1000)


@pytest.mark.long
def test_langchain_default_batch_of_a_thousand_documents():
    embeddings = pytest.importorskip("langchain_openai").OpenAIEmbeddings
    with serving() as server:
        client = embeddings(
            model="moembed:document",
            base_url=f"{server.url}/v1",
            api_key="none",
            check_embedding_ctx_length=False,
            timeout=600,
            max_retries=0,
        )
        assert client.chunk_size == 1000
        words = "a document of words that say something about a subject and its neighbours ".split()
        documents = [(" ".join(words[n % 13 :] + words) * 12)[:1000] for n in range(1000)]
        seconds = []

        def ask():
            start = time.perf_counter()
            assert server.post("/embed", BODIES["/embed"](["a query"])).status == 200
            seconds.append(time.perf_counter() - start)

        found = []
        batch = threading.Thread(target=lambda: found.extend(client.embed_documents(documents)))
        batch.start()
        wait_until(lambda: server.metric("moembed_queue_texts") > 100, 60)
        while batch.is_alive():
            ask()
            time.sleep(0.5)
        batch.join()
        assert len(found) == 1000
        assert len(seconds) > 5
        assert np.median(seconds) < 5
