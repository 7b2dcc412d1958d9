"""Compressed bodies: decoded within the size limit, or rejected in each API's error format."""

import gzip
import json
import time
import zlib

import pytest

from moembed.server.errors import InvalidRequestError, UnsupportedEncodingError
from moembed.server.http.content_encoding import decompress
from support.serving import BODIES, message_of

MIB = 2**20


@pytest.mark.parametrize("path", BODIES)
def test_every_api_accepts_gzip(server, path):
    body = json.dumps(BODIES[path](["one text", "another"])).encode()
    plain = server.post(path, body)
    assert plain.status == 200
    for coding, content in (
        ("gzip", gzip.compress(body)),
        ("x-gzip", gzip.compress(body)),
        ("GZIP", gzip.compress(body[:9]) + gzip.compress(body[9:])),
        ("deflate", zlib.compress(body)),
        ("identity", body),
    ):
        answer = server.post(path, content, **{"Content-Encoding": coding})
        assert answer.status == 200, answer.body
        assert vectors_of(answer.json) == vectors_of(plain.json)


def vectors_of(answer):
    return answer if isinstance(answer, list) else answer.get("data") or answer["embeddings"]


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    ("coding", "content", "status", "said"),
    [
        ("br", b"...", 415, "'br' is not supported: send gzip, deflate"),
        ("zstd", b"...", 415, "'zstd'"),
        ("gzip, gzip", b"...", 415, "'gzip, gzip'"),
        ("x" * 500, b"...", 415, "xxx..."),
        ("gzip", b'{"input": "a"}', 400, "not valid gzip data"),
        ("gzip", gzip.compress(b"x" * 999)[:-9], 400, "is incomplete"),
        ("gzip", gzip.compress(b"x") + b"rest", 400, "not valid gzip data"),
        ("gzip", b"", 400, "is incomplete"),
        ("gzip", gzip.compress(bytes(100 * MIB)), 413, "more than 16777216 bytes"),
        ("gzip", gzip.compress(b"{"), 400, "not valid JSON"),
    ],
    ids=["br", "zstd", "twice", "long", "plain", "cut", "rest", "empty", "bomb", "no JSON"],
)
def test_undecodable_bodies(server, path, coding, content, status, said):
    answer = server.post(path, content, **{"Content-Encoding": coding})
    assert answer.status in (status, 422 if status == 400 else status)
    assert said in message_of(path, answer)
    if status == 415:
        assert answer.headers["accept-encoding"] == "gzip, deflate, identity"
    assert server.get("/health").status == 200


def test_zip_bomb_is_not_decompressed():
    layers = gzip.compress(bytes(512 * MIB), 1)
    began = time.process_time()
    assert decompress("gzip", layers, MIB) is None
    assert time.process_time() - began < 1, "512 MiB take longer"
    assert decompress("gzip", gzip.compress(b"") * 1000, 10) == b""
    with pytest.raises(InvalidRequestError, match="more than 1024 gzip members"):
        decompress("gzip", gzip.compress(b"") * 10_000, 10)


def test_limit_is_exact():
    for size in (0, 9, 10):
        assert decompress("gzip", gzip.compress(bytes(size)), 10) == bytes(size)
    assert decompress("gzip", gzip.compress(bytes(11)), 10) is None
    assert decompress("gzip", gzip.compress(bytes(6)) * 2, 10) is None
    with pytest.raises(InvalidRequestError):
        decompress("deflate", b"\x00", 10)
    with pytest.raises(UnsupportedEncodingError):
        decompress("compress", b"", 10)


def test_body_of_many_members_is_rejected_quickly(server):
    body = b'{"inputs": "hello", "prompt_name": "query"}'
    few = b"".join(gzip.compress(body[i : i + 1]) for i in range(len(body)))
    assert server.ask("POST", "/embed", few, {"content-encoding": "gzip"}).status == 200
    many = gzip.compress(b"") * 500_000
    start = time.monotonic()
    answer = server.ask("POST", "/embed", many, {"content-encoding": "gzip"})
    assert "more than 1024 gzip members" in answer.json["error"]
    assert time.monotonic() - start < 30
