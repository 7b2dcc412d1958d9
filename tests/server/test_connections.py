"""Hostile and broken clients: whatever they send, no 5xx, no hanging, no leaks."""

import contextlib
import json
import resource
import socket
import sys
import time
import types

import numpy as np
import pytest
from processes import running

from moembed.server.process.run import _config
from moembed.server.settings import Settings
from support.serving import serving, wait_until

GOOD = json.dumps({"inputs": "hello", "prompt_name": "query"}).encode()
DEEP = 50_000


def post(body, *lines, path="/embed", length=None):
    """Return the bytes of a request; `length` may be wrong."""
    head = [
        f"POST {path} HTTP/1.1",
        "host: localhost",
        f"content-length: {len(body) if length is None else length}",
        *lines,
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def embed(inputs, **fields):
    return b'{"prompt_name": "query", "inputs": %b%b}' % (
        inputs,
        b"".join(b', "%b": %b' % (name.encode(), value) for name, value in fields.items()),
    )


BODIES = {
    "not UTF-8": embed(b'"\xff\xfe"'),
    "overlong UTF-8": embed(b'"\xc0\xaf"'),
    "UTF-8 that is cut": embed(b'"\xe2\x82"'),
    "surrogate as UTF-8": embed(b'"\xed\xa0\x80"'),
    "lone surrogate": embed(b'"\\ud800"'),
    "surrogates in the wrong order": embed(b'"\\udc00\\ud800"'),
    "lone surrogate as a name": embed(b'"x"', **{"\\ud800": b"1"}),
    "UTF-16": embed(b'"x"').decode().encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + embed(b'"x"'),
    "NaN": embed(b'"x"', dimensions=b"NaN"),
    "infinity": embed(b'"x"', dimensions=b"-Infinity"),
    "1e400": embed(b'"x"', dimensions=b"1e400"),
    "a number of 10,000 digits": embed(b'"x"', dimensions=b"1" + b"0" * 10_000),
    "a fraction": embed(b'"x"', dimensions=b"1.5"),
    "less than nothing": embed(b'"x"', dimensions=b"-1"),
    "2**63": embed(b'"x"', dimensions=b"9223372036854775808"),
    "arrays in arrays": embed(b"[" * DEEP + b"]" * DEEP),
    "objects in objects": embed(b'"x"', y=b'{"a":' * DEEP + b"1" + b"}" * DEEP),
    "an array without end": embed(b"[" * DEEP),
    "a text without end": embed(b'"' + b"x" * 1000),
    "a comment": b"/* hello */" + embed(b'"x"'),
    "two values": embed(b'"x"') * 2,
    "nothing": b"",
    "zeros": b"\0" * 100,
    "null": embed(b"null"),
    "texts and null": embed(b'["x", null]'),
    "an object for a text": embed(b'{"__class__": "x", "$ref": "#"}'),
    "a task of 100,000 characters": b'{"inputs": "x", "prompt_name": "%b"}' % (b"y" * 100_000),
    "a task with line breaks": b'{"inputs": "x", "prompt_name": "q\\r\\nx-evil: 1"}',
    "form": b"inputs=x&prompt_name=query",
}
ACCEPTED = {
    "a NUL in a text": embed(b'"\\u0000"'),
    "names twice": b'{"inputs": "y", "prompt_name": "query", "inputs": "x"}',
    "a text of marks": embed(b'"' + "e\u0301\u0302\u0303".encode() * 100 + b'"'),
    "a text of special tokens": embed(b'"<s></s><pad><unk><mask>"'),
    "space around": b" \r\n\t" + embed(b'"x"') + b"\n\n",
    "a pair of surrogates": embed(b'"\\ud83d\\udc4d"'),
}
# Bytes sent, and the statuses of the responses.
HEADS = {
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20 + b"\r\n\r\n", (400,)),
    "no version": (b"GET /health\r\n\r\n", (400,)),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400,)),
    "HTTP/9.9": (b"GET /health HTTP/9.9\r\nhost: localhost\r\n\r\n", (400,)),
    "HTTP/0.9": (b"GET /health\r\n\r\n", (400,)),
    "two hosts": (b"GET /health HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n", (400,)),
    "no host": (b"GET /health HTTP/1.1\r\n\r\n", (400,)),
    "a header that is folded": (b"GET /health HTTP/1.1\r\nhost: localhost\r\na: b\r\n\0c\r\n\r\n", (400,)),
    "two lengths": (post(GOOD, "content-length: 3"), (400,)),
    "a length that is no number": (post(GOOD, length="ten"), (400,)),
    "a negative length": (post(GOOD, length=-5), (400,)),
    "a length in hexadecimal": (post(GOOD, length="0x10"), (400,)),
    "a length of 10,000 digits": (post(GOOD, length="9" * 10_000), (400,)),
    "a length of 2**64": (post(GOOD, length=2**64), (400,)),
    "length and chunks": (post(b"5\r\nhello\r\n0\r\n\r\n", "transfer-encoding: chunked", length=3), (400,)),
    "an encoding of our own": (post(GOOD, "transfer-encoding: gzip"), (400,)),
    "a chunk of no size": (
        b"POST /embed HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nx\r\n",
        (400,),
    ),
    "a chunk of 2**70": (
        b"POST /embed HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n" + b"f" * 18 + b"\r\nx",
        (400,),
    ),
    "a method of our own": (b"EMBED /embed HTTP/1.1\r\nhost: localhost\r\n\r\n", (400,)),
    "DELETE": (b"DELETE /embed HTTP/1.1\r\nhost: localhost\r\n\r\n", (405,)),
    "CONNECT": (b"CONNECT example.com:443 HTTP/1.1\r\nhost: localhost\r\n\r\n", (400,)),
    "a path upwards": (b"GET /../../etc/passwd HTTP/1.1\r\nhost: localhost\r\n\r\n", (404,)),
    "a path that is not UTF-8": (b"GET /%ff%fe%00 HTTP/1.1\r\nhost: localhost\r\n\r\n", (404,)),
    "an address of another": (b"GET http://example.com/latest HTTP/1.1\r\nhost: example.com\r\n\r\n", (403,)),
    "an upgrade": (b"GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", (404,)),
    "wrong type of content": (post(b"<a/>", "content-type: application/xml"), (422,)),
}
LAST_CHUNK = b"0\r\n\r\n"
BOMBS = {
    "100,000 headers": b"GET /health HTTP/1.1\r\nhost: localhost\r\n" + b"a: b\r\n" * 100_000 + b"\r\n",
    "a header of a megabyte": b"GET /health HTTP/1.1\r\nhost: localhost\r\na: " + b"b" * 2**20 + b"\r\n\r\n",
    "a path of a megabyte": b"GET /" + b"x" * 2**20 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
}


@pytest.fixture(scope="module")
def server(model):
    with serving(body_timeout=0.5, max_body_bytes=500_000, max_characters=200_000) as started:
        started.vector = model.encode_query("hello")
        yield started


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(request):
    if "server" not in request.fixturenames:
        yield
        return
    server = request.getfixturevalue("server")
    yield
    found = server.ask("POST", "/embed", GOOD)
    assert np.array(found.json[0], np.float32).tobytes() == server.vector.tobytes()
    # The request for the metrics counts too.
    wait_until(lambda: server.metric("moembed_active_requests") == 1, 5)
    assert server.metric("moembed_queue_texts") == server.metric("moembed_queue_tokens") == 0


def exchanged(server, raw, *, half_close=False, quiet=1.0):
    """Return everything received until the server closes the connection or is silent for a while."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=3) as connection:
        try:
            connection.sendall(raw)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            return received(connection, quiet)
        except (ConnectionResetError, BrokenPipeError):
            return b""


def received(connection, quiet):
    found = b""
    try:
        while part := connection.recv(2**16):
            found += part
            connection.settimeout(quiet)
    except TimeoutError:
        return found
    return found


def statuses(raw):
    return [int(part[:3]) for part in raw.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize("name", BODIES)
def test_invalid_bodies(server, name):
    answer = server.ask("POST", "/embed", BODIES[name])
    assert answer.status in (400, 413, 422)
    assert answer.json["error"]
    assert "x-evil" not in answer.headers


@pytest.mark.parametrize("name", ACCEPTED)
def test_unusual_valid_bodies(server, name):
    answer = server.ask("POST", "/embed", ACCEPTED[name])
    assert answer.status == 200
    assert np.isfinite(answer.json).all()


@pytest.mark.parametrize("name", HEADS)
def test_heads_of_all_kinds(server, name):
    raw, expected = HEADS[name]
    assert statuses(exchanged(server, raw, quiet=0.15)) == list(expected)


@pytest.mark.parametrize("name", BOMBS)
def test_oversized_heads_are_rejected(server, name):
    # The response may be lost: the server closes the connection while there is more to read.
    assert statuses(exchanged(server, BOMBS[name])) in ([], [400])


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data; boundary=x", "nonsense", ""])
def test_content_type_is_ignored(server, kind):
    assert server.ask("POST", "/embed", GOOD, {"content-type": kind}).status == 200


def test_pipelined_requests_are_answered_in_order(server):
    other = json.dumps({"inputs": "there", "prompt_name": "query"}).encode()
    raw = exchanged(server, post(GOOD) + post(other) + post(b"{") + post(GOOD))
    assert statuses(raw) == [200, 200, 422, 200]
    first, second, _, fourth = (part.partition(b"\r\n\r\n")[2] for part in raw.split(b"HTTP/1.1 ")[1:])
    assert first == fourth != second


def test_a_thousand_pipelined_requests(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n" * 999 + post(GOOD, "connection: close"))
        assert statuses(received(connection, 20)) == [200] * 1000


@pytest.mark.parametrize("raw", [b"", post(GOOD)[:10], post(GOOD)[:-5], post(GOOD, length=10**5)], ids=len)
@pytest.mark.parametrize("half_close", [False, True])
def test_truncated_requests(server, raw, half_close):
    assert all(status == 408 for status in statuses(exchanged(server, raw, half_close=half_close)))


def test_bytes_after_a_short_body_are_not_a_request(server):
    raw = exchanged(server, post(GOOD + b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n", length=len(GOOD)))
    assert statuses(raw) == [200, 200], "it is one, by HTTP's rules"
    assert statuses(exchanged(server, post(GOOD, length=3) + post(GOOD)))[0] in (400, 422)


def is_cut_off(connection, part, seconds=20):
    """Return whether the server closes the connection of a client that keeps sending."""
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            connection.sendall(part)
            time.sleep(0.05)
    except (ConnectionResetError, BrokenPipeError):
        return True
    return False


def test_endless_chunks(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"POST /embed HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
        assert is_cut_off(connection, b"1\r\n \r\n")


def test_a_hundred_clients_that_disconnect(server):
    body = embed(json.dumps(["some words of a text"] * 50).encode())
    for cut in range(100):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(post(body)[: None if cut % 2 else 10 * cut])
            if cut % 3:  # a reset instead of an orderly close
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def ended_after(connection, seconds):
    connection.settimeout(seconds)
    start = time.monotonic()
    try:
        while connection.recv(2**20):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - start


def unchunked(raw: bytes) -> bytes:
    """Decode a chunked body."""
    parts, at = [], 0
    while size := int(raw[at : raw.index(b"\r\n", at)], 16):
        start = raw.index(b"\r\n", at) + 2
        parts.append(raw[start : start + size])
        at = start + size + 2
    assert raw[at:] == LAST_CHUNK
    return b"".join(parts)


def test_slow_clients_time_out():
    """Endless heads, silent connections and unread responses time out, in a real process."""
    with running("--body-timeout", "1", "--threads", "1", keep_log=True) as process:
        silent, trickling = process.connect(), process.connect()
        trickling.sendall(b"POST /embed HTT")
        assert is_cut_off(trickling, b"x")
        assert ended_after(silent, 20) < 20
        # More than the system buffers for a client that does not read.
        greedy = process.connect()
        greedy.sendall(post(embed(json.dumps(["word " * 250] * 8).encode()), path="/embed_all"))
        wait_until(lambda: any(line.get("path") == "/embed_all" for line in process.log), 30)
        (line,) = (line for line in process.log if line.get("path") == "/embed_all")
        assert line["status"] == 200
        time.sleep(3)
        greedy.settimeout(20)
        got = b""
        try:
            while part := greedy.recv(2**20):
                got = part if len(part) > 16 else got + part
        except ConnectionResetError:
            pass
        assert got, "no response"
        assert not got.endswith(LAST_CHUNK), "the server kept a response for a client that did not read"
        assert process.get("/health")[0] == 200


def test_slowly_read_response_is_complete():
    with running("--body-timeout", "2", "--threads", "1") as process:
        slow = process.connect()
        slow.sendall(post(embed(json.dumps(["word " * 250] * 8).encode()), "connection: close", path="/embed_all"))
        parts = [slow.recv(1)]
        start = time.monotonic()
        while part := slow.recv(2**16):
            parts.append(part)
            time.sleep(0.015)
        assert time.monotonic() - start > 2, "the client was not slow"
        assert len(json.loads(unchunked(b"".join(parts).partition(b"\r\n\r\n")[2]))) == 8


def test_recovers_from_more_connections_than_files():
    with running("--body-timeout", "1", "--threads", "1") as process:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (64, 64))
        silent = [process.connect() for _ in range(100)]
        assert process.get("/ready")[0] == 200
        for connection in silent:
            connection.close()


def test_a_client_of_http_1_0_keeps_its_connection_if_it_asks(server):
    request = b"GET /health HTTP/1.0\r\n%b\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=3) as raw, raw.makefile("rb") as answers:
        for _ in range(2):
            raw.sendall(request % b"connection: keep-alive\r\n")
            assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
            headers = dict(line.rstrip().lower().split(b": ", 1) for line in iter(answers.readline, b"\r\n"))
            assert headers[b"connection"] == b"keep-alive"
            answers.read(int(headers[b"content-length"]))
        raw.sendall(request % b"")
        assert b"connection: close" in answers.read().lower()


def test_the_event_loop_is_asyncios_where_uvloop_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvloop", types.ModuleType("uvloop"))
    new_loop = _config(Settings(), lambda: None).get_loop_factory()
    assert new_loop is not None
    with contextlib.closing(new_loop()) as loop:
        assert type(loop).__module__.partition(".")[0] == "asyncio"
