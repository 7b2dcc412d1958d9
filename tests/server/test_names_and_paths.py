"""Model names and base URLs: listed names work, and so do base URLs of all common spellings."""

import socket
import urllib.parse

import numpy as np
import ollama
import openai
import pytest

from moembed import Embedder
from moembed.server.engine.tasks import task_suffixes
from moembed.server.http.url_paths import allowed_methods, canonical_path, normalize_path
from support.serving import message_of, serving

KEY = {"authorization": "Bearer k"}


@pytest.fixture(scope="module")
def locked():
    with serving(api_keys=("k",)) as running:
        yield running


def exchange(server, head: bytes, body: bytes = b"") -> bytes:
    """Send raw bytes on a new connection; return everything received."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
        raw.sendall(head + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        return b"".join(iter(lambda: raw.recv(65536), b""))


@pytest.mark.parametrize("task", [None, "document", "none"])
def test_every_listed_name_works(task):
    with serving(task=task) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="k", max_retries=0)
        listed = [model.id for model in client.models.list()]
        assert listed == ([] if task is None else ["moembed"]) + ["moembed:query", "moembed:document"]
        for name in listed:
            assert client.embeddings.create(model=name, input="hello").model == name
            assert client.models.retrieve(name).id == name
        tags = [model.model for model in ollama.Client(host=server.url).list().models]
        assert tags == ([] if task is None else ["moembed:latest"]) + ["moembed:query", "moembed:document"]
        for name in tags:
            assert len(ollama.Client(host=server.url).embed(name, "hello").embeddings) == 1
            assert server.post("/api/show", {"model": name}).status == 200


def test_plain_name_works_if_the_request_names_a_task(server, model):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="k", max_retries=0)
    assert client.models.retrieve("moembed").id == "moembed"
    with pytest.raises(openai.BadRequestError, match="moembed serve --task"):
        client.embeddings.create(model="moembed", input="hello")
    answer = client.embeddings.create(model="moembed", input="hello", extra_body={"input_type": "query"})
    assert np.array(answer.data[0].embedding, np.float32).tobytes() == model.encode_query("hello").tobytes()


def test_model_ids_with_slashes_and_colons():
    names = ("nomic-ai/small", "a b:1", "ü")
    with serving(model=tuple(f"{name}=built-in" for name in names)) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="k", max_retries=0)
        for name in names:
            for asked in (name, f"{name}:query", f"{name}:latest"):
                assert client.models.retrieve(asked).id == asked
                for safe in ("", "/", "/:"):
                    answer = server.get(f"/v1/models/{urllib.parse.quote(asked, safe=safe)}")
                    assert (answer.status, answer.json["id"]) == (200, asked)
        for missing in ("nonsense", "small", "a b:1:nonsense"):
            with pytest.raises(openai.NotFoundError) as raised:
                client.models.retrieve(missing)
            assert (raised.value.code, raised.value.param) == ("model_not_found", "model")
            assert repr(missing) in str(raised.value)


MEANT = {
    "/v1/embeddings": "/embeddings /embeddings/ /v1/embeddings/ //v1/embeddings /v1//embeddings /v1/v1/embeddings "
    "/api/v1/embeddings /v2/embeddings /v1/embeddings/embeddings /v1/embeddings/v1/embeddings ///embeddings// "
    "http://localhost/v1/embeddings HTTPS://127.0.0.1:8080//embeddings/",
    "/api/embed": "//api/embed /api/api/embed /v1/api/embed /api/embed/ /api/embed/api/embed http://localhost/api/embed",
    "/embed": "//embed /embed/ http://[::1]:80/embed",
    "/v2/embed": "/v2/v2/embed /v1/v2/embed /v2/embed/",
    "/v1/embed": "/v1/v1/embed /v1/embed/",
}
BODIES = {
    "/v1/embeddings": {"input": "hello", "model": "moembed:query"},
    "/api/embed": {"input": "hello", "model": "moembed:query"},
    "/embed": {"inputs": "hello", "prompt_name": "query"},
    "/v2/embed": {"texts": ["hello"], "model": "moembed:query"},
    "/v1/embed": {"texts": ["hello"], "model": "moembed:query"},
}


@pytest.mark.parametrize("endpoint", MEANT)
def test_base_urls_of_all_spellings(locked, endpoint):
    wanted = locked.post(endpoint, BODIES[endpoint], **KEY)
    assert wanted.status == 200
    keys = set(wanted.json) if isinstance(wanted.json, dict) else None
    for path in MEANT[endpoint].split():
        answer = locked.post(path, BODIES[endpoint], **KEY)
        assert answer.status == 200, path
        assert (set(answer.json) if isinstance(answer.json, dict) else None) == keys
        assert locked.post(path, BODIES[endpoint]).status == 401, "the key is required"
        wrong = locked.ask("DELETE", path, None, KEY)
        assert (wrong.status, wrong.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("base", ["/", "", "/v1", "/v1/", "//v1", "/v1/v1", "/api/v1", "/v1/embeddings"])
def test_openai_client_with_each_base_url(server, base):
    client = openai.OpenAI(base_url=server.url + base, api_key="k", max_retries=0)
    assert len(client.embeddings.create(model="moembed:query", input="hello").data) == 1


@pytest.mark.parametrize("base", ["", "/", "/v1", "/api", "/api/", "//"])
def test_ollama_client_with_each_host(server, base):
    client = ollama.Client(host=server.url + base)
    assert len(client.embed("moembed:query", "hello").embeddings) == 1


def test_no_redirects(locked):
    for path in ("/v1/embeddings/", "/v1/models/", "/static/", "/health/", "//evil.example/", "/v1/none/"):
        for method in ("GET", "POST", "HEAD"):
            answer = locked.ask(method, path, None, KEY)
            assert not 300 <= answer.status < 400
            assert "location" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "/health/v1/embeddings",
        "/health/../metrics",
        "/static/../metrics",
        "/static/page.js/v1/embeddings",
        "/%2fmetrics",
        "/health%2f..%2fmetrics",
        "/v1/metrics",
        "//metrics",
        "/health;/v1/models",
        "/ready//v1/models",
        "http://localhost/metrics",
        "http://localhost/health@x/metrics",
        "/v1/models/health",
        "/v1/models/../../health",
    ],
)
def test_no_spelling_of_a_path_bypasses_the_key(locked, path):
    for method in ("GET", "POST", "HEAD"):
        assert locked.ask(method, path).status == 401


def test_public_paths_are_public_in_every_spelling(locked):
    for path in (
        "/health",
        "//health",
        "/health/",
        "/v1/health",
        "http://localhost/health",
        "/ready",
        "/",
        "//",
        "http://localhost",
    ):
        assert locked.get(path).status == 200


def test_endpoint_paths_are_canonical(server):
    for path in server.get("/openapi.json").json["paths"]:
        assert canonical_path(path) == path
        assert allowed_methods(path)


def test_absolute_target_determines_the_host(locked):
    answer = exchange(
        locked, b"GET http://localhost/v1/models HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer k\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert exchange(locked, b"GET http://localhost/v1/models HTTP/1.1\r\nhost: localhost\r\n").startswith(
        b"HTTP/1.1 401 "
    )
    for target in (b"*", b"x:80"):
        answer = exchange(locked, b"GET %b HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer k\r\n" % target)
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 "))
    for target in (b"ftp://localhost/v1/models", b"http://localhost/nonsense"):
        answer = exchange(locked, b"GET %b HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer k\r\n" % target)
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert b'{"error":' in answer


def test_host_of_an_absolute_target_replaces_the_header():
    scope = {"path": "HTTP://h:1/v1//models", "headers": [(b"host", b"other"), (b"accept", b"*/*")]}
    normalize_path(scope)
    assert scope == {"path": "/v1/models", "headers": [(b"host", b"h:1"), (b"accept", b"*/*")]}


@pytest.mark.parametrize(
    ("path", "api", "hint"),
    [
        ("/openai/v1/embeddings", "/v1", "did you mean /v1/embeddings?"),
        ("/openai/deployments/x/embeddings", "/v1", "did you mean /v1/embeddings?"),
        ("/v3/models", "/v1", "did you mean /v1/models?"),
        ("/v1/chat/completions", "/v1", "no endpoint at /v1/chat/completions"),
        ("/v1", "/v1", "no endpoint at /v1"),
        ("/api/generate", "/api", "no endpoint at /api/generate"),
        ("/ollama/api/embed", "/api", "did you mean /api/embed?"),
        ("/v2/rerank", "/v2", "no endpoint at /v2/rerank"),
        ("/tei/embed", "/embed", "did you mean /embed?"),
    ],
)
def test_unknown_paths_in_each_error_format(server, path, api, hint):
    for method in ("GET", "POST"):
        answer = server.ask(method, path)
        assert answer.status == 404
        assert hint in message_of(api, answer)


@pytest.mark.parametrize(
    ("path", "api", "allowed"),
    [
        ("/v1/models", "/v1", "GET, HEAD"),
        ("/v1/models/moembed", "/v1", "GET, HEAD"),
        ("/embeddings/", "/v1", "POST"),
        ("/api/tags", "/api", "GET, HEAD"),
        ("/v1/embed", "/v2", "POST"),
        ("/", "/embed", "GET, HEAD, POST"),
    ],
)
def test_wrong_methods_in_each_error_format(server, path, api, allowed):
    for method in ("OPTIONS", "DELETE", "PATCH"):
        answer = server.ask(method, path)
        assert (answer.status, answer.headers["allow"]) == (405, allowed)
        assert f"does not support {method}; use {allowed}" in message_of(api, answer)
    if "HEAD" in allowed:
        answer = server.ask("HEAD", path)
        assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    ("prompts", "listed"),
    [
        ({"query": "q: ", "passage": "p: "}, ["query", "document"]),
        (
            {"query": "q: ", "passage": "p: ", "Classification": "c: ", "STS": "c: "},
            ["query", "document", "Classification"],
        ),
        ({"query": "same: ", "document": "same: "}, ["query"]),
        ({"Clustering": "c: "}, ["Clustering"]),
        ({}, []),
    ],
)
def test_each_prompt_of_the_model_has_a_suffix(prompts, listed):
    embedder = Embedder.from_pretrained()
    embedder.prompts = prompts
    assert task_suffixes(embedder, None) == listed
    assert task_suffixes(embedder, "none") == ["", *listed]
