"""Requests beyond the limits, and invalid ones: errors in the format of each API."""

import json
import socket

import pytest

from support.serving import BODIES, message_of


@pytest.mark.parametrize("path", BODIES)
def test_limits_in_each_error_format(small_server, path):
    body = BODIES[path]
    for texts, statuses, words in (
        (["x"] * 4, (413, 422), "the request has 4 texts; the limit is 3"),
        (["x" * 1001], (413,), "1001 characters"),
        (["x" * 4000], (413,), "more than 3000 bytes"),
    ):
        answer = small_server.post(path, body(texts))
        assert answer.status in statuses
        assert words in message_of(path, answer)
    assert small_server.post(path, body(["x"])).status == 200


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b'{"model": "moembed", "input": "\xff"}',
        b'{"input": "\\ud800", "inputs": "\\ud800", "texts": ["\\ud800"], "model": "moembed"}',
        b"[" * 2000,
        b'{"model": "moembed", "input": {}, "inputs": {}, "texts": {}}',
        b'{"model": 1, "input": 1, "inputs": 1, "texts": 1}',
        b'{"model": "moembed", "input": [1e999]}',
    ],
)
def test_invalid_requests_in_each_error_format(small_server, path, raw):
    answer = small_server.ask("POST", path, raw)
    assert answer.status in (400, 422)
    assert message_of(path, answer)


def test_body_without_content_length_is_limited_too(small_server):
    with socket.create_connection(("127.0.0.1", small_server.port), timeout=10) as raw:
        raw.sendall(b"POST /embed HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
        for part in (b" " * 1000,) * 4:
            raw.sendall(b"%x\r\n%b\r\n" % (len(part), part))
        assert raw.recv(100).startswith(b"HTTP/1.1 413 ")


def test_body_that_does_not_arrive_times_out(small_server):
    with socket.create_connection(("127.0.0.1", small_server.port), timeout=10) as raw:
        raw.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
        assert raw.recv(100).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    ("path", "field"), [("/v1/none", "error"), ("/v2/none", "message"), ("/api/none", "error"), ("/x", "error")]
)
def test_unknown_paths(small_server, path, field):
    answer = small_server.get(path)
    assert answer.status == 404
    assert field in answer.json


def test_methods_not_allowed(small_server):
    answer = small_server.get("/v1/embeddings")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert "does not support GET" in message_of("/v1", answer)


def test_openapi_document_describes_every_endpoint(small_server):
    document = small_server.get("/openapi.json").json
    assert set(BODIES) < set(document["paths"])
    schema = document["paths"]["/v1/embeddings"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    name = schema["$ref"].rpartition("/")[2]
    assert document["components"]["schemas"][name]["required"] == ["input"]
    text = json.dumps(document)
    for reference in {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}:
        assert reference in document["components"]["schemas"]
