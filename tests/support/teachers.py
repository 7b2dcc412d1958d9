"""Small random teacher in the real file format, with the built-in model's vocabulary."""

import json
import struct
from pathlib import Path

import numpy as np

from moembed.pull.opening import DEFAULT_FOLDER

HIDDEN, LAYERS, HEADS, FFN, POSITIONS = 64, 3, 4, 128, 512


def pieces() -> list[tuple[str, float]]:
    raw = json.loads((DEFAULT_FOLDER / "tokenizer.json").read_text("utf-8"))
    return [(piece, score) for piece, score in raw["model"]["vocab"]]


def quantized(rng: np.random.Generator, rows: int, columns: int) -> bytes:
    """Return blocks of 32 values: a float16 scale, then 16 bytes of two values each."""
    scales = rng.uniform(0.2, 0.4, (rows * columns // 32, 1)).astype("<f2") / np.float16(np.sqrt(columns))
    nibbles = rng.integers(0, 256, (rows * columns // 32, 16), dtype=np.uint8)
    return np.concatenate([scales.view(np.uint8), nibbles], axis=1).tobytes()


def write_teacher(path: Path, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    vocabulary = pieces()
    tensors: list[tuple[str, int, int, bytes]] = []

    def add(name: str, rows: int, columns: int = 0, *, mean: float = 0.0) -> None:
        if columns:
            tensors.append((name, 1, rows * columns, quantized(rng, rows, columns)))
        else:
            values = (mean + 0.1 * rng.standard_normal(rows)).astype("<f4")
            tensors.append((name, 0, rows, values.tobytes()))

    add("emb.word", len(vocabulary), HIDDEN)
    add("emb.pos", POSITIONS * HIDDEN)
    add("emb.type", 2 * HIDDEN)
    add("emb.ln.w", HIDDEN, mean=1.0)
    add("emb.ln.b", HIDDEN)
    for layer in range(LAYERS):
        for name, rows, columns in (
            *((part, HIDDEN, HIDDEN) for part in ("q", "k", "v", "ao")),
            ("fi", FFN, HIDDEN),
            ("fo", HIDDEN, FFN),
        ):
            add(f"l{layer}.{name}.w", rows, columns)
            add(f"l{layer}.{name}.b", rows)
        for name in ("aln", "oln"):
            add(f"l{layer}.{name}.w", HIDDEN, mean=1.0)
            add(f"l{layer}.{name}.b", HIDDEN)

    blob = b"".join(piece.encode() for piece, _ in vocabulary)
    ends = np.cumsum([0, *(len(piece.encode()) for piece, _ in vocabulary)]).astype("<u4")
    head = b"E5S1" + struct.pack("<I7ifi", 1, HIDDEN, LAYERS, HEADS, FFN, len(vocabulary), POSITIONS, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(vocabulary), 0, 2, 1, 3, len(blob))
    head += ends.tobytes() + np.array([score for _, score in vocabulary], "<f4").tobytes() + blob
    head += struct.pack("<iI", 1, 9) + bytes(9) + struct.pack("<i", len(tensors))
    at = len(head) + sum(2 + len(name) + 21 for name, *_ in tensors)
    directory, body = b"", b""
    for name, kind, count, data in tensors:
        directory += struct.pack("<H", len(name)) + name.encode()
        directory += struct.pack("<BIQQ", kind, count, at + len(body), len(data))
        body += data
    path.write_bytes(head + directory + body)
    return path
