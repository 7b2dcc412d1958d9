"""The float32 ops: one test body for every execution, compared with float64 numpy.

An execution takes an op's name, arrays and attributes and returns its outputs: torch, the function in the graph, and the
kernels of every instruction set of this machine.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moembed.models import ops
from support.graph_ops import GRAPHS, every_graph
from support.tolerances import OP_MAX_ABS


def _torch(name, arrays, attributes):
    # The weights of all experts are one tensor in torch, and one tensor each in the graph.
    if name == "Experts":
        x, weights, expert_indices, bias, *matrices = arrays
        half = len(matrices) // 2
        arrays = [x, weights, expert_indices, np.concatenate(matrices[:half]), np.concatenate(matrices[half:]), bias]
        attributes = {"num_experts": half}
    out = getattr(ops, name.lower())(*(torch.from_numpy(a) for a in arrays), *attributes.values())
    return [o.numpy() for o in (out if isinstance(out, tuple) else (out,))]


EXECUTIONS = {"torch": _torch, **GRAPHS}
every_execution = pytest.mark.parametrize("execution", EXECUTIONS.values(), ids=EXECUTIONS)


def _normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def _softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@every_execution
@pytest.mark.parametrize(
    ("tokens", "hidden", "experts", "top_k"), [(0, 8, 4, 2), (1, 48, 8, 2), (17, 30, 5, 3), (64, 8, 3, 1)]
)
def test_router(execution, tokens, hidden, experts, top_k):
    rng = np.random.default_rng(tokens)
    x, weight = _normal(rng, tokens, hidden), _normal(rng, experts, hidden)
    weights, expert_indices = execution("Router", [x, weight], {"top_k": top_k})
    probabilities = _softmax(x.astype(np.float64) @ weight.T.astype(np.float64))
    expected = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
    assert np.array_equal(expert_indices, expected)
    assert weights.shape == (tokens, top_k)
    assert np.allclose(weights, np.take_along_axis(probabilities, expected, 1), atol=OP_MAX_ABS)
    assert (np.diff(weights, axis=1) <= 0).all(), "most probable first"


def _experts_oracle(x, weights, expert_indices, bias, matrices):
    half = len(matrices) // 2
    erf = np.vectorize(math.erf)
    out = np.zeros(x.shape, np.float64)
    for token in range(len(x)):
        for rank, expert in enumerate(expert_indices[token]):
            up = matrices[expert].astype(np.float64) @ x[token]
            inner = up * 0.5 * (1 + erf(up / math.sqrt(2)))
            out[token] += weights[token, rank] * (inner @ matrices[half + expert].astype(np.float64))
    return out + bias


@every_execution
@pytest.mark.parametrize(
    ("tokens", "hidden", "ffn", "experts", "choose"),
    [
        (0, 8, 12, 4, "any"),
        (1, 8, 12, 4, "any"),
        (15, 30, 34, 5, "any"),
        (17, 48, 20, 8, "any"),
        (33, 16, 8, 3, "all on one"),
        (40, 16, 8, 6, "some without tokens"),
    ],
)
def test_experts(execution, tokens, hidden, ffn, experts, choose):
    rng = np.random.default_rng(tokens)
    allowed = {"any": experts, "all on one": 2, "some without tokens": experts - 2}[choose]
    expert_indices = np.array([rng.permutation(allowed)[:2] for _ in range(tokens)], np.int64).reshape(tokens, 2)
    x, bias = _normal(rng, tokens, hidden), _normal(rng, hidden)
    weights = rng.random((tokens, 2), np.float32)
    matrices = [_normal(rng, ffn, hidden) / np.float32(np.sqrt(hidden)) for _ in range(2 * experts)]
    (y,) = execution("Experts", [x, weights, expert_indices, bias, *matrices], {})
    assert y.shape == (tokens, hidden)
    assert np.allclose(y, _experts_oracle(x, weights, expert_indices, bias, matrices), atol=OP_MAX_ABS)


def _layout(lengths, sequence):
    mask = np.zeros((len(lengths), sequence), np.int64)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1
    return mask, np.flatnonzero(mask).astype(np.int64)


def _attention_oracle(qkv, lengths, heads, base):
    hidden = qkv.shape[1] // 3
    dim = hidden // heads
    out = np.zeros((len(qkv), hidden))
    first = 0
    for length in filter(None, lengths):
        rows = qkv[first : first + length].astype(np.float64)
        angle = np.outer(np.arange(length), base ** (-np.arange(0, dim, 2) / dim))
        for head in range(heads):
            q, k, v = (rows[:, part * hidden + head * dim : part * hidden + (head + 1) * dim] for part in range(3))
            rotated = []
            for x in (q, k):
                a, b = x[:, : dim // 2], x[:, dim // 2 :]
                rotated.append(
                    np.hstack([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)])
                )
            mixed = _softmax(rotated[0] @ rotated[1].T / math.sqrt(dim)) @ v
            out[first : first + length, head * dim : (head + 1) * dim] = mixed
        first += length
    return out


@every_execution
@pytest.mark.parametrize(
    ("lengths", "sequence", "heads", "dim"),
    [
        ([1], 1, 1, 2),
        ([5], 5, 2, 6),
        ([3, 7, 1], 7, 3, 8),
        ([2, 4], 19, 2, 4),
        ([513], 513, 1, 4),
        ([0, 3, 0], 4, 2, 4),
    ],
)
def test_attention(execution, lengths, sequence, heads, dim):
    rng = np.random.default_rng(sequence)
    mask, tokens = _layout(lengths, sequence)
    angle = np.outer(np.arange(520), 100.0 ** (-np.arange(0, dim, 2) / dim))
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    qkv = _normal(rng, len(tokens), 3 * heads * dim)
    (y,) = execution("Attention", [qkv, tokens, mask, cos, sin], {"num_heads": heads})
    assert np.allclose(y, _attention_oracle(qkv, lengths, heads, 100.0), atol=OP_MAX_ABS)


@every_execution
@pytest.mark.parametrize(("lengths", "sequence"), [([4], 4), ([1, 17, 3], 17), ([2, 2], 33), ([0, 5], 6)])
def test_pool(execution, lengths, sequence):
    mask, tokens = _layout(lengths, sequence)
    x = _normal(np.random.default_rng(sequence), len(tokens), 20)
    (y,) = execution("Pool", [x, tokens, mask], {})
    starts = np.cumsum([0, *lengths])
    for row, length in enumerate(lengths):
        mean = x[starts[row] : starts[row + 1]].astype(np.float64).sum(0) / max(length, 1)
        assert np.allclose(y[row], mean, atol=OP_MAX_ABS)


@every_graph
@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    extra=st.integers(0, 30),
    seed=st.integers(0, 2**16),
)
def test_the_graph_is_batch_invariant(execution, lengths, extra, seed):
    """Attention and pooling, the two ops across tokens: alone, or in a padded batch."""
    rng = np.random.default_rng(seed)
    heads, dim = 2, 8
    angle = np.outer(np.arange(80), 100.0 ** (-np.arange(0, dim, 2) / dim))
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    mask, tokens = _layout(lengths, max(lengths) + extra)
    qkv = _normal(rng, len(tokens), 3 * heads * dim)
    (together,) = execution("Attention", [qkv, tokens, mask, cos, sin], {"num_heads": heads})
    (means,) = execution("Pool", [together, tokens, mask], {})
    starts = np.cumsum([0, *lengths])
    for row, length in enumerate(lengths):
        own = slice(starts[row], starts[row + 1])
        mask_alone, tokens_alone = _layout([length], length)
        (alone,) = execution("Attention", [qkv[own], tokens_alone, mask_alone, cos, sin], {"num_heads": heads})
        (mean,) = execution("Pool", [together[own], tokens_alone, mask_alone], {})
        assert alone.tobytes() == together[own].tobytes()
        assert mean[0].tobytes() == means[row].tobytes()
