"""ONNX Runtime's own fusions change nothing: the portable graph at every optimization level (M32)."""

import numpy as np
import pytest

from moembed.bundle.bundle import Bundle
from moembed.convert.conversion import convert
from moembed.export.pipeline import export
from moembed.inference.kernels import PORTABLE, Kernels
from moembed.inference.session import import_onnxruntime, session_options
from moembed.models.locate import locate
from moembed.models.oracle import Oracle
from support.tiny_networks import TEXTS, write_tiny
from support.tolerances import KERNEL_MIN_COSINE, OP_MAX_ABS

LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")


@pytest.fixture(scope="module", params=["bert", "gte"])
def checkpoint(request, tmp_path_factory):
    """Two heads of 32 channels, as small models have them; BERT pools by the mean, GTE takes the first token."""
    return write_tiny(tmp_path_factory.mktemp("levels") / "c", request.param, num_attention_heads=2)


def _run(bundle, level, texts):
    options = session_options(Kernels(PORTABLE))
    options.graph_optimization_level = getattr(import_onnxruntime().GraphOptimizationLevel, level)
    session = import_onnxruntime().InferenceSession(bundle.graph, options, providers=["CPUExecutionProvider"])
    found = []
    for ids in texts:
        row = np.array([ids], np.int64)
        vector, states = session.run(
            ["sentence_embedding", "token_embeddings"], {"input_ids": row, "attention_mask": np.ones_like(row)}
        )
        found.append((vector[0], states[0]))
    return found


def test_every_level_computes_the_oracles_states(checkpoint, tmp_path):
    fp32 = export(locate(checkpoint), tmp_path / "fp32")
    texts = list(TEXTS.values())
    oracle = Oracle(checkpoint)
    expected = oracle.run_all(texts)
    oracle.close()
    for level in LEVELS:
        for (vector, states), own in zip(_run(fp32, level, texts), expected, strict=True):
            assert np.abs(vector - own.embedding).max() < OP_MAX_ABS, level
            assert np.abs(states - own.hidden_states[-1]).max() < OP_MAX_ABS, level


def test_int8_is_the_same_at_every_level(checkpoint, tmp_path):
    int8 = convert(locate(checkpoint), tmp_path / "int8")
    assert isinstance(int8, Bundle)
    texts = list(TEXTS.values())
    first, *others = ([vector for vector, _ in _run(int8, level, texts)] for level in LEVELS)
    for found in others:
        assert min(float(a @ b) for a, b in zip(first, found, strict=True)) > KERNEL_MIN_COSINE
