"""INT8: layouts, and ops against exact integer arithmetic."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moembed.errors import InputError
from moembed.quantize.function_parts import GELU_ZERO_POINT
from moembed.quantize.layout import dequantize_blocks, fits, pack, quantize_blocks, quantize_rows, unpack
from support.graph_ops import every_graph, run_graph
from support.tolerances import OP_MAX_ABS, SCALE_RELATIVE

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _gelu(x):
    return x * 0.5 * (1 + _erf(x / math.sqrt(2)))


def _normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def _product(quantized, zero_point, scale, matrix, weight_scale):
    """Exact integer sums, then `(sum * weight_scale) * scale` in float32, as the functions say."""
    sums = (quantized.astype(np.int64) - zero_point) @ matrix.astype(np.int64).T
    return (sums.astype(np.float32) * weight_scale) * scale


def _symmetric(x):
    scale = np.maximum(np.abs(x).max(axis=1, keepdims=True) / np.float32(127), np.finfo(np.float32).tiny)
    return (np.rint(x / scale) + 128).astype(np.uint8), scale


def _positive(x):
    x = np.minimum(x, np.float32(65504 * 256))
    half = (x / np.float32(256)).astype(np.float16).astype(np.float32) * np.float32(256)
    scale = np.maximum(x.max(axis=1, keepdims=True) / np.float32(223), np.float32(0.17 / 32))
    return (np.rint(half / scale) + GELU_ZERO_POINT).astype(np.uint8), scale.astype(np.float32)


@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 2**16))
def test_the_layout_is_blocks_of_sixteen_channels_and_four_depths(blocks, depth, seed):
    matrix = np.random.default_rng(seed).integers(-127, 128, (16 * blocks, 4 * depth)).astype(np.int8)
    packed = pack(matrix)
    assert packed.shape == (blocks, depth, 16, 4)
    n, k = 16 * blocks - 3, 4 * depth - 2
    assert packed[n // 16, k // 4, n % 16, k % 4] == matrix[n, k]
    assert np.array_equal(unpack(packed), matrix)


@pytest.mark.parametrize(
    ("shape", "whole"), [((16, 4), True), ((48, 30), False), ((30, 48), False), ((16, 4, 1), False)]
)
def test_fits(shape, whole):
    assert fits(shape) is whole


@every_graph
@pytest.mark.parametrize("tokens", [0, 1, 15, 17])
def test_quantize(execution, tokens):
    x = _normal(np.random.default_rng(tokens), tokens, 48) * 3
    if tokens > 1:
        x[1] = 0
    quantized, scale = execution("Quantize", [x], {})
    expected, scales = _symmetric(x) if tokens else (quantized, scale)
    assert np.array_equal(quantized, expected)
    assert np.array_equal(scale, scales)
    assert (np.abs((quantized.astype(np.float32) - 128) * scale - x) <= scale * 0.5001).all()
    assert tokens < 2 or (quantized[1] == 128).all(), "a row of zeros is the zero point"


@every_graph
@pytest.mark.parametrize("zero_point", [128, GELU_ZERO_POINT])
@pytest.mark.parametrize(
    ("tokens", "width", "out"), [(0, 8, 16), (1, 48, 32), (15, 4, 16), (17, 80, 48), (97, 772, 80), (513, 64, 16)]
)
def test_linear_is_exact(execution, tokens, width, out, zero_point):
    rng = np.random.default_rng(tokens)
    quantized = rng.integers(0, 256, (tokens, width)).astype(np.uint8)
    scale = rng.random((tokens, 1), np.float32)
    matrix = rng.integers(-127, 128, (out, width)).astype(np.int8)
    weight_scale, bias = rng.random(out, np.float32), _normal(rng, out)
    (y,) = execution("Int8Linear", [quantized, scale, pack(matrix), weight_scale, bias], {"zero_point": zero_point})
    assert np.array_equal(y, _product(quantized, zero_point, scale, matrix, weight_scale) + bias), "to the bit"


@pytest.mark.parametrize("extreme", [255, 1])
def test_no_saturation_at_the_extremes(extreme):
    """Pairs of largest products overflow 16 bits; the code path for CPUs without VNNI gives the same sums."""
    quantized = np.full((3, 256), extreme, np.uint8)
    matrix = np.full((16, 256), -127, np.int8)
    arguments = [
        quantized,
        np.ones((3, 1), np.float32),
        pack(matrix),
        np.ones(16, np.float32),
        np.zeros(16, np.float32),
    ]
    for setting in ((), (("session.x64quantprecision", "1"),)):
        (y,) = run_graph("Int8Linear", arguments, {"zero_point": 128}, setting)
        assert (y == (extreme - 128) * -127 * 256).all()


@every_graph
def test_linear_gelu(execution):
    rng = np.random.default_rng(3)
    x = _normal(rng, 20, 48)
    quantized, scale = _symmetric(x)
    matrix = rng.integers(-127, 128, (32, 48)).astype(np.int8)
    weight_scale, bias = rng.random(32, np.float32) / 50, _normal(rng, 32)
    out, out_scale = execution("Int8LinearGelu", [quantized, scale, pack(matrix), weight_scale, bias], {})
    active = _gelu(_product(quantized, 128, scale, matrix, weight_scale).astype(np.float64) + bias).astype(np.float32)
    expected, scales = _positive(active)
    assert np.allclose(out_scale, scales, rtol=SCALE_RELATIVE)
    assert np.abs(out.astype(int) - expected.astype(int)).max() <= 1, (
        "a value between two integers may round either way"
    )
    assert np.abs((out.astype(np.float32) - GELU_ZERO_POINT) * out_scale - active).max() <= scales.max()


@every_graph
@pytest.mark.parametrize("tokens", [0, 1, 15, 33, 129])
def test_feed_forward(execution, tokens):
    rng = np.random.default_rng(tokens)
    hidden, inner = 48, 80
    x = _normal(rng, tokens, hidden)
    quantized, scale = _symmetric(x) if tokens else (np.zeros((0, hidden), np.uint8), np.zeros((0, 1), np.float32))
    (up, up_scale), (down, down_scale) = (
        quantize_rows(_normal(rng, *shape) / 7) for shape in ((inner, hidden), (hidden, inner))
    )
    b1, b2 = _normal(rng, inner), _normal(rng, hidden)
    (y,) = execution("Int8FeedForward", [quantized, scale, pack(up), up_scale, b1, pack(down), down_scale, b2], {})
    assert y.shape == (tokens, hidden)
    if tokens:
        raw = _product(quantized, 128, scale, up, up_scale) + b1
        active, active_scale = _positive(_gelu(raw.astype(np.float64)).astype(np.float32))
        # One value of the inner layer may round to the next integer.
        assert np.allclose(y, _product(active, GELU_ZERO_POINT, active_scale, down, down_scale) + b2, atol=0.03)


def _silu(x):
    return x * 0.5 * (1 + np.tanh(x / 2))


def _of_both_signs(x):
    """As `_positive`, on both sides: to the largest float16 times 2^8, in steps of the smallest at least."""
    x = np.clip(x, np.float32(-65504 * 256), np.float32(65504 * 256))
    half = (x / np.float32(256)).astype(np.float16).astype(np.float32) * np.float32(256)
    scale = np.maximum(np.abs(x).max(axis=1, keepdims=True) / np.float32(127), np.float32(2.0**-16))
    return (np.rint(half / scale) + 128).astype(np.uint8), scale.astype(np.float32)


@every_graph
@pytest.mark.parametrize("tokens", [0, 1, 15, 33, 129])
@pytest.mark.parametrize(("name", "activation"), [("Gelu", _gelu), ("Silu", _silu)])
# Products of about one, beyond float16, and so small that their scale is the least.
@pytest.mark.parametrize("size", [1, 1e5, 0.01])
def test_gated_feed_forward(execution, name, activation, tokens, size):
    rng = np.random.default_rng(tokens)
    hidden, inner = 48, 80
    x = _normal(rng, tokens, hidden)
    quantized, scale = _symmetric(x) if tokens else (np.zeros((0, hidden), np.uint8), np.zeros((0, 1), np.float32))
    layers, arrays = [], []
    for shape, factor in (((inner, hidden), size), ((inner, hidden), min(size, 300)), ((hidden, inner), 1)):
        weight, weight_scale = quantize_rows(_normal(rng, *shape) / 7)
        layers.append((weight, weight_scale * np.float32(factor), _normal(rng, shape[0]) * np.float32(factor)))
        arrays += [pack(weight), *layers[-1][1:]]
    (y,) = execution(f"Int8{name}MulFeedForward", [quantized, scale, *arrays], {})
    assert y.shape == (tokens, hidden)
    if not tokens:
        return
    up, gate = (_product(quantized, 128, scale, *layer[:2]) + layer[2] for layer in layers[:2])
    product = (activation(gate.astype(np.float64)) * up).astype(np.float32)
    between, between_scale = _of_both_signs(product)
    expected = _product(between, 128, between_scale, *layers[2][:2]) + layers[2][2]
    assert (between_scale == np.float32(2.0**-16)).any() == (size == 0.01)
    # Values of the inner layer may round to the next integer.
    error = 0.03 * np.abs(product).max()
    assert np.abs(y - expected).max() <= error
    if size == 0.01:
        return  # nothing but the bias is left of the products
    (exchanged,) = execution(
        f"Int8{name}MulFeedForward", [quantized, scale, *arrays[3:6], *arrays[:3], *arrays[6:]], {}
    )
    assert np.abs(exchanged - expected).max() > 2 * error, "M30: gate and up exchanged are seen"


@every_graph
@pytest.mark.parametrize("tokens", [3, 129])
@pytest.mark.parametrize("name", ["Gelu", "Silu"])
def test_gated_products_beyond_float16_are_the_largest(execution, name, tokens):
    """K19: with both signs, and beside values that fit."""
    width = 16
    rows, one = np.full((tokens, width), 129, np.uint8), np.ones(width, np.float32)
    up = np.zeros((width, width), np.int8)
    up[:, 0] = 1
    factors = np.full(width, 1e4, np.float32)
    factors[1], factors[2:] = -1e4, 0.0
    gate = np.full((width, width), 8, np.int8)
    eye = [pack(np.eye(width, dtype=np.int8)), one, 0 * one]
    layers = [pack(up), factors, 0 * one, pack(gate), np.full(width, 100, np.float32), 0 * one]
    scale = np.resize(np.array([1.0, 0.5, 1e-3], np.float32), (tokens, 1))
    (y,) = execution(f"Int8{name}MulFeedForward", [rows, scale, *layers, *eye], {})
    expected = np.minimum(np.float32(65504 * 256), 1e4 * scale * (12800 * scale))
    assert np.allclose(y[:, 0], expected[:, 0], rtol=5e-3)
    assert np.allclose(y[:, 1], -expected[:, 0], rtol=5e-3)
    assert not y[:, 2:].any()


@every_graph
@pytest.mark.parametrize("tokens", [3, 129])
def test_values_beyond_float16_after_gelu_are_the_largest(execution, tokens):
    """K19: beside a value that fits."""
    width = 16
    rows, one = np.full((tokens, width), 129, np.uint8), np.ones(width, np.float32)
    eye = pack(np.eye(width, dtype=np.int8))
    factors = np.full(width, 1e8, np.float32)
    factors[1], factors[2:] = 1e7, 0.0
    scale = np.resize(np.array([1.0, 0.5, 1e-3], np.float32), (tokens, 1))
    (y,) = execution("Int8FeedForward", [rows, scale, eye, factors, 0 * one, eye, one, 0 * one], {})
    expected = np.minimum(np.float32(65504 * 256), scale * factors[:2])
    step = expected[:, :1] / 223
    assert (np.abs(y[:, :2] - expected) <= 0.6 * step).all()
    assert not y[:, 2:].any()


@every_graph
@pytest.mark.parametrize("choose", ["any", "all on one", "some without tokens"])
@pytest.mark.parametrize("tokens", [0, 1, 33])
def test_experts(execution, tokens, choose):
    rng = np.random.default_rng(tokens)
    hidden, ffn, experts = 48, 32, 5
    allowed = {"any": experts, "all on one": 2, "some without tokens": experts - 2}[choose]
    expert_indices = np.array([rng.permutation(allowed)[:2] for _ in range(tokens)], np.int64).reshape(tokens, 2)
    weights, bias = rng.random((tokens, 2), np.float32), _normal(rng, hidden)
    x = _normal(rng, tokens, hidden)
    quantized, scale = _symmetric(x) if tokens else (np.zeros((0, hidden), np.uint8), np.zeros((0, 1), np.float32))
    up = [quantize_rows(_normal(rng, ffn, hidden) / 7) for _ in range(experts)]
    down = [quantize_rows(_normal(rng, hidden, ffn) / 6) for _ in range(experts)]
    weight_scale1, weight_scale2 = np.stack([s for _, s in up]), np.stack([s for _, s in down])
    packed = [pack(m) for m, _ in up + down]
    (y,) = execution(
        "Int8Experts", [quantized, scale, weights, expert_indices, bias, weight_scale1, weight_scale2, *packed], {}
    )
    assert y.shape == (tokens, hidden)
    for token in range(tokens):
        expected = bias.astype(np.float64)
        for rank, expert in enumerate(expert_indices[token]):
            row = slice(token, token + 1)
            inner = _product(quantized[row], 128, scale[row], up[expert][0], weight_scale1[expert])
            active, active_scale = _positive(_gelu(inner.astype(np.float64)).astype(np.float32))
            out = _product(active, GELU_ZERO_POINT, active_scale, down[expert][0], weight_scale2[expert])[0]
            expected = expected + weights[token, rank] * out
        # One value of the inner layer may round to the next integer.
        assert np.allclose(y[token], expected, atol=0.03)


@every_graph
def test_norms_and_embedding(execution):
    rng = np.random.default_rng(0)
    x, residual = _normal(rng, 9, 48), _normal(rng, 9, 48)
    gamma, beta, smooth = _normal(rng, 48), _normal(rng, 48), rng.random(48, np.float32) + 0.5
    total = (x + residual).astype(np.float64)
    norm = (total - total.mean(1, keepdims=True)) / np.sqrt(total.var(1, keepdims=True) + 1e-5) * gamma + beta
    (plain,) = execution("AddNorm", [x, residual, gamma, beta], {"epsilon": 1e-5})
    y, quantized, _ = execution("AddNormQuantize", [x, residual, gamma, beta, smooth], {"epsilon": 1e-5})
    assert np.array_equal(plain, y)
    assert np.allclose(y, norm, atol=OP_MAX_ABS)
    assert np.array_equal(quantized, _symmetric(y * smooth)[0])

    table, weight_scale = quantize_rows(_normal(rng, 30, 48))
    ids = np.array([3, 29, 3, 0], np.int64)
    words = (table[ids].astype(np.float32) * weight_scale[ids, None] + residual[0]).astype(np.float64)
    norm = (words - words.mean(1, keepdims=True)) / np.sqrt(words.var(1, keepdims=True) + 1e-5) * gamma + beta
    y, quantized, _ = execution(
        "Int8Embedding", [ids, table, weight_scale, residual[0], gamma, beta, smooth], {"epsilon": 1e-5}
    )
    assert np.allclose(y, norm, atol=OP_MAX_ABS)
    assert np.array_equal(quantized, _symmetric(y * smooth)[0])

    gamma, beta, token_type, smooth = _normal(rng, 4, 96)
    table4, weight_scale4 = quantize_blocks(_normal(rng, 30, 96))
    words = (dequantize_blocks(table4, weight_scale4)[ids] + token_type).astype(np.float64)
    norm = (words - words.mean(1, keepdims=True)) / np.sqrt(words.var(1, keepdims=True) + 1e-5) * gamma + beta
    y, quantized, _ = execution(
        "Int4Embedding", [ids, table4, weight_scale4, token_type, gamma, beta, smooth], {"epsilon": 1e-5}
    )
    assert np.allclose(y, norm, atol=OP_MAX_ABS)
    assert np.array_equal(quantized, _symmetric(y * smooth)[0])


@every_graph
def test_an_embedding_with_a_second_operand_for_each_token(execution):
    """Learned positions: a row of its own for each id, in both tables."""
    rng = np.random.default_rng(1)
    ids, smooth = np.array([3, 29, 3, 0], np.int64), np.ones(96, np.float32)
    gamma, beta, positions = _normal(rng, 96), _normal(rng, 96), _normal(rng, 4, 96)
    table8, table4 = quantize_rows(_normal(rng, 30, 96)), quantize_blocks(_normal(rng, 30, 96))
    words = {
        "Int8Embedding": table8[0][ids].astype(np.float32) * table8[1][ids, None],
        "Int4Embedding": dequantize_blocks(*table4)[ids],
    }
    for op, table in (("Int8Embedding", table8), ("Int4Embedding", table4)):
        total = (words[op] + positions).astype(np.float64)
        norm = (total - total.mean(1, keepdims=True)) / np.sqrt(total.var(1, keepdims=True) + 1e-5) * gamma + beta
        y, quantized, _ = execution(op, [ids, *table, positions, gamma, beta, smooth], {"epsilon": 1e-5})
        assert np.allclose(y, norm, atol=OP_MAX_ABS)
        assert np.array_equal(quantized, _symmetric(y)[0])


@every_graph
@pytest.mark.parametrize(
    ("op", "act"), [("GeluMulQuantize", _gelu), ("SiluMulQuantize", lambda x: x / (1 + np.exp(-x)))]
)
def test_gated_products(execution, op, act):
    """M36: signed and unbounded, so symmetric around 128; the largest of a row gets 1 or 255, also with a channel far larger."""
    rng = np.random.default_rng(2)
    gate, up = 3 * _normal(rng, 9, 48), _normal(rng, 9, 48)
    up[4, 7], up[5], gate[6] = 1e4, 0, -50
    product = act(gate.astype(np.float64)) * up
    quantized, scale = execution(op, [gate, up], {})
    assert np.allclose(scale[:, 0], np.abs(product).max(1) / 127, rtol=1e-3, atol=1e-6)
    assert set(np.abs(quantized[[0, 1, 2, 3, 4, 7, 8]].astype(int) - 128).max(1)) == {127}
    assert (quantized[5] == 128).all()
    assert np.abs(quantized.astype(int) - 128 - product / scale)[:5].max() < 0.5 + 2e-2


@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-7, 1e-6, 0.02, 1.0, 3000.0]))
@settings(max_examples=60, deadline=None)
def test_4_bit_blocks_lose_little_and_requantize_exactly(seed, size):
    rng = np.random.default_rng(seed)
    matrix = _normal(rng, 6, 64) * np.float32(size)
    matrix[0, :32], matrix[1] = 0, np.sign(matrix[1]) * np.float32(size)
    quantized, weight_scale = quantize_blocks(matrix)
    values = dequantize_blocks(quantized, weight_scale)
    again, scale_again = quantize_blocks(values)
    assert np.array_equal(dequantize_blocks(again, scale_again), values)
    if size > 1e-4:  # the scales are not subnormal: then the same values may have two representations
        assert np.array_equal(again, quantized)
        assert np.array_equal(scale_again, weight_scale)
        peaks = np.abs(matrix).reshape(6, 2, 32).max(2).repeat(32, axis=1)
        assert (np.abs(values - matrix) <= peaks * 0.151).all()
        assert np.square(values - matrix).sum() <= 0.015 * np.square(matrix).sum()


@given(st.integers(0, 2**32 - 1), st.integers(0, 8), st.booleans())
@settings(max_examples=200, deadline=None)
def test_values_that_are_4_bit_integers_times_a_scale_are_reproduced(seed, most, subnormal):
    """Also where a block has no integer of the largest magnitude, or has it with both signs."""
    rng = np.random.default_rng(seed)
    quantized = rng.integers(-most, min(most, 7) + 1, (40, 2, 32)).astype(np.float32)
    weight_scale = (rng.integers(0, 1024, (40, 2, 1)) * 2.0**-24 if subnormal else rng.random((40, 2, 1))).astype(
        np.float16
    )
    table = (quantized * weight_scale.astype(np.float32)).reshape(40, 64)
    assert np.array_equal(dequantize_blocks(*quantize_blocks(table)), table)


@pytest.mark.parametrize("value", [65600.0, -1e7, np.inf, np.nan])
def test_values_beyond_4_bit_scales_are_refused(value):
    matrix = np.ones((2, 32), np.float32)
    matrix[1, 3] = value
    with pytest.raises(
        InputError, match="a value of magnitude .*, but in 4 bits at most 65504 is possible: use a recipe"
    ):
        quantize_blocks(matrix)
    matrix[1, 3] = 65504
    assert dequantize_blocks(*quantize_blocks(matrix))[1, 3] == pytest.approx(65504, rel=1e-3)
