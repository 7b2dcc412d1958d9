"""Who is compared, and the process that each of them has for itself."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Batches = list[list[list[int]]]
EXACT, WITHOUT_BIAS = "float32", "no-expert-bias"


@dataclass(frozen=True)
class Contestant:
    """One line of the table.

    Attributes:
        name: what the table calls it.
        module: of `peers`.
        source: `"checkpoint"`, `"int8"`, `"fp32"` (bundles), or `"prepared"` for what its module's `prepare` wrote.
        mode: what its module's `load` is given.
        reference: the torch network that its vectors are compared with.
        at_least: the least mean cosine to that network, over the probe texts, with which it may take part.
        peer: the program that this is a mode of; empty for moembed.
    """

    name: str
    module: str
    source: str
    mode: str
    reference: str = EXACT
    at_least: float = 0.99
    peer: str = ""


NATIVE, PORTABLE = "moembed int8", "moembed int8, portable"
LLAMA = "llama.cpp Q8_0"
CONTESTANTS = (
    Contestant(NATIVE, "bundle", "int8", ""),
    Contestant(PORTABLE, "bundle", "int8", "portable"),
    Contestant("moembed fp32", "bundle", "fp32", "", at_least=0.9999),
    Contestant("torch fp32", "torch", "checkpoint", "float32", at_least=0.9999, peer="torch"),
    Contestant("torch bf16", "torch", "checkpoint", "bfloat16", peer="torch"),
    Contestant("torch bf16, compiled", "torch", "checkpoint", "bfloat16,compile", peer="torch"),
    Contestant("torch int8", "torch", "checkpoint", "int8", peer="torch"),
    Contestant("OpenVINO bf16", "openvino", "prepared", "network", peer="OpenVINO"),
    Contestant("OpenVINO int8 weights", "openvino", "prepared", "network-int8", peer="OpenVINO"),
    Contestant(
        "OpenVINO int8 weights, dynamic int8",
        "openvino",
        "prepared",
        "network-int8,DYNAMIC_QUANTIZATION_GROUP_SIZE=768",
        peer="OpenVINO",
    ),
    Contestant("OpenVINO int8 by NNCF", "openvino", "prepared", "network-nncf", peer="OpenVINO"),
    Contestant("ONNX Runtime dynamic int8", "onnxruntime", "prepared", "dynamic", peer="ONNX Runtime"),
    Contestant(LLAMA, "llamacpp", "prepared", "Q8_0", reference=WITHOUT_BIAS, peer="llama.cpp"),
    Contestant(
        "llama.cpp Q4_K_M", "llamacpp", "prepared", "Q4_K_M", reference=WITHOUT_BIAS, at_least=0.9, peer="llama.cpp"
    ),
)
READING = "reading of weights"  # not a contestant, but what a call of `READ` takes at least
READ = "1x16"
PEER_OF = {one.name: one.peer for one in CONTESTANTS}
MODULES = tuple(dict.fromkeys(one.module for one in CONTESTANTS))


def missing(module: str) -> str:
    """Why a module's contestants cannot take part, or nothing."""
    try:
        importlib.import_module(f"peers.{module}").version()
    except ImportError as error:
        return f"not installed ({error.name or error}): pip install 'moembed[bench]'"
    return ""


class Worker:
    """A contestant in a process of its own.

    Raises:
        RuntimeError: it could not start, or it died; with the last of what it said.
    """

    def __init__(self, contestant: Contestant, sources: dict[str, Path], threads: int, log: Path) -> None:
        source = sources[contestant.source]
        if contestant.source == "prepared":
            source /= contestant.module
        script = Path(__file__).with_name("worker.py")
        command = [sys.executable, script, contestant.module, source, contestant.mode, str(threads)]
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self.pid = self._process.pid
        self.started: dict[str, Any] = self._answer()

    def milliseconds(self, batches: Batches) -> tuple[float, float]:
        """Time of the first batch, right after a pause, and then of all batches one after the other."""
        answer = self._ask({"ask": "time", "batches": batches})
        return float(answer["first_ms"]), float(answer["ms"])

    def vectors(self, batches: Batches) -> NDArray[np.float32]:
        """`[texts, hidden]`."""
        return np.asarray(self._ask({"ask": "vectors", "batches": batches}), np.float32)

    def memory(self) -> dict[str, float]:
        """`private_mb` and `peak_mb`."""
        return dict(self._ask({"ask": "memory"}))

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, question: dict[str, Any]) -> Any:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout
        if line := self._process.stdout.readline():
            return json.loads(line)
        self.close()
        raise RuntimeError(f"it ended with {self._process.returncode}: {self._log.read_text()[-300:].strip()}")


def reading(size: float) -> Contestant:
    """Reads so many bytes of weights in each call."""
    return Contestant(READING, "reading", "int8", str(int(size)))


@contextmanager
def workers(
    contestants: list[Contestant], sources: dict[str, Path], threads: int, folder: Path
) -> Iterator[dict[str, Worker]]:
    """A worker for each, ended afterwards."""
    started: dict[str, Worker] = {}
    try:
        for one in contestants:
            started[one.name] = Worker(one, sources, threads, folder / f"{one.name.replace(' ', '-')}.log")
        yield started
    finally:
        for worker in started.values():
            worker.close()
