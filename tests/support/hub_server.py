"""Local HTTP server that imitates the Hugging Face hub for `huggingface_hub`.

It answers HEAD and GET of `/{owner}/{name}/resolve/{revision}/{path}`, with the headers and error codes that `hf_hub_download`
reads, and `/api/models/{owner}/{name}/tree/{revision}` for `list_repo_files`. `hf_hub_download` requests nothing else, except
once a day a list of coding agents (`/api/agent-harnesses`) unless telemetry is off.
Repositories are local folders. Requests are recorded, and downloads can be made to fail.

`cd tests && python -m support.hub_server NAME=FOLDER ...` serves folders until interrupted.
"""

import argparse
import hashlib
import json
import re
import shutil
import socket
import struct
import threading
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import unquote, urlsplit

_TREE = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)")
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


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


@dataclass(frozen=True)
class Repo:
    """Folder of a repository, and the commit of its branches and tags."""

    folder: Path
    commit: str
    refs: tuple[str, ...] = ("main",)


@dataclass
class Fault:
    """Fault of a path, for the next `times` requests.

    `close` and `reset` end a GET after `keep` bytes, with FIN or RST; `unavailable` answers HEAD and GET with 503.
    """

    how: Literal["close", "reset", "unavailable"]
    keep: int = 0
    times: int = 1000


@dataclass
class Hub:
    """Hub server; as a context manager, it runs inside the block."""

    repos: dict[str, Repo] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self):
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        self._thread.start()
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
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    # HTTP/1.0, the default: `stop` would not end a kept-alive connection.
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def _answer(self, *, body: bool) -> None:
        if tree := _TREE.fullmatch(urlsplit(self.path).path):
            self._list(self.hub.repos.get(tree["repo"]), tree["revision"])
            return
        parts = _FILE.fullmatch(urlsplit(self.path).path)
        if parts is None:
            self._refuse(404, None, {})
            return
        requested = {name: unquote(text) for name, text in parts.groupdict().items()}
        repo = self.hub.repos.get(requested["repo"])
        if repo is None:
            # Without a token, the hub does not distinguish private from missing repositories.
            self._refuse(401, "RepoNotFound", requested)
        elif requested["revision"] not in (repo.commit, *repo.refs):
            self._refuse(404, "RevisionNotFound", requested)
        elif ".." in PurePosixPath(requested["path"]).parts or not (repo.folder / requested["path"]).is_file():
            self._refuse(404, "EntryNotFound", requested, {"X-Repo-Commit": repo.commit})
        elif self._fault(requested["path"], "unavailable"):
            self._refuse(503, None, requested)
        else:
            self._send(repo, requested, body=body)

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
        self._head(status, requested, {"Content-Length": "0"} | ({"X-Error-Code": code} if code else {}) | (more or {}))

    def _send(self, repo: Repo, requested: dict[str, str], *, body: bool) -> None:
        file = repo.folder / requested["path"]
        size = file.stat().st_size
        headers = {"X-Repo-Commit": repo.commit, "ETag": f'"{_digest(file)}"', "Accept-Ranges": "bytes"}
        start = 0
        if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(wanted[1])
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        self._head(206 if start else 200, requested, headers | {"Content-Length": str(size - start)})
        if not body:
            return
        fault = self._fault(requested["path"], "close", "reset")
        with file.open("rb") as source:
            source.seek(start)
            if fault is None:
                shutil.copyfileobj(source, self.wfile, 1 << 20)
                return
            self.wfile.write(source.read(fault.keep))
        if fault.how == "reset":
            # With a linger time of 0, closing sends RST instead of FIN.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def _head(self, status: int, requested: dict[str, str], headers: dict[str, str]) -> None:
        self.hub.requests.append(Request(self.command, self.path, status, range=self.headers.get("Range"), **requested))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _digest(file: Path) -> str:
    stat = file.stat()
    return _digest_of(file, stat.st_size, stat.st_mtime_ns)


@cache
def _digest_of(file: Path, _size: int, _mtime: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


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
