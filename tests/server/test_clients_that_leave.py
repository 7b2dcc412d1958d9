"""Disconnected clients: their waiting rows are dropped uncomputed, those of others are not."""

import concurrent.futures
import http.client
import json
import socket

import numpy as np
import openai
import pytest

from support.serving import BODIES, serving, wait_until

LONG = ["word " * 200] * 60


def leaves_as_socket(server):
    body = json.dumps(BODIES["/embed"](LONG)).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        head = b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body)
        connection.sendall(head + body)
        wait_until(lambda: server.metric("moembed_queue_texts") > 40)


def resets_as_socket(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("POST", "/v2/embed", json.dumps(BODIES["/v2/embed"](LONG)))
    wait_until(lambda: server.metric("moembed_queue_texts") > 40)
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


def gives_up_as_openai(server):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=0.3)
    with pytest.raises(openai.APITimeoutError):
        client.embeddings.create(model="moembed:document", input=LONG)


@pytest.mark.parametrize("leaves", [leaves_as_socket, resets_as_socket, gives_up_as_openai])
def test_waiting_rows_of_a_disconnected_client_are_dropped(leaves):
    with serving(call_tokens=64, threads=1) as server:
        before = server.metric("moembed_call_texts_sum")
        leaves(server)
        wait_until(lambda: server.metric("moembed_requests_total", status="499") == 1)
        wait_until(lambda: server.metric("moembed_queue_texts") == server.metric("moembed_queue_tokens") == 0)
        assert server.post("/embed", BODIES["/embed"](["after"])).status == 200, "the call in progress is finished"
        computed = server.metric("moembed_call_texts_sum") - before - 1
        dropped = server.metric("moembed_dropped_texts_total", model="moembed")
        assert computed + dropped == len(LONG)
        assert dropped > len(LONG) / 2, "most rows were computed for a disconnected client"
        assert server.metric("moembed_dropped_tokens_total") > 200 * dropped
        assert server.metric("moembed_texts_total") == 1


def test_other_requests_in_the_call_are_answered(model):
    texts = [f"platform {number}" for number in range(40)]
    wanted = model.encode_query(texts)
    with serving(call_tokens=1024, threads=1) as server, concurrent.futures.ThreadPoolExecutor(1) as other:
        body = json.dumps(BODIES["/embed"](["word " * 40] * 400)).encode()
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(
                b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body) + body
            )
            wait_until(lambda: server.metric("moembed_queue_texts") > 100)
            answer = other.submit(server.post, "/embed", BODIES["/embed"](texts))
            wait_until(lambda: answer.done() or server.metric("moembed_active_requests") > 2)
        found = np.array(answer.result().json, np.float32)
        wait_until(lambda: server.metric("moembed_dropped_texts_total") > 0)
    assert found.tobytes() == wanted.tobytes()
