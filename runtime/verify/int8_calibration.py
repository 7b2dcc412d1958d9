"""Calibration of the scales of int8 vectors, over the probe texts."""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from moembed.bundle.bundle import Bundle
from moembed.bundle.int8 import LARGEST_CODE, UNIT_SCALE, Int8
from moembed.inference.batching import pad, plan
from moembed.inference.session import Output, Session
from moembed.precision import shortened
from moembed.tokenizer.tokenizer import Tokenizer
from moembed.verify.probes import probe_texts

# Measured on the built-in model: a smaller margin clips more, a larger one rounds more; from 1 to 1.25 little changes.
_MARGIN = 1.1
_BATCH_SIZE = 16


def calibrate(bundle: Bundle) -> Int8:
    """Embed the probe texts behind each prompt and without one, and return a scale for each width.

    Scales are rounded up to three digits, so that machines that round differently mostly find the same. The share of clipped
    components is that of each half of the texts with the scale that the other half gives.

    Args:
        bundle: the bundle; of its manifest the graph, the list of files, the limit, the prompts and the widths are used.
    """
    vectors = _probe_vectors(bundle)  # [prompts, texts, hidden]
    scales: dict[int, float] = {}
    clipped: dict[int, float] = {}
    for dim in bundle.manifest.widths:
        unit = shortened(vectors.reshape(-1, vectors.shape[-1]), dim, normalize=True).reshape(*vectors.shape[:2], dim)
        scales[dim] = _scale(unit)
        halves = unit[:, ::2], unit[:, 1::2]
        clipped[dim] = sum(_clipped(one, _scale(other)) for one, other in (halves, halves[::-1])) / 2
    return Int8(scales=scales, clipped=clipped)


def _probe_vectors(bundle: Bundle) -> NDArray[np.float32]:
    manifest, texts = bundle.manifest, probe_texts()
    session, tokenizer = Session(bundle), Tokenizer(bundle)
    prompts = _distinct(["", *(manifest.prompts[name] for name in sorted(manifest.prompts))])
    rows = [ids[: manifest.max_tokens] for prompt in prompts for ids in tokenizer.encode(texts, prefix=prompt)]
    vectors = np.empty((len(rows), manifest.hidden_size), np.float32)
    for indices in plan([len(row) for row in rows], batch_size=_BATCH_SIZE):
        vectors[indices] = session.run(Output.EMBEDDING, *pad([rows[i] for i in indices], tokenizer.pad))
    return vectors.reshape(len(prompts), len(texts), -1)


def _distinct(prompts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(prompts))


def _scale(vectors: NDArray[np.float32]) -> float:
    scale = _MARGIN * float(np.abs(vectors).max()) / LARGEST_CODE
    unit = 10.0 ** (math.floor(math.log10(scale)) - 2)
    return min(float(f"{math.ceil(scale / unit) * unit:.3g}"), UNIT_SCALE)


def _clipped(vectors: NDArray[np.float32], scale: float) -> float:
    return float((np.abs(vectors) > (LARGEST_CODE + 0.5) * scale).mean())
