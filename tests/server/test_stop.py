"""Shutdown under load: accepted requests get complete and correct responses, then the server exits."""

import asyncio
import itertools
import json
import signal
import socket
import time

import numpy as np
import pytest
import uvicorn
from load import Connection, request
from processes import Process

from moembed.server.process.protocol import HttpProtocol
from moembed.server.process.uvicorn_server import Server
from support.serving import wait_until

CLIENTS = 32
TEXTS = [f"the train of platform {number} leaves at noon" for number in range(50)]


@pytest.fixture(scope="module")
def vectors(model):
    return [model.encode_query(text).tobytes() for text in TEXTS]


@pytest.fixture
def started():
    processes = []

    def start(*flags):
        processes.append(Process("--threads", "1", *flags, keep_log=True))
        processes[-1].wait_until_ready()
        return processes[-1]

    yield start
    for process in processes:
        process.kill()


async def busy(address, *, again):
    """Run clients until the server is gone; return (status, vector's bytes, first of its connection) by request number.

    Args:
        again: whether a client uses its connection for more than one request.
    """
    answers, numbers = {}, itertools.count()

    async def client():
        connection, first = await Connection.open(address), True
        try:
            while True:
                number = next(numbers)
                body = json.dumps({"inputs": TEXTS[number % len(TEXTS)], "prompt_name": "query"}).encode()
                extra = {} if again else {"connection": "close"}
                status, _, found = await connection.ask(request("/embed", body, x_request_id=str(number), **extra))
                vector = np.array(json.loads(found)[0], np.float32).tobytes() if status == 200 else b""
                answers[number] = status, vector, first
                first = False
                if status != 200 or connection.closing or not again:
                    connection.close()
                    connection, first = await Connection.open(address), True
        except OSError:  # the server no longer listens
            connection.close()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return answers


async def stopped_while_busy(process, number, *, again):
    clients = asyncio.create_task(busy(process.address, again=again))
    await asyncio.sleep(0.5)
    process.signal(number)
    return await asyncio.wait_for(clients, 30)


@pytest.mark.parametrize("again", [True, False], ids=["kept alive", "one connection a request"])
@pytest.mark.parametrize("flags", [(), ("--workers", "2"), ("--unix-socket",)], ids=["tcp", "workers", "unix"])
def test_no_accepted_request_is_lost(flags, again, started, vectors, tmp_path):
    process = started(*flags, *([str(tmp_path / "s")] if "--unix-socket" in flags else []))
    answers = asyncio.run(stopped_while_busy(process, signal.SIGTERM, again=again))
    assert process.wait(20) == 0
    logged = {int(line["id"]): line["status"] for line in process.log if line.get("path") == "/embed"}
    answered = {number for number, (status, *_) in answers.items() if status == 200}
    assert set(logged.values()) == {200}
    assert answered == set(logged)
    assert all(answers[number][1] == vectors[number % len(TEXTS)] for number in answered)
    # A connection that the kernel had completed and the server not yet accepted is reset before anything is read.
    assert all(first for status, _, first in answers.values() if status != 200)
    assert len(answers) - len(answered) <= CLIENTS


@pytest.mark.parametrize("flags", [(), ("--workers", "2")], ids=["one", "workers"])
def test_drain_timeout_is_kept(flags, started):
    process = started("--drain-timeout", "1", *flags)
    connection = process.connect()
    body = json.dumps({"inputs": ["word " * 300] * 800, "prompt_name": "document"}).encode()
    connection.sendall(request("/embed", body))
    wait_until(lambda: process.metric("moembed_queue_texts") > 10)
    process.signal(signal.SIGTERM)
    process.signal(signal.SIGTERM)
    assert process.wait(15) == 0
    assert connection.recv(100)[9:12] == b"503"


def test_first_sigint_drains_and_second_does_not(started):
    for flags in (("--workers", "2"), ()):
        process = started(*flags)
        process.signal(signal.SIGINT)
        assert process.wait(15) == 130
    process = started()
    connection = process.connect()
    connection.sendall(
        request("/embed", json.dumps({"inputs": ["word " * 300] * 800, "prompt_name": "query"}).encode())
    )
    wait_until(lambda: process.metric("moembed_queue_texts") > 10)
    for _ in range(2):
        process.signal(signal.SIGINT)
        time.sleep(0.3)
    assert process.wait(15) == 130


@pytest.mark.parametrize("request_sent", [True, False])
def test_a_connection_accepted_while_the_server_stops_is_ended(request_sent):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def scenario():
        config = uvicorn.Config(app, log_config=None, lifespan="off")
        config.load()
        server = Server(config)
        server.lifespan, server.servers = config.lifespan_class(config), []
        await server.shutdown()  # while no connection is known
        ours, theirs = socket.socketpair()
        protocol = HttpProtocol(config=config, server_state=server.server_state, app_state={}, timeout=20)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, theirs)
        reader, writer = await asyncio.open_connection(sock=ours)
        if request_sent:
            writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return answer

    answer = asyncio.run(scenario())
    assert answer.endswith(b"ok") == request_sent
    assert (b"connection: close" in answer) == request_sent
