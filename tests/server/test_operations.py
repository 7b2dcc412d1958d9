"""Operation: tasks, model names, overload, keys, logs, metrics, readiness."""

import asyncio
import concurrent.futures
import json
import logging
import socket
import threading

import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from moembed.errors import InputError, SourceError
from moembed.server.logs import JsonFormatter
from support.serving import BODIES, message_of, serving, wait_until

SECRET = "the quick brown secret"


def test_task_of_texts_with_a_prompt_and_default_task(small_server, model):
    def vectors(server, texts, **fields):
        return server.post("/v1/embeddings", {"model": "moembed", "input": texts} | fields)

    own = vectors(small_server, ["query: hello", "passage: hello"])
    assert own.status == 200
    assert np.array(own.json["data"][0]["embedding"], np.float32).tobytes() == model.encode_query("hello").tobytes()
    assert vectors(small_server, ["query: hello", "hello"]).status == 400
    assert vectors(small_server, ["hello"], prompt_name="none").status == 200
    assert vectors(small_server, ["hello"], prompt_name="query", input_type="passage").status == 400
    over = small_server.post("/v1/embeddings", {"model": "moembed:passage", "input": "hello", "input_type": "query"})
    assert over.json["data"][0]["embedding"] == own.json["data"][0]["embedding"], (
        "a field goes before the model's suffix"
    )
    for task, wanted in (("document", model.encode_document("hello")), ("none", model.encode("hello", prompt=""))):
        with serving(task=task) as server:
            found = vectors(server, ["hello"]).json["data"][0]["embedding"]
            assert np.array(found, np.float32).tobytes() == wanted.tobytes()
            chosen = vectors(server, ["hello"], input_type="search_query").json["data"][0]["embedding"]
            assert np.array(chosen, np.float32).tobytes() == model.encode_query("hello").tobytes()
    with pytest.raises(InputError, match="no prompt for the task 'poetry'"), serving(task="poetry"):
        pass


def test_accepted_token_ids(model):
    ids = next(iter(model.tokenizer.encode(["hello there"]))).tolist()
    with serving(accept_token_ids=True) as server:

        def ask(given, **fields):
            return server.post("/v1/embeddings", {"model": "moembed:query", "input": given} | fields)

        wanted = model.encode_query("hello there").tobytes()
        for given in (ids, ids[1:-1], [ids, ids[1:-1]]):
            answer = ask(given)
            assert np.array(answer.json["data"][0]["embedding"], np.float32).tobytes() == wanted
        assert answer.json["usage"]["prompt_tokens"] == 2 * model.count_tokens("hello there", prompt_name="query")
        for given in ([-1], [10**6], [2**40], [[5], []], [[5], "x"], [5] * 600):
            assert ask(given).status == 400


def test_several_models_by_name(bundle, model, small):
    with serving(model=("small=" + str(bundle.folder), "e5=built-in", "text-embedding-3-small=built-in")) as server:
        listed = [m["id"].partition(":")[0] for m in server.get("/v1/models").json["data"]]
        assert list(dict.fromkeys(listed)) == ["small", "e5", "text-embedding-3-small"]
        for name, embedder in (("small", small), ("e5", model), ("text-embedding-3-small", model)):
            answer = server.post("/v1/embeddings", {"model": f"{name}:query", "input": "hello"}).json
            found = np.array(answer["data"][0]["embedding"], np.float32)
            assert found.tobytes() == embedder.encode_query("hello").tobytes()
        assert len(server.post("/embed", {"inputs": "search_query: hello"}).json[0]) == small.dim


def test_model_that_cannot_be_loaded(tmp_path):
    with pytest.raises(SourceError, match="nowhere"), serving(model=(str(tmp_path / "nowhere"),)):
        pass
    with pytest.raises(InputError, match="already taken"), serving(model=("a=built-in", "a=built-in")):
        pass


def test_keys(tmp_path):
    file = tmp_path / "keys"
    file.write_text("# ours\nfrom-file\n\n")
    with serving(api_keys=("first", "zweiter-schlüssel"), api_keys_file=str(file)) as server:
        for path, body in BODIES.items():
            for headers in (
                {},
                {"authorization": "Bearer wrong"},
                {"authorization": "first"},
                {"authorization": "Bearer "},
            ):
                answer = server.post(path, body(["x"]), **headers)
                assert answer.status == 401
                assert answer.headers["www-authenticate"] == "Bearer"
                assert "Authorization: Bearer KEY" in message_of(path, answer)
            for key in ("first", "from-file", "zweiter-schlüssel".encode().decode("latin-1")):
                assert server.post(path, body(["x"]), authorization=f"Bearer {key}").status == 200
        assert server.get("/metrics").status == server.get("/openapi.json").status == server.post("/", {}).status == 401
        assert server.get("/health").status == server.get("/ready").status == 200
    file.write_text("# none\n")
    with pytest.raises(InputError, match="contains no key"), serving(api_keys_file=str(file)):
        pass


def test_cors_only_for_configured_origins(small_server):
    asks = {"origin": "https://app.example", "access-control-request-method": "POST"}
    assert small_server.ask("OPTIONS", "/v1/embeddings", None, asks).status == 403
    assert "access-control-allow-origin" not in small_server.get("/health", origin="https://app.example").headers
    with serving(cors_origins=("https://app.example",), api_keys=("k",)) as server:
        allowed = server.ask(
            "OPTIONS", "/v1/embeddings", None, asks | {"access-control-request-headers": "authorization"}
        )
        assert (allowed.status, allowed.headers["access-control-allow-origin"]) == (200, "https://app.example")
        assert server.ask("OPTIONS", "/v1/embeddings", None, asks | {"origin": "https://evil.example"}).status == 400


def test_overload_gets_429_and_passes():
    with serving(queue_tokens=600, call_tokens=64) as server:
        texts = ["word " * 20] * 10

        def ask(_):
            return server.post("/v1/embeddings", {"model": "moembed:document", "input": texts})

        with concurrent.futures.ThreadPoolExecutor(16) as clients:
            answers = list(clients.map(ask, range(48)))
        rejected = [answer for answer in answers if answer.status == 429]
        assert rejected
        assert {answer.status for answer in answers} == {200, 429}
        assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in rejected)
        assert rejected[0].json["error"]["code"] == "rate_limit_exceeded"
        assert server.metric("moembed_refused_requests_total", reason="overloaded") == len(rejected)
        assert ask(0).status == 200
        assert server.post("/embed", {"inputs": texts * 4, "prompt_name": "query"}).status == 200, (
            "nobody waits meanwhile"
        )
        assert server.metric("moembed_queue_tokens") == server.metric("moembed_queue_texts") == 0


def test_token_vector_responses_are_limited():
    with serving() as server:
        answer = server.post("/embed_all", BODIES["/embed"](["word " * 400] * 60))
        assert answer.status == 413
        assert "numbers" in answer.json["error"]


def test_limit_of_concurrent_requests():
    with serving(max_requests=1) as server, socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow:
        slow.sendall(b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{")
        wait_until(lambda: server.post("/api/embed", {"model": "moembed:query", "input": "x"}).status == 429)
        assert server.get("/health").status == 200
        slow.close()
        wait_until(lambda: server.post("/api/embed", {"model": "moembed:query", "input": "x"}).status == 200)


def test_disconnected_client_frees_its_slot():
    with serving(call_tokens=64) as server:
        body = json.dumps(BODIES["/embed"](["word " * 400] * 100)).encode()
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
            raw.sendall(b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
            wait_until(lambda: server.metric("moembed_queue_texts") > 50)
        wait_until(lambda: server.metric("moembed_queue_texts") == 0, seconds=2)
        wait_until(lambda: server.metric("moembed_requests_total", status="499") == 1)
        assert server.metric("moembed_call_texts_sum") < 90


def test_metrics_count_the_work(small_server, model):
    names = {
        "moembed_texts_total": {"model": "moembed"},
        "moembed_tokens_total": {"model": "moembed"},
        "moembed_requests_total": {"endpoint": "/v2/embed", "status": "200"},
        "moembed_request_seconds_count": {"endpoint": "/v2/embed"},
        "moembed_call_texts_sum": {"model": "moembed"},
        "moembed_queue_seconds_count": {"model": "moembed"},
    }
    before = {name: small_server.metric(name, **labels) for name, labels in names.items()}
    assert small_server.post("/v2/embed", BODIES["/v2/embed"](["one", "two"])).status == 200
    after = {name: small_server.metric(name, **labels) - before[name] for name, labels in names.items()}
    tokens = sum(model.count_tokens(["one", "two"], prompt_name="query"))
    assert list(after.values())[:5] == [2, tokens, 1, 1, 2]
    assert after["moembed_queue_seconds_count"] >= 1


def lines_of(caplog, identifiers):
    """Return the log lines of some requests, in order; lines of other requests may come in between."""

    def found():
        lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
        return {line["id"]: line for line in lines if line.get("id") in identifiers}

    wait_until(lambda: set(found()) == set(identifiers))
    return [found()[identifier] for identifier in identifiers]


def test_log_describes_requests_and_never_texts(small_server, caplog):
    requests = {
        "served": ("POST", "/v1/embeddings", BODIES["/v1/embeddings"]([SECRET])),
        "unknown": ("POST", "/v1/embeddings", {"model": SECRET, "input": SECRET, "prompt_name": SECRET}),
        "refused": ("POST", "/v1/embeddings", BODIES["/v1/embeddings"]([SECRET] * 9)),
        "lost": ("GET", f"/{SECRET.replace(' ', '-')}", None),
    }
    with caplog.at_level(logging.INFO, logger="moembed.server"):
        for identifier, request in requests.items():
            small_server.ask(*request, {"x-request-id": identifier})
        lines = lines_of(caplog, requests)
    first = lines[0]
    assert first["time"].endswith("+00:00")
    assert {k: first[k] for k in ("level", "event", "path", "api", "status", "model", "texts")} == {
        "level": "info",
        "event": "request",
        "path": "/v1/embeddings",
        "api": "openai",
        "status": 200,
        "model": "moembed",
        "texts": 1,
    }
    assert "secret" not in json.dumps(lines)


def test_failures_are_logged_by_location_without_message(small_server, caplog, monkeypatch):
    from moembed.server.engine.engine import Engine

    def broken(self, *_args, **_options):
        raise RuntimeError(SECRET)

    monkeypatch.setattr(Engine, "tokenize", broken)
    with caplog.at_level(logging.INFO, logger="moembed.server"):
        answer = small_server.post("/v1/embeddings", BODIES["/v1/embeddings"]([SECRET]), **{"x-request-id": "broken"})
        (line,) = lines_of(caplog, ["broken"])
    assert (answer.status, answer.json["error"]["type"]) == (500, "server_error")
    assert (line["level"], line["failure"][0]) == ("error", "RuntimeError")
    assert SECRET not in json.dumps(line) + answer.body.decode()


def test_spans_if_opentelemetry_is_installed():
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with serving() as server:
        server.post("/v1/embeddings", BODIES["/v1/embeddings"](["hello"]), traceparent=parent)
    span = next(span for span in spans.get_finished_spans() if span.name == "POST /v1/embeddings")
    assert f"{span.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["moembed.texts"] == 1


def test_vectors_do_not_depend_on_the_batch_composition(model):
    """Many concurrent clients, texts of all lengths, all APIs: each vector is that of the text alone."""
    rng = np.random.default_rng(7)
    words = "the bread bakes Zug Bahnhof 骆驼 嵌入 ночной поезд café naïve 👍🏽 of and in".split()
    texts = [" ".join(rng.choice(words, int(rng.integers(1, 60)))) for _ in range(40)]
    alone = {text: model.encode_query(text).tobytes() for text in texts}
    with serving() as server:

        def ask(seed):
            own = np.random.default_rng(seed)
            chosen = [texts[i] for i in own.integers(0, len(texts), own.integers(1, 6))]
            path = list(BODIES)[seed % 4]
            body = server.post(path, BODIES[path](chosen)).json
            rows = {
                "/v1/embeddings": lambda: [row["embedding"] for row in body["data"]],
                "/embed": lambda: body,
                "/v2/embed": lambda: body["embeddings"]["float"],
                "/api/embed": lambda: body["embeddings"],
            }[path]()
            return [(text, np.array(row, np.float32).tobytes()) for text, row in zip(chosen, rows, strict=True)]

        with concurrent.futures.ThreadPoolExecutor(24) as clients:
            answers = [pair for pairs in clients.map(ask, range(80)) for pair in pairs]
        shared = server.metric("moembed_call_texts_sum") / server.metric("moembed_call_texts_count")
    assert len(answers) > 200
    assert shared > 2, "the clients' texts did not share calls, so that nothing was tested"
    assert all(alone[text] == found for text, found in answers)


def test_a_short_query_does_not_wait_for_a_long_request():
    with serving(call_tokens=256) as server, concurrent.futures.ThreadPoolExecutor(1) as other:
        long = other.submit(server.post, "/embed", BODIES["/embed"](["word " * 200] * 20))
        wait_until(lambda: server.metric("moembed_queue_texts") > 10)
        assert server.post("/embed", BODIES["/embed"](["short"])).status == 200
        assert not long.done(), "the query waited for the long request"
        assert long.result().status == 200


def test_shutdown_answers_accepted_requests():
    with concurrent.futures.ThreadPoolExecutor(8) as clients:
        with serving(call_tokens=128) as server:
            body = BODIES["/embed"](["word " * 100] * 10)
            waiting = [clients.submit(server.post, "/embed", body) for _ in range(8)]
            wait_until(lambda: server.metric("moembed_active_requests") >= 8)
        assert [answer.result().status for answer in waiting] == [200] * 8
        with pytest.raises(OSError, match="refused"):
            server.get("/health")


def test_readiness_needs_a_probe_and_no_stuck_call(monkeypatch):
    from moembed.server.engine import service

    with serving() as server:
        assert server.get("/ready").json == {"ready": True, "models": {"moembed": True}}
        monkeypatch.setattr(service, "_STUCK_SECONDS", -1.0)
        answer = server.get("/ready")
        assert (answer.status, answer.json["ready"]) == (503, False)
        assert server.get("/health").json["status"] == "ok"


def test_requests_before_a_model_is_loaded(monkeypatch):
    from moembed.server.engine.service import Service

    real, may_load = Service.load, threading.Event()

    async def later(self):
        await asyncio.to_thread(may_load.wait, 20)
        await real(self)

    monkeypatch.setattr(Service, "load", later)
    with serving(until_ready=False) as server:
        wait_until(lambda: server.get("/health").status == 200)
        assert server.get("/ready").status == 503
        for path, body in BODIES.items():
            answer = server.post(path, body(["x"]))
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert "is loading" in message_of(path, answer)
        may_load.set()
        wait_until(lambda: server.get("/ready").status == 200)
