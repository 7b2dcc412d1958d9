"""A server that has answered thousands of requests needs no more memory than one that has answered some."""

import http.client
import json
import random
import re
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from support.serving import BODIES, wait_until

pytestmark = [pytest.mark.long, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]
GROWTH = 8  # MB
REFUSED = (b"{", b'{"inputs": 5}', json.dumps({"inputs": "word " * 3000}).encode(), b"\xff")


def memory(pid):
    """Resident memory of a process in MB."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def ready(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=60) as answer:  # its errors are OSErrors
        return answer.status == 200


def free_port():
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]


def test_memory_over_many_requests(count):
    port = free_port()
    command = [sys.executable, "-m", "moembed", "serve", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: ready(port), 60)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        rng, measured = random.Random(17), []
        for number in range(count):
            path = rng.choice(tuple(BODIES))
            if rng.random() < 0.1:
                path, body = "/embed", rng.choice(REFUSED)
            else:
                texts = [f"{number} {'word ' * rng.randint(0, 60)}" for _ in range(rng.randint(1, 4))]
                body = json.dumps(BODIES[path](texts)).encode()
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status in (200, 400, 413, 422), (path, answer.status)
            if number % max(count // 10, 1) == 0:
                measured.append(round(memory(server.pid), 1))
        connection.close()
        measured.append(round(memory(server.pid), 1))
        print(f"{count} requests, MB: {measured}")
        # The first tenth fills pools and caches.
        assert measured[-1] - measured[min(2, len(measured) - 1)] < GROWTH, measured
    finally:
        server.terminate()
        server.wait(30)
