"""Values and numbers of rows at which kernels of others went wrong, for every table that this machine can run."""

import numpy as np
import pytest

from moembed.quantize.function_parts import GELU_ZERO_POINT
from moembed.quantize.layout import pack
from support import op_inputs
from support.graph_ops import NATIVE, every_graph, needs_native, run_graph
from support.tolerances import KERNEL_EXPERT_MAX_ABS

EDGES = (0, 1, 15, 16, 17, 31, 32, 33, 255, 256, 257)


def _halves(rows, width, most, rng):
    """Multiples of 1/2 up to `most`, half of them between two integers; the largest of each row is `most`."""
    x = rng.integers(-2 * most, 2 * most + 1, (rows, width)) / 2
    x[:, 0] = most
    return x.astype(np.float32)


@every_graph
@pytest.mark.parametrize("rows", [1, 5, 33])
def test_halves_are_rounded_to_even(execution, rows):
    """K17: in the vectors of a row and in what is left of it."""
    for width in (4, 16, 60, 64, 100):
        x = _halves(rows, width, 127, np.random.default_rng(width))
        quantized, scale = execution("Quantize", [x], {})
        assert (scale == 1).all()
        assert np.array_equal(quantized, (np.rint(x) + 128).astype(np.uint8))


def _multiples(width):
    """Inputs of a product of depth `width` with the results 0, 1/2, 1, ... 223 in every row, and one that is negative."""
    columns = 448
    weight = np.zeros((columns, width), np.int8)
    weight[:, 0], weight[:, 1] = np.arange(columns) % 4, np.arange(columns) // 4
    quantized = np.full((5, width), 128, np.uint8)
    quantized[:, 0], quantized[:, 1] = 129, 132
    bias = np.zeros(columns, np.float32)
    bias[-1] = -300
    halves = np.full(columns, 0.5, np.float32)
    return [quantized, np.ones((5, 1), np.float32), pack(weight), halves, bias]


@needs_native
def test_halves_after_gelu_are_rounded_alike():
    """K17: GELU of a half differs from it in the last bits, so tables are compared with each other."""
    identity = [pack(np.eye(448, dtype=np.int8)), np.ones(448, np.float32), np.zeros(448, np.float32)]
    x = (np.arange(448) / 2)[16:447]
    for op, arrays in (("Int8LinearGelu", _multiples(8)), ("Int8FeedForward", [*_multiples(448), *identity])):
        found = [run_graph(op, arrays, {}, kernels=name) for name in NATIVE]
        assert len({tuple(a.tobytes() for a in outputs) for outputs in found}) == 1
        # The second product gives the integers between the two, times their scale of 1.
        integers = found[0][0].astype(float) - (GELU_ZERO_POINT if op == "Int8LinearGelu" else 0)
        assert np.abs(integers[:, 16:447] - x).max() <= 0.5001


def _attention_of_halves(lengths):
    """Inputs of attention whose keys and values are halves with scale 1, without rotation, and the values."""
    rng, heads, dim, tokens = np.random.default_rng(5), 3, 16, sum(lengths)
    width = 3 * heads * dim
    double = rng.integers(-254, 255, (tokens, width))
    double.reshape(tokens, 3, heads, dim)[:, :, :, 0] = 254
    double[:, : width // 3] //= 16  # small queries, or the softmax would pick one key
    first = double // 2
    rows = (np.concatenate([first, double - first], axis=1) + 128).astype(np.uint8)
    weight, one, zero = np.concatenate([np.eye(width, dtype=np.int8)] * 2, axis=1), np.ones(width), np.zeros(width)
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    turns = [np.ones((len(mask[0]), dim // 2), np.float32), np.zeros((len(mask[0]), dim // 2), np.float32)]
    product = [rows, np.full((tokens, 1), 0.5, np.float32), pack(weight), *np.float32([one, zero])]
    return [*product, np.flatnonzero(mask), mask, *turns], {"num_heads": heads}, double[:, 2 * width // 3 :] / 2


@every_graph
def test_halves_of_values_are_rounded_to_even(execution):
    """K17: attention of a text of one token is its value, as it was quantized."""
    arrays, attributes, values = _attention_of_halves([1] * 40)
    attended, scale = execution("Int8Attention", arrays, attributes)
    assert (scale == 1).all()
    assert np.array_equal(attended, (np.rint(values) + 128).astype(np.uint8))


@needs_native
def test_halves_of_keys_are_rounded_alike():
    """K17: keys show in the scores only, so tables are compared with each other."""
    arrays, attributes, _ = _attention_of_halves([7, 40])
    found = [run_graph("Int8Attention", arrays, attributes, kernels=name) for name in NATIVE]
    assert len({tuple(a.tobytes() for a in outputs) for outputs in found}) == 1


def _patterns(width):
    """Rows of +-127: everywhere, in every group of 1 to 4 neighbours, and with each sign beside each other."""
    rows = [np.resize(signs, width) for signs in ([127], [-127], [127, -127], [127, 127, -127, -127])]
    for count in (1, 2, 3, 4):
        for start in range(width - count + 1):
            for sign in (127, -127):
                row = np.zeros(width)
                row[start : start + count] = sign
                rows.append(row)
    rows += [np.zeros(width)] * (-len(rows) % 16)
    return np.array(rows, np.int8)


@every_graph
@pytest.mark.parametrize("zero_point", [128, GELU_ZERO_POINT])
@pytest.mark.parametrize("tokens", [1, 4, 5, 17, 33])
def test_largest_values_do_not_saturate_in_any_position(execution, tokens, zero_point):
    """K18: pairs of products that overflow 16 bits."""
    for width in (64, 76, 128):
        matrix = _patterns(width)
        ones = np.ones(len(matrix), np.float32)
        for quantized in (np.full((tokens, width), 255, np.uint8), np.tile(np.uint8([255, 0]), (tokens, width // 2))):
            arrays = [quantized, np.ones((tokens, 1), np.float32), pack(matrix), ones, 0 * ones]
            (y,) = execution("Int8Linear", arrays, {"zero_point": zero_point})
            assert np.array_equal(y, (quantized.astype(np.int64) - zero_point) @ matrix.T.astype(np.int64))


@needs_native
@pytest.mark.parametrize("rows", EDGES)
@pytest.mark.parametrize("top_k", [1, 2])
def test_all_tokens_to_one_expert(rows, top_k):
    """K20: numbers of rows around those at which tasks and tiles are divided, and with two slots, two experts for all."""
    for seed in range(3):
        rng = np.random.default_rng((rows, seed))
        other = int(rng.integers(0, 4))  # not always the first ones
        for op, arrays, attributes in op_inputs.experts(rng, rows, allowed=top_k, top_k=top_k):
            arrays[3] = arrays[3] + other
            expected = run_graph(op, arrays, attributes)
            found = [run_graph(op, arrays, attributes, kernels=name, threads=n) for name in NATIVE for n in (1, 2)]
            assert len({tuple(a.tobytes() for a in outputs) for outputs in found}) == 1
            for got, want in zip(found[0], expected, strict=True):
                if got.dtype == np.float32:
                    limit = KERNEL_EXPERT_MAX_ABS * max(1, np.abs(want).max(initial=0))
                    assert np.abs(got - want).max(initial=0) <= limit


@needs_native
@pytest.mark.parametrize("rows", EDGES)
def test_gated_networks_of_any_number_of_rows(rows):
    """K20: by parts of the weights and by parts of the rows; and a few rows by themselves."""
    rng = np.random.default_rng(rows)
    for op, arrays, attributes in op_inputs.gated_feed_forward(rng, rows):
        found = [run_graph(op, arrays, attributes, kernels=name, threads=n) for name in NATIVE for n in (1, 2)]
        assert len({tuple(a.tobytes() for a in outputs) for outputs in found}) == 1
        for got, want in zip(found[0], run_graph(op, arrays, attributes), strict=True):
            if got.dtype == np.float32:
                limit = KERNEL_EXPERT_MAX_ABS * max(1, np.abs(want).max(initial=0))
                assert np.abs(got - want).max(initial=0) <= limit
        few = [array[-5:] if index in (0, 1, 11) else array for index, array in enumerate(arrays)]
        for alone, all_rows in zip(run_graph(op, few, attributes, kernels=NATIVE[0]), found[0], strict=True):
            assert np.array_equal(alone, all_rows[-5:])
