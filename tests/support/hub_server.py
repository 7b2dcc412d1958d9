"""Local HTTP server that imitates the Hugging Face hub, its storage of large files, and their faults.

It answers HEAD and GET of `/{owner}/{name}/resolve/{revision}/{path}`, with the headers and error codes of the hub, and
`/api/models/{owner}/{name}/tree/{revision}`. Large files are redirected to a second server, on another port, as the hub
redirects to its storage; addresses there carry a signature. Repositories are local folders. Requests are recorded.

`cd tests && python -m support.hub_server NAME=FOLDER ...` serves folders until interrupted.
"""

import argparse
import hashlib
import json
import re
import shutil
import socket
import ssl
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal
from urllib.parse import quote, unquote, urlsplit

_TREE = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)")
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
_STORED = re.compile(r"/storage/(?P<repo>[^/]+/[^/]+)/(?P<revision>[^/]+)/(?P<path>.+)")
_LARGE = (".safetensors", ".onnx", ".onnx_data", ".bin", "tokenizer.json")
_OF_CONTENT = ("close", "reset", "stall", "trickle", "flip", "whole", "other")
_PAGE = b"<!DOCTYPE html><html><title>Sign in to the network</title></html>"


@dataclass(frozen=True)
class Request:
    """Recorded request; `repo`, `revision` and `path` are empty if it was not for a file."""

    method: str
    address: str
    status: int
    repo: str = ""
    revision: str = ""
    path: str = ""
    range: str | None = None
    headers: dict[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Repo:
    """Folder of a repository, and the commit of its branches and tags."""

    folder: Path
    commit: str
    refs: tuple[str, ...] = ("main",)


@dataclass
class Fault:
    """Fault of a path, for the next `times` requests.

    Of a GET of the content: `close` and `reset` end it after `keep` bytes, with FIN or RST; `stall` sends nothing more after
    `keep` bytes, and keeps the connection open; `trickle` goes on with a byte at a time; `flip` changes the byte at `keep`;
    `whole` ignores the range; `other` sends the range with another ETag each
    time, and only `keep` bytes if that is not 0; `expired` is the storage's 403.
    Of every request: `unavailable` is a 503, `status` a status with headers, `html` a web page.
    """

    how: Literal[
        "close", "reset", "stall", "trickle", "flip", "whole", "other", "expired", "unavailable", "status", "html"
    ]
    keep: int = 0
    times: int = 1000
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Hub:
    """Hub server; as a context manager, it runs inside the block.

    Attributes:
        tls: certificate chain and key, as PEM files; None for plain HTTP.
        bare: be a mirror that does not send the hub's own headers.
        weak: mark all ETags as weak.
        lengths: send Content-Length.
        moved: address of another server to which everything is redirected with 308.
    """

    repos: dict[str, Repo] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    stored: list[Request] = field(default_factory=list)
    tls: tuple[Path, Path] | None = None
    bare: bool = False
    weak: bool = False
    lengths: bool = True
    moved: str | None = None
    # Answers every request with a token with 401, as the hub does for one that is expired.
    refuse_tokens: bool = False
    released: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self):
        self._servers = [self._served(_Handler), self._served(_Storage)]
        self.endpoint, self.storage = (self._address(server) for server in self._servers)

    def _served(self, kind: type) -> tuple[ThreadingHTTPServer, threading.Thread]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (kind,), {"hub": self}))
        if self.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.tls)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        return server, threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)

    def _address(self, served: tuple[ThreadingHTTPServer, threading.Thread]) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{served[0].server_port}"

    def __enter__(self):
        for _, thread in self._servers:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def add(self, name: str, folder: Path, *, commit: str | None = None, refs: tuple[str, ...] = ("main",)) -> str:
        """Serve a folder as a repository and return its commit."""
        commit = commit or hashlib.sha1(f"{name} {folder}".encode()).hexdigest()
        self.repos[name] = Repo(folder, commit, refs)
        return commit

    def stop(self) -> None:
        """Stop the server: connections are refused afterwards. A second call does nothing."""
        self.released.set()
        for server, thread in self._servers:
            if thread.is_alive():
                server.shutdown()
                thread.join()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    # HTTP/1.0, the default: `stop` would not end a kept-alive connection.
    hub: Hub
    pattern = _FILE
    record = "requests"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def handle(self) -> None:
        with suppress(
            ConnectionError, ssl.SSLError, TimeoutError
        ):  # of clients that go away or do not trust the certificate
            super().handle()

    def finish(self) -> None:
        with suppress(ConnectionError, ssl.SSLError, ValueError):
            super().finish()

    def _answer(self) -> None:
        if self.hub.moved:
            self._head(308, {}, {"Location": self.hub.moved + self.path, "Content-Length": "0"})
            return
        if tree := _TREE.fullmatch(urlsplit(self.path).path):
            self._list(self.hub.repos.get(tree["repo"]), tree["revision"])
            return
        parts = self.pattern.fullmatch(urlsplit(self.path).path)
        if parts is None:
            self._refuse(404, None, {})
            return
        requested = {name: unquote(text) for name, text in parts.groupdict().items()}
        repo = self.hub.repos.get(requested["repo"])
        if self.hub.refuse_tokens and self.headers.get("Authorization"):
            message = {"X-Error-Message": "Invalid credentials in Authorization header"}
            self._refuse(401, None, requested, message)
        elif self._fails(requested):
            return
        elif repo is None:
            # Without a token, the hub does not distinguish private from missing repositories.
            self._refuse(401, "RepoNotFound", requested)
        elif requested["revision"] not in (repo.commit, *repo.refs):
            self._refuse(404, "RevisionNotFound", requested)
        elif ".." in PurePosixPath(requested["path"]).parts or not (repo.folder / requested["path"]).is_file():
            self._refuse(404, "EntryNotFound", requested, {"X-Repo-Commit": repo.commit})
        else:
            self._serve(repo, requested)

    def _fails(self, requested: dict[str, str]) -> bool:
        """Answer with a fault that is one of every request."""
        if fault := self._fault(requested["path"], "unavailable"):
            self._refuse(503, None, requested)
        elif fault := self._fault(requested["path"], "status"):
            self._refuse(fault.status, None, requested, fault.headers)
        elif fault := self._fault(requested["path"], "html"):
            self._head(200, requested, {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(_PAGE))})
            if self.command == "GET":
                self.wfile.write(_PAGE)
        return fault is not None

    def _serve(self, repo: Repo, requested: dict[str, str]) -> None:
        file = repo.folder / requested["path"]
        headers = {} if self.hub.bare else {"X-Repo-Commit": repo.commit}
        if not requested["path"].endswith(_LARGE):
            self._send(file, requested, headers | {"ETag": self._tag(_git_digest(file))})
            return
        if not self.hub.bare:
            headers |= {"X-Linked-Size": str(file.stat().st_size), "X-Linked-ETag": f'"{digest_of(file)}"'}
        place = f"/storage/{requested['repo']}/{repo.commit}/{quote(requested['path'])}?signature=secret-signature"
        self._head(302, requested, headers | {"Location": self.hub.storage + place, "Content-Length": "0"})

    def _list(self, repo: Repo | None, revision: str) -> None:
        if repo is None or revision not in (repo.commit, *repo.refs):
            self._refuse(404, "RevisionNotFound", {})
            return
        paths = [path for path in repo.folder.rglob("*") if path.is_file()]
        listed = [
            {
                "type": "file",
                "path": path.relative_to(repo.folder).as_posix(),
                "size": path.stat().st_size,
                "oid": "0" * 40,
            }
            for path in paths
        ]
        content = json.dumps(listed).encode()
        self._head(200, {}, {"Content-Type": "application/json", "Content-Length": str(len(content))})
        self.wfile.write(content)

    def _fault(self, path: str, *kinds: str) -> Fault | None:
        fault = self.hub.faults.get(path)
        if fault is None or fault.how not in kinds or not fault.times:
            return None
        fault.times -= 1
        return fault

    def _refuse(
        self, status: int, code: str | None, requested: dict[str, str], more: dict[str, str] | None = None
    ) -> None:
        code = None if self.hub.bare else code
        self._head(status, requested, {"Content-Length": "0"} | ({"X-Error-Code": code} if code else {}) | (more or {}))

    def _tag(self, digest: str) -> str:
        return f'{"W/" if self.hub.weak else ""}"{digest}"'

    def _send(self, file: Path, requested: dict[str, str], headers: dict[str, str]) -> None:
        """Send a file or the rest of it, with a fault of its content."""
        size = file.stat().st_size
        fault = self._fault(requested["path"], *_OF_CONTENT) if self.command == "GET" else None
        how = fault.how if fault else ""
        start = 0
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = how == "other" or self.headers.get("If-Range") in (None, headers["ETag"])
        if wanted and same and how != "whole":
            start = int(wanted[1])
            if start >= size:
                self._refuse(416, None, requested, {"Content-Range": f"bytes */{size}"})
                return
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        if how == "other":
            headers["ETag"] = f'"version-{fault.times if fault else 0}"'
        if self.hub.lengths:
            headers["Content-Length"] = str(size - start)
        self._head(206 if start else 200, requested, headers | {"Accept-Ranges": "bytes"})
        if self.command == "GET":
            with file.open("rb") as source:
                source.seek(start)
                self._body(source, how, fault.keep if fault else 0)

    def _body(self, source: BinaryIO, how: str, keep: int) -> None:
        if how in ("", "whole") or (how == "other" and not keep):
            shutil.copyfileobj(source, self.wfile, 1 << 20)
            return
        self.wfile.write(source.read(keep))
        if how == "flip":
            self.wfile.write(bytes([source.read(1)[0] ^ 1]))
            shutil.copyfileobj(source, self.wfile, 1 << 20)
        elif how == "trickle":
            while not self.hub.released.wait(0.05) and (piece := source.read(1)):
                self.wfile.write(piece)
        elif how == "stall":
            self.hub.released.wait()
        elif how == "reset":
            # With a linger time of 0, closing sends RST instead of FIN.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def _head(self, status: int, requested: dict[str, str], headers: dict[str, str]) -> None:
        recorded = Request(
            self.command,
            self.path,
            status,
            range=self.headers.get("Range"),
            headers={name.lower(): value for name, value in self.headers.items()},
            **requested,
        )
        getattr(self.hub, self.record).append(recorded)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


class _Storage(_Handler):
    """Storage of large files, which knows nothing of repositories."""

    pattern = _STORED
    record = "stored"

    def _fails(self, requested: dict[str, str]) -> bool:
        if fault := self._fault(requested["path"], "expired"):
            self._refuse(403, None, requested)
        return fault is not None

    def _serve(self, repo: Repo, requested: dict[str, str]) -> None:
        file = repo.folder / requested["path"]
        self._send(
            file, requested, {"ETag": self._tag(digest_of(file)[:32]), "Content-Type": "application/octet-stream"}
        )


def digest_of(file: Path) -> str:
    """Return the sha256 of a file."""
    stat = file.stat()
    return _digest_of(file, stat.st_size, stat.st_mtime_ns)


@cache
def _digest_of(file: Path, _size: int, _mtime: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _git_digest(file: Path) -> str:
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def main() -> None:
    """Serve folders from the command line."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("repos", nargs="+", metavar="NAME=FOLDER")
    with Hub() as hub:
        for text in arguments.parse_args().repos:
            name, _, folder = text.partition("=")
            print(name, hub.add(name, Path(folder)))
        print(f"HF_ENDPOINT={hub.endpoint}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
