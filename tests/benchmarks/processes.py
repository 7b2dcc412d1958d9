"""`moembed serve` as a process of its own, and what the system knows of it (Linux)."""

import contextlib
import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Process:
    """A server; every line of its log is kept.

    Args:
        flags: of `moembed serve`.
        keep_log: whether lines about single requests are kept too.
        files: its limit of open files; None for that of this process.

    Attributes:
        log: the lines of its log.
        address: TCP port, or path of the unix socket.
        pid: process id; with several workers, of their parent.
    """

    def __init__(self, *flags: str, keep_log: bool = False, files: int | None = None) -> None:
        self.log: list[dict[str, Any]] = []
        self._keep_log = keep_log
        self._listening: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        command = [sys.executable, "-m", "moembed", "serve", *flags]
        if "--unix-socket" not in flags:
            command += ["--port", "0"]
        self._started = time.perf_counter()
        if files is not None:
            command = ["sh", "-c", f'ulimit -n {files} && exec "$@"', "sh", *command]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        address = self._listening.get(timeout=60)
        if address is None:
            raise RuntimeError(f"moembed serve {' '.join(flags)} ended before it listened: {self.log}")
        self.address: int | str = address if address.startswith("/") else int(address.rstrip(")").rpartition(" ")[2])

    def wait_until_ready(self, seconds: float = 120) -> float:
        """Wait for /ready to say so; seconds since the process was started."""
        while self._process.poll() is None and time.perf_counter() - self._started < seconds:
            with contextlib.suppress(OSError):
                if self.get("/ready")[0] == 200:
                    return time.perf_counter() - self._started
            time.sleep(0.005)
        raise RuntimeError(f"the server did not become ready: {self.log[-3:]}")

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a GET, over a connection of its own."""
        with self.connect() as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
            response = http.client.HTTPResponse(connection)
            response.begin()
            return response.status, response.read()

    def connect(self) -> "Any":
        """A socket that is connected to it."""
        import socket

        if isinstance(self.address, int):
            return socket.create_connection(("127.0.0.1", self.address), timeout=60)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(60)
        connection.connect(self.address)
        return connection

    def metric(self, name: str) -> float:
        """A figure of /metrics, added up over its labels."""
        lines = self.get("/metrics")[1].decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Wait for its end; exit status, negative for the signal that ended it."""
        code = self._process.wait(seconds)
        self._reader.join(10)
        return code

    def memory(self) -> dict[str, float]:
        """MB that are resident, and that belong to no other process, of it and its workers together."""
        sums = {"resident": 0.0, "private": 0.0}
        for pid in self.pids:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
                name, size = line.split()[:2]
                if name == "Rss:":
                    sums["resident"] += int(size) / 1024
                elif name.startswith("Private_"):
                    sums["private"] += int(size) / 1024
        return {name: round(value, 1) for name, value in sums.items()}

    def cpu_seconds(self) -> float:
        """Seconds of processors that it and its workers have used."""
        ticks = 0
        for pid in self.pids:
            ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
        return ticks / os.sysconf("SC_CLK_TCK")

    @property
    def pids(self) -> list[int]:
        """Its process and those of its workers."""
        return [self.pid, *map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split())]

    def kill(self) -> None:
        """End it and its workers, however they are."""
        if self._process.poll() is None:
            for pid in self.pids[1:]:
                os.kill(pid, signal.SIGKILL)
            self._process.kill()
        self._process.wait(10)
        self._reader.join(10)

    def _read(self) -> None:
        assert self._process.stderr is not None
        for text in self._process.stderr:
            try:
                line = json.loads(text)
            except ValueError:
                line = {"event": "text", "message": text.rstrip()}
            if self._keep_log or line.get("event") != "request":
                self.log.append(line)
            if line.get("event") == "listening":
                self._listening.put(line["address"])
        self._listening.put(None)


@contextlib.contextmanager
def running(*flags: str, keep_log: bool = False, files: int | None = None) -> Iterator[Process]:
    """A server that is ready, until the block is left; it has to end well then."""
    process = Process(*flags, keep_log=keep_log, files=files)
    try:
        process.wait_until_ready()
        yield process
        process.signal()
        if code := process.wait(60):
            raise RuntimeError(f"the server ended with {code}: {process.log[-3:]}")
    finally:
        process.kill()
