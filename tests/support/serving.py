"""Server on a loopback port, in a thread of this process."""

import contextlib
import functools
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn

from moembed.server.app import create_app
from moembed.server.process.protocol import HttpProtocol
from moembed.server.settings import Settings

# Request body for texts, by path.
BODIES: dict[str, Callable[[list[str]], dict[str, Any]]] = {
    "/v1/embeddings": lambda texts: {"model": "moembed:query", "input": texts},
    "/embed": lambda texts: {"inputs": texts, "prompt_name": "query"},
    "/v2/embed": lambda texts: {"model": "moembed", "input_type": "search_query", "texts": texts},
    "/api/embed": lambda texts: {"model": "moembed:query", "input": texts},
}


@dataclass
class Answer:
    """Response of the server."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def message_of(path: str, answer: Answer) -> str:
    """Return the message of an error, and check that it has the format of the path's API."""
    body: Any = answer.json
    if path.startswith("/v1"):
        assert set(body) == {"error"}
        assert set(body["error"]) == {"message", "type", "param", "code"}
        return body["error"]["message"]
    if path.startswith("/v2"):
        assert set(body) == {"id", "message"}
        return body["message"]
    assert set(body) == ({"error"} if path.startswith("/api") else {"error", "error_type"})
    return body["error"]


@dataclass
class Server:
    """Running server."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """Send a request; a body that is not bytes is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, raw, headers or {})
        response = connection.getresponse()
        answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        connection.close()
        return answer

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        return self.ask("POST", path, body, headers)

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, headers)

    def metric(self, name: str, **labels: str) -> float:
        """Return a value of /metrics, summed over the labels that are not given."""
        total = 0.0
        for line in self.get("/metrics").body.decode().splitlines():
            key, _, value = line.rpartition(" ")
            if key.partition("{")[0] == name and all(f'{k}="{v}"' in key for k, v in labels.items()):
                total += float(value)
        return total


@contextlib.contextmanager
def serving(*, until_ready: bool = True, **settings: Any) -> Iterator[Server]:
    """Run a server with the given settings in the block."""
    failures: list[Exception] = []
    app = create_app(Settings(**settings), on_failure=failures.append)
    http = functools.partial(HttpProtocol, timeout=Settings(**settings).body_timeout)
    server = uvicorn.Server(
        uvicorn.Config(app, http=http, log_config=None, access_log=False, timeout_graceful_shutdown=60)
    )
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(512)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        here = Server(listening.getsockname()[1])
        try:
            if until_ready:
                wait_until(lambda: failures or here.get("/ready").status == 200)
            if failures:
                raise failures[0]
            yield here
        finally:
            server.should_exit = True
            thread.join(90)
            assert not thread.is_alive()


def wait_until(condition: Any, seconds: float = 30) -> None:
    """Wait until a condition holds; fail after some time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if condition():
                return
        time.sleep(0.02)
    raise AssertionError("the condition did not become true in time")
