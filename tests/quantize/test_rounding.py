"""Rounding of weights: errors cancel on the inputs, and every machine gives the same integers."""

import numpy as np
import pytest

from moembed.quantize.exact import exact_product, fixed_point
from moembed.quantize.layout import quantize_rows
from moembed.quantize.rounding import rounded, second_moments, spread_of
from moembed.quantize.smoothing import _power

ZERO_POINT = 128


def _normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def _quantized(rows):
    scales = np.abs(rows).max(axis=1, keepdims=True) / np.float32(127)
    return (np.rint(rows / scales) + ZERO_POINT).astype(np.uint8), scales


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def correlated(rng):
    return _normal(rng, 400, 12) @ _normal(rng, 12, 200) + 0.1 * _normal(rng, 400, 200)


def test_rounding_makes_errors_cancel(rng, correlated):
    other = _normal(rng, 400, 12) @ _normal(rng, 12, 200)
    matrix = _normal(rng, 32, 200)
    integers, scales = rounded(matrix, second_moments(*_quantized(correlated), ZERO_POINT), 0.01)
    plain, plain_scales = quantize_rows(matrix)
    assert np.array_equal(scales, plain_scales)
    assert np.abs(integers).max() <= 127

    def error(candidate, rows):
        return np.square(rows @ (matrix - candidate * scales[:, None]).T).mean()

    assert error(integers, correlated) < 0.5 * error(plain, correlated)
    assert error(integers, other) < 3 * error(plain, other), "errors stay bounded for other inputs"


def test_inputs_that_say_nothing_give_plain_rounding(rng):
    matrix = _normal(rng, 16, 64)
    none = second_moments(np.empty((0, 64), np.uint8), np.empty((0, 1), np.float32), ZERO_POINT)
    assert np.array_equal(rounded(matrix, none, 0.01)[0], quantize_rows(matrix)[0])


def test_moments_are_those_of_the_rows(correlated):
    quantized, scales = _quantized(correlated)
    rows = (quantized - np.float64(ZERO_POINT)) * scales
    found = second_moments(quantized, scales, ZERO_POINT)
    expected = rows.T @ rows
    assert np.allclose(found / np.trace(found), expected / np.trace(expected), atol=1e-6)


def test_the_spread_is_that_of_the_moments(correlated):
    """`L.T @ error`, from the definition: a column compensates for those after it."""
    moments = second_moments(*_quantized(correlated), ZERO_POINT)
    order, spread = spread_of(moments.copy(), 0.01)
    damped = moments + 0.01 * np.trace(moments) / len(moments) * np.eye(len(moments))
    lower = np.linalg.cholesky(damped[np.ix_(order, order)])
    assert np.allclose(spread, lower / np.diag(lower), rtol=1e-4, atol=1e-4)


def test_products_do_not_depend_on_the_order(rng):
    """A permutation of the terms changes the order of summation, as another BLAS library or number of threads does."""
    a, b = fixed_point(rng.standard_normal((50, 700))), fixed_point(rng.standard_normal((700, 60)))
    expected = exact_product(a[:, :512], b[:512]) + exact_product(a[:, 512:], b[512:])
    assert np.array_equal(exact_product(a, b), expected)
    for _ in range(20):
        order = np.concatenate([rng.permutation(512), 512 + rng.permutation(188)])
        assert np.array_equal(exact_product(a[:, order], b[order]), expected)
    floats = rng.standard_normal((50, 512)), rng.standard_normal((512, 60))
    sums = {(floats[0][:, order] @ floats[1][order]).tobytes() for order in (rng.permutation(512) for _ in range(20))}
    assert len(sums) > 1, "without rounding, the order matters"


def test_moments_do_not_depend_on_the_order_of_a_chunk(rng):
    quantized, scales = _quantized(_normal(rng, 1000, 96))
    expected = second_moments(quantized, scales, ZERO_POINT)
    for _ in range(10):
        order = rng.permutation(len(quantized))
        assert np.array_equal(second_moments(quantized[order], scales[order], ZERO_POINT), expected)


def test_powers_are_correctly_rounded():
    values = np.array([1e-4, 0.3, 1.0, 2.0, 7.77, 4096.0], np.float32)
    assert _power(values, 1.0).tolist() == values.astype(np.float64).tolist()
    assert np.allclose(_power(values, 0.6), values.astype(np.float64) ** 0.6, rtol=1e-15)
    assert _power(np.array([1024.0], np.float32), 0.5).tolist() == [32.0]
