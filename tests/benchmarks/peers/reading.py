"""What no contestant can be faster than in a call of few tokens: reading of as many bytes of weights, and nothing else."""

import ctypes
import mmap
import statistics
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from limits import compiler, weights_of

from moembed.bundle.bundle import Bundle
from peers.padded import Embed

_PROGRAM = Path(__file__).parents[1] / "reading.cpp"


def version() -> str:
    """What it is."""
    return "reading"


def load(source: Path, mode: str, threads: int) -> Embed:
    """Map the weights of the bundle `source`; `mode` is how many bytes of them each call reads, by the fastest way."""
    with weights_of(Bundle.open(source)).open("rb") as file:
        memory = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    size = min(int(mode), len(memory))
    library = _compiled()

    def read(way: int) -> float:
        start = time.perf_counter()
        library.read_parts(memory.ctypes.data_as(ctypes.c_void_p), size, threads, way)
        return time.perf_counter() - start

    tried = [[read(way) for way in range(library.ways())] for _ in range(10)]
    times = [statistics.median(of_way) for of_way in zip(*tried[1:], strict=True)]
    fastest = times.index(min(times))

    def embed(_: object) -> np.ndarray:
        read(fastest)
        return np.zeros((0, 0), np.float32)

    return embed


def _compiled() -> ctypes.CDLL:
    with TemporaryDirectory() as folder:
        library = Path(folder) / "reading.so"
        options = ["-std=c++17", "-O2", "-shared", "-fPIC", "-pthread"]
        subprocess.run([*compiler(), *options, _PROGRAM, "-o", library], check=True)
        found = ctypes.CDLL(str(library))
    found.read_parts.argtypes = [ctypes.c_void_p, *[ctypes.c_size_t] * 3]
    found.read_parts.restype = ctypes.c_uint64
    return found
