"""The same text gives the same bytes: alone, in random batches, by every set of kernels, and by every route of the server."""

import http.client
import json
import random

import numpy as np
import pytest

from moembed import Embedder
from moembed.errors import TruncationWarning
from moembed.inference.kernels import VARIABLE, usable_kernels
from support.random_batches import SENTENCES, compare
from support.serving import BODIES, serving
from support.unicode_texts import ADVERSARIAL, random_texts

pytestmark = pytest.mark.long
ROUTES = (*BODIES, "/api/embeddings", "/embed_all")


def test_batches_orders_padding_and_threads(model, count):
    outcome = compare(model.bundle, pool=max(count // 4, 20), count=count, seed=17, tokens=1024)
    print(outcome)
    assert not outcome.differing, outcome


@pytest.mark.parametrize("threads", [1, 3])
def test_every_set_of_native_kernels(model, count, monkeypatch, threads):
    native = usable_kernels()[:-1]
    if len(native) < 2:
        pytest.skip(f"one set of kernels only: {native}")
    texts = [*ADVERSARIAL.values(), *random_texts(threads, count)]
    found = {}
    for name in native:
        monkeypatch.setenv(VARIABLE, name)
        embedder = Embedder(model.bundle, threads=threads)
        assert embedder.kernels == name
        with pytest.warns(TruncationWarning):
            found[name] = embedder.encode_query(texts, overlong="truncate", batch_size=7 + threads)
    expected = found.pop(native[0])
    for name, vectors in found.items():
        differing = [i for i, (a, b) in enumerate(zip(expected, vectors, strict=True)) if a.tobytes() != b.tobytes()]
        assert not differing, (name, [texts[i] for i in differing[:3]])
    print(f"{len(texts) * len(found)} comparisons of {native}")


def test_portable_kernels_alone_and_in_batches(bundle, count, monkeypatch):
    monkeypatch.setenv(VARIABLE, "portable")
    embedder, texts = Embedder(bundle, threads=2), list(random_texts(3, count))
    together = embedder.encode(texts, prompt="", batch_size=16)
    for text, vector in zip(texts, together, strict=True):
        assert embedder.encode(text, prompt="").tobytes() == vector.tobytes(), text


def _asked(connection, path, texts):
    """The vectors of texts by a route, float32."""
    body = {
        "/api/embeddings": {"model": "moembed:query", "prompt": texts[0]},
        "/embed_all": {"inputs": texts, "prompt_name": "query"},
    }.get(path)
    connection.request("POST", path, json.dumps(body or BODIES[path](texts)), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    raw = json.loads(answer.read())
    assert answer.status == 200, (path, raw, texts)
    if path == "/v1/embeddings":
        return [np.array(one["embedding"], np.float32) for one in raw["data"]]
    if path == "/v2/embed":
        raw = raw["embeddings"]["float"]
    if path == "/api/embed":
        raw = raw["embeddings"]
    if path == "/api/embeddings":
        raw = [raw["embedding"]]
    return [np.array(one, np.float32) for one in raw]


def test_the_routes_of_the_server(model, count):
    """Random companies of texts, on every route, against `Embedder` alone."""
    rng = random.Random(17)
    texts = [text for text in (*SENTENCES, *random_texts(5, 200)) if text.strip()]
    texts = [text for text in texts if model.count_tokens(text, prompt_name="query") <= model.max_tokens]
    expected, tokens, compared = {}, {}, 0
    with serving() as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        for _ in range(count):
            for path in ROUTES:
                chosen = rng.choices(texts, k=1 if path == "/api/embeddings" else rng.randint(1, 6))
                for text, found in zip(chosen, _asked(connection, path, chosen), strict=True):
                    known = tokens if path == "/embed_all" else expected
                    if text not in known:
                        known[text] = (
                            model.token_embeddings(text, prompt_name="query")
                            if path == "/embed_all"
                            else model.encode_query(text)
                        )
                    assert found.tobytes() == known[text].tobytes(), (path, text)
                    compared += 1
        connection.close()
    print(f"{compared} comparisons on {len(ROUTES)} routes")
