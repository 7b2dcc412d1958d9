"""moembed: a bundle with native kernels, or with the functions in its graph."""

import os
from pathlib import Path

from moembed.bundle.bundle import Bundle
from moembed.inference.kernels import VARIABLE
from moembed.inference.session import Session, import_onnxruntime
from peers.padded import Embed, padded


def version() -> str:
    """What runs it."""
    return f"onnxruntime {import_onnxruntime().__version__}"


def load(source: Path, mode: str, threads: int) -> Embed:
    """Open the bundle `source`; `mode` is what `MOEMBED_KERNELS` may say, or empty for the best."""
    if mode:
        os.environ[VARIABLE] = mode
    session = Session(Bundle.open(source), threads=threads)
    return lambda texts: session.run("sentence_embedding", *padded(texts))
