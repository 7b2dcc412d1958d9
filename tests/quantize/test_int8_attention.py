"""Integer attention: the operator against its arithmetic in numpy, float attention, and what must hold of every softmax."""

import numpy as np
import pytest

from moembed.quantize.layout import pack
from support.graph_ops import NATIVE, every_graph, run_graph

TINY = np.finfo(np.float32).tiny
HEADS, DIM = 3, 32
# Two powers of 2 that differ by an ulp may round to two integers; the sum of a few of these moves a mean by so much.
ATTENDED_MAX_ABS = 2e-4
# Shares are rounded to 15 bits, the sum that they are divided by is not.
SHARES_RELATIVE = 1e-3


def _heads(x, most):
    """Quantize `[T, heads, dim]` per token and head: integers and scales `[T, heads, 1]`."""
    scale = np.maximum(np.abs(x).max(axis=2, keepdims=True) / np.float32(most), TINY)
    return np.rint(x * (np.float32(1) / scale)).astype(np.int64), scale


def _turned(x, cos, sin):
    half = x.shape[2] // 2
    left, right = x[:, :, :half], x[:, :, half:]
    c, s = cos[: len(x), None], sin[: len(x), None]
    return np.concatenate([left * c - right * s, left * s + right * c], axis=2)


def integer_attention(qkv, cos, sin):
    """Attention of one text, as `moembed.quantize.functions` defines it: `[T, 3 * hidden]` float32 -> `[T, hidden]`."""
    q, k, v = (part.reshape(len(qkv), HEADS, -1) for part in np.split(qkv, 3, axis=1))
    dim = q.shape[2]
    (q, q_scale), (k, k_scale), (v, v_scale) = (
        _heads(_turned(q, cos, sin), 32767),
        _heads(_turned(k, cos, sin), 127),
        _heads(v, 127),
    )
    out = np.empty((len(qkv), HEADS, dim), np.float32)
    for head in range(HEADS):
        scores = (q[:, head] @ k[:, head].T).astype(np.float32) * k_scale[:, head].T
        factor = q_scale[:, head] * (np.float32(1.44269504) / np.sqrt(np.float32(dim)))
        powers = np.exp2((scores - scores.max(axis=1, keepdims=True)) * factor)
        top = v_scale[:, head].max()
        shares = np.rint(powers * (v_scale[:, head].T / top * np.float32(32767))).astype(np.int64)
        mixed = (shares @ v[:, head]).astype(np.float32)
        out[:, head] = mixed * (top / np.float32(32767) / powers.sum(axis=1, keepdims=True))
    return out.reshape(len(qkv), -1)


def float_attention(qkv, cos, sin):
    """Attention of one text in float64."""
    q, k, v = (part.reshape(len(qkv), HEADS, -1).astype(np.float64) for part in np.split(qkv, 3, axis=1))
    q, k = _turned(q, cos, sin), _turned(k, cos, sin)
    scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[2])
    powers = np.exp(scores - scores.max(axis=2, keepdims=True))
    return np.einsum("hqk,khd->qhd", powers / powers.sum(axis=2, keepdims=True), v).reshape(len(qkv), -1)


def tables(positions, dim=DIM):
    angle = np.outer(np.arange(positions), 1e4 ** (-np.arange(0, dim, 2) / dim))
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def identity(width):
    """A product that gives 127ths of its rows: `(rows - 128) * 1`."""
    return [pack(np.eye(width, dtype=np.int8)), np.ones(width, np.float32), np.zeros(width, np.float32)]


class Texts:
    """Random texts, whose qkv is an exact product.

    Args:
        lengths: tokens of each text.
        sink: how much larger the scores of the first token are, whose value is small: what trained networks do.
    """

    def __init__(self, lengths, seed=0, sink=0.0, dim=DIM, heads=HEADS):
        rng, width = np.random.default_rng(seed), 3 * heads * dim
        self.lengths, tokens = lengths, sum(lengths)
        self.rows = rng.integers(1, 256, (tokens, width)).astype(np.uint8)
        self.scale = (rng.random((tokens, 1), np.float32) + 0.5) / 40
        starts = np.cumsum([0, *lengths[:-1]])
        if sink:
            hidden = heads * dim
            self.rows[starts, hidden : 2 * hidden] = self.rows[:, :hidden].mean(axis=0).astype(np.uint8)
            self.rows[starts, 2 * hidden :] = 128 + (self.rows[starts, 2 * hidden :].astype(int) - 128) // 16
            self.scale[starts] *= sink
        self.mask = np.zeros((len(lengths), max(lengths) + 3), np.int64)
        for row, length in enumerate(lengths):
            self.mask[row, :length] = 1
        self.tokens = np.flatnonzero(self.mask).astype(np.int64)
        self.cos, self.sin = tables(self.mask.shape[1], dim)

    @property
    def inputs(self):
        turns = [self.tokens, self.mask, self.cos, self.sin]
        return [self.rows, self.scale, *identity(self.rows.shape[1]), *turns]

    def each(self, attention):
        """Attention of every text by itself, `[T, hidden]`."""
        qkv = (self.rows.astype(np.float32) - 128) * self.scale
        parts = np.split(qkv, np.cumsum(self.lengths)[:-1])
        return np.concatenate([attention(part, self.cos, self.sin) for part in parts])


def values(quantized, scale):
    return (quantized.astype(np.float32) - 128) * scale


@every_graph
@pytest.mark.parametrize("sink", [0.0, 3.0])
@pytest.mark.parametrize("lengths", [(1,), (15, 17), (64, 1, 33), (130,)])
def test_it_is_its_arithmetic(execution, lengths, sink):
    texts = Texts(lengths, seed=sum(lengths), sink=sink)
    quantized, scale = execution("Int8Attention", texts.inputs, {"num_heads": HEADS})
    expected = texts.each(integer_attention)
    assert np.allclose(scale[:, 0], np.abs(expected).max(axis=1) / 127, rtol=1e-3)
    assert np.abs(values(quantized, scale) - expected).max() <= 0.51 * scale.max() + ATTENDED_MAX_ABS


@pytest.mark.parametrize("kernels", NATIVE)
def test_it_is_close_to_float_attention(kernels):
    texts = Texts((100, 28), sink=3.0)
    quantized, scale = run_graph("Int8Attention", texts.inputs, {"num_heads": HEADS}, kernels=kernels)
    expected = texts.each(float_attention)
    error = np.linalg.norm(values(quantized, scale) - expected) / np.linalg.norm(expected)
    assert error < 0.02


@pytest.mark.parametrize("kernels", NATIVE)
def test_texts_do_not_see_each_other(kernels):
    """Alone, in a batch, and with other threads: the same bytes, though kernels divide the work in other ways."""
    texts = Texts((40, 200, 3, 97), sink=3.0)
    batch = run_graph("Int8Attention", texts.inputs, {"num_heads": HEADS}, kernels=kernels, threads=3)
    starts = np.cumsum([0, *texts.lengths])
    for index, length in enumerate(texts.lengths):
        part = slice(starts[index], starts[index + 1])
        mask = np.ones((1, length), np.int64)
        alone = [texts.rows[part], texts.scale[part], *identity(texts.rows.shape[1]), np.arange(length), mask]
        found = run_graph("Int8Attention", [*alone, texts.cos, texts.sin], {"num_heads": HEADS}, kernels=kernels)
        for mine, ours in zip(found, batch, strict=True):
            assert np.array_equal(mine, ours[part])


@every_graph
@pytest.mark.parametrize("length", [1, 16, 77])
def test_a_constant_value_is_its_own_mean(execution, length):
    texts = Texts((length,))
    hidden = HEADS * DIM
    texts.rows[:, 2 * hidden :], texts.scale[:] = 255, 0.02
    quantized, scale = execution("Int8Attention", texts.inputs, {"num_heads": HEADS})
    assert (quantized == 255).all()
    assert np.allclose(scale, 0.02, rtol=SHARES_RELATIVE)


@every_graph
def test_equal_keys_give_the_mean_of_the_values(execution):
    texts = Texts((50,))
    hidden = HEADS * DIM
    texts.rows[:, hidden : 2 * hidden], texts.scale[:] = 128, 0.02
    quantized, scale = execution("Int8Attention", texts.inputs, {"num_heads": HEADS})
    mean = (texts.rows[:, 2 * hidden :].astype(np.float32) - 128).mean(axis=0) * 0.02
    assert np.abs(values(quantized, scale) - mean).max() <= 0.51 * scale.max() + 0.01  # half an integer of the values


@pytest.mark.parametrize("kernels", NATIVE)
def test_thousands_of_equal_keys(kernels):
    """Sums of bytes do not fit 24 bits, nor their join 32; all kernels join them exactly."""
    texts = Texts((8192,), dim=16, heads=1)
    texts.rows[:, :32], texts.rows[:, 32:], texts.scale[:] = 128, 255, 0.02
    quantized, scale = run_graph("Int8Attention", texts.inputs, {"num_heads": 1}, kernels=kernels, threads=2)
    assert (quantized == 255).all()
    assert np.allclose(scale, 0.02, rtol=SHARES_RELATIVE)


@every_graph
def test_rows_of_zeros(execution):
    texts = Texts((9,))
    texts.rows[:] = 128
    quantized, scale = execution("Int8Attention", texts.inputs, {"num_heads": HEADS})
    assert (quantized == 128).all()
    assert (scale == TINY).all()
