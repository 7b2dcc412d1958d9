"""Server of a model that has to be converted: it listens, says how far it is, and then serves."""

import http.client
import json
import re
import signal
import sys
import threading
import time

import pytest

from support.hub_server import Fault, Hub
from support.pulls import WEIGHTS, Place, sent
from support.serving import wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals of POSIX")
KEPT = 5_000_000


@pytest.fixture
def stalled(checkpoint, template, tmp_path):
    """Home, and a hub that sends half of the weights and then nothing until it is released."""
    with Hub() as hub:
        hub.add("acme/ft", checkpoint)
        hub.faults[WEIGHTS] = Fault("stall", keep=KEPT, times=1)
        yield Place(tmp_path, hub, template=template)


class Serving:
    """Server in a process of its own."""

    def __init__(self, place, *flags):
        self.process = place.start("serve", "--model", "q=acme/ft", "--port", "0", "--threads", "1", *flags)
        self.lines = []
        threading.Thread(target=self._read, daemon=True).start()
        wait_until(lambda: self.port is not None or self.process.poll() is not None, 60)

    def _read(self):
        self.lines.extend(iter(self.process.stderr.readline, ""))

    @property
    def port(self):
        found = re.search(r"'127\.0\.0\.1', (\d+)", "".join(self.lines))
        return int(found[1]) if found else None

    def ask(self, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None)
        response = connection.getresponse()
        answer = response.status, json.loads(response.read())
        connection.close()
        return answer

    def events(self, name):
        return [json.loads(line) for line in self.lines if line.startswith("{") and f'"event": "{name}"' in line]


@pytest.fixture
def serve():
    running = []

    def start(*arguments):
        running.append(Serving(*arguments))
        return running[-1]

    yield start
    for server in running:
        server.process.kill()
        server.process.wait()


@pytest.mark.parametrize("workers", [1, pytest.param(4, marks=pytest.mark.long)])
def test_it_listens_while_it_converts(stalled, serve, workers):
    """N37: a probe gets its answer; N33: several workers convert once."""
    server = serve(stalled, "--workers", str(workers))

    def progress():
        status, ready = server.ask("/ready")
        assert status == 503
        assert ready["ready"] is False
        assert ready["models"] == {"q": False}
        return ready.get("converting", {}).get("q", {})

    wait_until(lambda: progress().get("done") == KEPT, 60)
    found = progress()
    assert found["step"] == "downloading model.safetensors of acme/ft"
    assert found["total"] > 2 * KEPT
    assert server.ask("/health")[0] == 200
    status, refused = server.ask("/v1/embeddings", {"model": "q:query", "input": "x"})
    assert status == 503
    assert "q is being converted (downloading model.safetensors of acme/ft): try again later" in json.dumps(refused)
    stalled.hub.released.set()
    wait_until(lambda: server.ask("/ready")[0] == 200, 150)
    body = {"model": "q:query", "input": "x"}
    # Each worker loads the model by itself.
    wait_until(lambda: all(server.ask("/v1/embeddings", body)[0] == 200 for _ in range(5 * workers)), 60)
    assert "converting" not in server.ask("/ready")[1]
    assert sent(stalled.hub) == 2, "the stalled response and the rest, by one process"
    steps = [event["step"] for event in server.events("converting")]
    assert any("downloading" in step for step in steps)
    assert len(list((stalled.data / "models" / "acme--ft").glob("*-int8-*"))) == 1


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_conversion(stalled, serve, number):
    """N09: no process goes on, and the next one goes on with the download."""
    server = serve(stalled)
    wait_until(lambda: server.ask("/ready")[1].get("converting", {}).get("q", {}).get("done") == KEPT, 60)
    started = time.monotonic()
    server.process.send_signal(number)
    code = server.process.wait(20)
    assert time.monotonic() - started < 4
    assert code == (0 if number == signal.SIGTERM else 130)
    assert "Traceback" not in "".join(server.lines)
    (partial,) = stalled.root.rglob(f"{WEIGHTS}.part")
    assert partial.stat().st_size == KEPT
    lock = partial.parents[1] / "lock"
    beat = lock.stat().st_mtime_ns if lock.exists() else 0
    time.sleep(2)
    assert beat == (lock.stat().st_mtime_ns if lock.exists() else 0), "nobody owns it any more"


@pytest.mark.parametrize("switch", [["--offline"], []])
def test_offline_it_ends_at_once(tmp_path, serve, switch):
    """N37: it does not listen and answer 503 for ever."""
    place = Place(tmp_path, None, {} if switch else {"HF_HUB_OFFLINE": "1"})
    ran = place.run("serve", "--model", "q=nomic-ai/nomic-embed-text-v2-moe", "--port", "0", *switch)
    assert ran.returncode == 2
    assert "nomic-ai/nomic-embed-text-v2-moe is not converted yet" in ran.stderr
    assert "listening" not in ran.stderr


def test_a_conversion_that_fails_ends_the_server(checkpoint, tmp_path, serve):
    with Hub() as hub:
        hub.add("acme/ft", checkpoint)
        hub.faults["tokenizer.json"] = Fault("status", status=403)
        server = serve(Place(tmp_path, hub))
        assert server.process.wait(60) == 2
    assert "moembed: error: " in "".join(server.lines)
