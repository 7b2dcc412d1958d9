"""More connections than the limit of open files allows: idle ones are closed, without busy-waiting."""

import asyncio
import json
import socket
import sys
import time

import pytest
from processes import Process, running

from moembed.errors import InputError
from moembed.server.process.connection_limit import ConnectionLimit, resolve_max_connections

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of open files")
FILES, FLOOD = 128, 300
BODY = json.dumps({"inputs": "hello", "prompt_name": "query"}).encode()
REQUEST = b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(BODY)


def warnings_of(server: Process) -> list[dict]:
    return [line for line in server.log if line.get("event") == "connections"]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_idle_connections_are_closed_for_new_ones(workers):
    with running("--threads", "1", "--workers", str(workers), files=FILES) as server:
        idle = [server.connect() for _ in range(FLOOD)]
        start, cpu = time.monotonic(), server.cpu_seconds()
        for _ in range(20):
            assert server.get("/health")[0] == 200
        assert time.monotonic() - start < 10
        time.sleep(1)
        assert server.cpu_seconds() - cpu < 0.5 * (time.monotonic() - start), "busy-waiting"
        with server.connect() as busy:
            busy.sendall(REQUEST + BODY)
            assert busy.recv(12) == b"HTTP/1.1 200"
        lines = warnings_of(server)
        assert 1 <= len(lines) <= 3 * workers
        assert "--max-connections" in lines[0]["message"]
        assert [line for line in server.log if "system resource" in str(line)] == []
        for connection in idle:
            connection.close()


def test_busy_connections_are_kept_and_health_checks_pass():
    """More slow bodies than connections: the first continue, the others are rejected at once."""
    with running("--threads", "1", "--max-connections", "20") as server:
        slow = [server.connect() for _ in range(12)]
        for connection in slow:
            connection.sendall(REQUEST)
        time.sleep(0.5)
        idle = [server.connect() for _ in range(FLOOD)]
        assert server.get("/health")[0] == 200
        more = server.connect()
        more.sendall(REQUEST + BODY)
        assert more.recv(12) == b"HTTP/1.1 429"
        for connection in slow:
            connection.sendall(BODY)
        for connection in slow:
            assert connection.recv(12) == b"HTTP/1.1 200"
        for connection in [*slow, *idle, more]:
            connection.close()


@pytest.mark.long
def test_survives_a_lowered_file_limit():
    """Failing accepts, as when the whole system is out of files: one log line per interval, no busy-waiting."""
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        pytest.skip("prlimit is Linux's")
    with running("--threads", "1") as server:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (64, 64))
        cpu, start, flood = server.cpu_seconds(), time.monotonic(), []
        for _ in range(3):
            flood += [server.connect() for _ in range(100)]
            assert server.get("/health")[0] == 200
            time.sleep(0.5)
        assert server.cpu_seconds() - cpu < 0.5 * (time.monotonic() - start), "busy-waiting"
        assert sum(line["not_accepted"] for line in warnings_of(server)) > 0
        assert len(server.log) < 20
        for connection in flood:
            connection.close()


class Fake:
    """Connection with an idle time only; it is removed some time after it is closed, as with asyncio."""

    def __init__(self, idle_since):
        self.idle_since, self.written, self.closed = idle_since, b"", False
        self.transport = self

    def write(self, data):
        self.written += data

    def close(self):
        self.closed = True


def test_longest_idle_is_closed_first_and_busy_never():
    async def scenario():
        connections = ConnectionLimit(10)
        members = [Fake(None if n % 2 else float(n)) for n in range(10)]
        assert all(connections.admit(member) for member in members)
        assert connections.admit(Fake(99.0))
        assert [n for n, member in enumerate(members) if member.closed] == [0]
        connections.remove(members[3])
        assert connections.admit(Fake(100.0))
        assert sum(member.closed for member in members) == 1

        full = ConnectionLimit(2)
        busy = [Fake(None), Fake(None)]
        assert all(full.admit(member) for member in busy)
        late = Fake(1.0)
        assert not full.admit(late)
        assert late.closed
        assert late.written.startswith(b"HTTP/1.1 503 ")
        assert b"connection: close" in late.written
        assert not any(member.closed for member in busy)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("wanted", "files", "expected"), [(None, None, 4096), (None, 20_000, 4096), (None, 1024, 944), (9, 1024, 9)]
)
def test_default_follows_the_limit_of_open_files(wanted, files, expected):
    assert resolve_max_connections(wanted, files) == expected


def test_impossible_limits_are_rejected():
    with pytest.raises(InputError, match=r"max_connections = 1000; the limit of open files is 1024, which leaves 944"):
        resolve_max_connections(1000, 1024)
    with pytest.raises(InputError, match="the limit of open files is 64"):
        resolve_max_connections(None, 64)


def test_connection_with_an_unsent_response_is_not_idle():
    """A response that is written but not completely sent must not be cut off."""
    with running("--threads", "1", "--max-connections", "20") as server, server.connect() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        texts = json.dumps({"inputs": ["a"] * 1100, "prompt_name": "query"}).encode()
        reader.sendall(b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (len(texts), texts))
        answer = reader.recv(1000)
        flood = [server.connect() for _ in range(60)]
        assert server.get("/health")[0] == 200
        while not answer.endswith(b"\r\n0\r\n\r\n") and (part := reader.recv(2**20)):
            answer += part
        assert len(answer) > 5_000_000
        assert answer.endswith(b"]\r\n0\r\n\r\n")
        for connection in flood:
            connection.close()
