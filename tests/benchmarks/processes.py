"""`moembed serve` in a separate process, with its memory and CPU time (Linux)."""

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
    """Server process, with its log.

    Args:
        flags: options of `moembed serve`.
        keep_log: also keep the log lines of single requests.
        files: limit of open files; None to inherit it.

    Attributes:
        log: log lines.
        address: TCP port, or path of the unix socket.
        pid: process id; with several workers, that of their parent.
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
        """Wait until /ready reports readiness; return the seconds since the start of the process."""
        while self._process.poll() is None and time.perf_counter() - self._started < seconds:
            with contextlib.suppress(OSError):
                if self.get("/ready")[0] == 200:
                    return time.perf_counter() - self._started
            time.sleep(0.005)
        raise RuntimeError(f"the server did not become ready: {self.log[-3:]}")

    def get(self, path: str) -> tuple[int, bytes]:
        """Send a GET over a new connection; return status and body."""
        with self.connect() as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
            response = http.client.HTTPResponse(connection)
            response.begin()
            return response.status, response.read()

    def connect(self) -> "Any":
        """Return a socket connected to the server."""
        import socket

        if isinstance(self.address, int):
            return socket.create_connection(("127.0.0.1", self.address), timeout=60)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(60)
        connection.connect(self.address)
        return connection

    def metric(self, name: str) -> float:
        """Return a value of /metrics, summed over its labels."""
        lines = self.get("/metrics")[1].decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Wait for the exit; return the exit status, the negative number of the signal if one ended the process."""
        code = self._process.wait(seconds)
        self._reader.join(10)
        return code

    def memory(self) -> dict[str, float]:
        """Return the resident memory and the USS of the server and its workers together, in MB."""
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
        """Return the CPU time of the server and its workers."""
        ticks = 0
        for pid in self.pids:
            ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
        return ticks / os.sysconf("SC_CLK_TCK")

    @property
    def pids(self) -> list[int]:
        """Process ids of the server and its workers."""
        return [self.pid, *map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split())]

    def kill(self) -> None:
        """Kill the server and its workers."""
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
    """Run a server in the block, once it is ready; it must exit with status 0 afterwards."""
    process = Process(*flags, keep_log=keep_log, files=files)
    try:
        process.wait_until_ready()
        yield process
        process.signal()
        if code := process.wait(60):
            raise RuntimeError(f"the server ended with {code}: {process.log[-3:]}")
    finally:
        process.kill()
