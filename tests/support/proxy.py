"""Small HTTP proxy: requests by absolute address, and tunnels by CONNECT. It records both."""

import select
import socket
import threading
from contextlib import suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Proxy:
    """Proxy on a port of its own; as a context manager, it runs inside the block. `seen` has a method and an address each."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy

    def do_GET(self) -> None:
        self.proxy.seen.append((self.command, self.path))
        to = urlsplit(self.path)
        connection = HTTPConnection(to.hostname, to.port)
        connection.request(self.command, f"{to.path}?{to.query}" if to.query else to.path, headers=dict(self.headers))
        answer = connection.getresponse()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            self.send_header(name, value)
        self.end_headers()
        with suppress(ConnectionError):
            self.wfile.write(answer.read())

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_CONNECT(self) -> None:
        self.proxy.seen.append((self.command, self.path))
        host, _, port = self.path.partition(":")
        with socket.create_connection((host, int(port))) as other:
            self.send_response(200)
            self.end_headers()
            with suppress(ConnectionError):
                self._tunnel(other)

    def _tunnel(self, other: socket.socket) -> None:
        ends = {self.connection: other, other: self.connection}
        while True:
            for end in select.select(list(ends), [], [])[0]:
                if not (data := end.recv(1 << 16)):
                    return
                ends[end].sendall(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass
