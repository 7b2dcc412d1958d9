"""Random requests generated from the OpenAPI document: every response matches it, and none is a 5xx.

`pytest -m fuzz` sends 10,000; the default suite some hundred, the same in every run.
"""

import json
from collections import Counter

import hypothesis
import numpy as np
import pytest

from support.repeatable import repeatable
from support.serving import serving, wait_until


@pytest.fixture(scope="module")
def server():
    # Small limits, so that random requests reach them.
    with serving(max_inputs=8, max_characters=2000, max_body_bytes=20_000, task="query", accept_token_ids=True) as here:
        yield here
        wait_until(lambda: here.metric("moembed_active_requests") == 1)
        assert here.metric("moembed_queue_texts") == here.metric("moembed_queue_tokens") == 0
        assert here.post("/embed", {"inputs": "hello"}).status == 200


def fuzzed(server, examples):
    """Send a number of requests to every endpoint; return the number of responses by status."""
    # Imported here and not by each process of a parallel run when it collects the tests: that takes a second.
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    wanted = (
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    )
    statuses = Counter()
    for operation in schemathesis.openapi.from_url(f"{server.url}/openapi.json").get_all_operations():
        right, wrong = (operation.ok().as_strategy(mode) for mode in schemathesis.GenerationMode)

        @repeatable(examples)
        @hypothesis.given(case=right | wrong)
        def every_answer_is_described(case):
            statuses[case.call_and_validate(checks=wanted).status_code] += 1

        every_answer_is_described()
    return statuses


def damaged(server, count):
    """Send a number of requests with changed bytes; return the number of responses by status."""
    bodies = {
        "/v1/embeddings": {
            "model": "moembed",
            "input": ["héllo 👍", "x"],
            "dimensions": 64,
            "encoding_format": "base64",
        },
        "/embed": {"inputs": ["héllo 👍", "x"], "truncate": True, "normalize": False},
        "/similarity": {"inputs": {"source_sentence": "x", "sentences": ["y"]}},
        "/tokenize": {"inputs": "héllo"},
        "/v2/embed": {"model": "moembed", "texts": ["x"], "embedding_types": ["int8", "binary"], "truncate": "START"},
        "/api/embed": {"model": "moembed", "input": "x", "options": {"a": 1}, "keep_alive": "5m"},
    }
    rng, statuses = np.random.default_rng(0), Counter()
    for number in range(count):
        path, body = list(bodies.items())[number % len(bodies)]
        raw = bytearray(json.dumps(body, ensure_ascii=False).encode())
        for _ in range(rng.integers(1, 3)):
            at, stop = sorted(rng.integers(0, len(raw) + 1, 2))
            stop = min(stop, at + 8)
            piece = [
                bytes(rng.integers(0, 256, 2, np.uint8)),
                b"",
                b'"',
                b"[",
                b"-1e9",
                b"\\u0000",
                bytes(raw[at:stop]) * 2,
            ]
            raw[at:stop] = piece[rng.integers(len(piece))]
        answer = server.ask("POST", path, bytes(raw))
        assert answer.json is not None
        assert answer.status in (200, 400, 404, 413, 422), bytes(raw)
        statuses[answer.status] += 1
    return statuses


def test_hundreds_of_random_requests(server):
    statuses = fuzzed(server, 20) + damaged(server, 300)
    assert sum(statuses.values()) > 500
    # Some requests are accepted and some rejected.
    assert statuses[200] > 30, statuses
    assert statuses[400] + statuses[422] > 100, statuses


@pytest.mark.fuzz
def test_ten_thousand_random_requests(server):
    statuses = fuzzed(server, 800) + damaged(server, 5_000)
    print(dict(statuses))
    assert sum(statuses.values()) > 10_000
