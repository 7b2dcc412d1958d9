"""Definition of the INT8 ops of domain `moembed`: ONNX functions with bodies of standard operators.

Activations are quantized per token row, where they are computed. The quantized values of a row depend on that row alone,
and integer sums do not depend on the order of summation, so the result is batch-invariant. Quantized activations are
unsigned bytes with a fixed zero point, the operand that CPUs multiply with signed weights:

* after a norm or attention, symmetric around 128: `scale = max|x| / 127`;
* after GELU, around 32: erf GELU never falls below -0.17, so `scale = max(max x / 223, 0.17 / 32)` clips nothing there and
  resolves the positive side almost twice as finely.

A product is `(float(sum) * weight_scale) * scale + bias`, in this order and without fused operations. (Not
`scale * weight_scale` first: ONNX Runtime 1.31 fuses that with the bias into MatMulIntegerToFloat, which then scales the
bias too.) `moembed.quantize.layout` describes the packing of weights. `unit` in `_UNIT` is a 1 that ONNX Runtime cannot fold,
which lets it fuse the cast and the first product.

Attention quantizes queries, keys and values once more, with a scale for each token and head: queries to 16 bits, keys and
values to 8. Scores are exact integer sums, rounded to float once. The largest score of a query is found over all keys before any
power is computed, and nothing is rescaled afterwards. A power times the scale of its value, relative to the largest scale of the
text's values, is rounded to 15 bits; the sums of these integers and the values are exact too. So the result depends on the query
and on the keys and values of its text, and not on how a kernel divides them. Operands of 15 and 16 bits are split into bytes.
"""

from functools import cache

import onnx
from onnx import parser

from moembed.export.functions import HEADER, MASK_BIAS, MIXED, PLACES, ROTATED, SORTED, expert_names

SYMMETRIC_ZERO_POINT, GELU_ZERO_POINT = 128, 32

_CONSTANTS = """
    axis1 = Constant <value_ints = [1]> ()
    four = Constant <value_ints = [4]> ()
    sixteen = Constant <value_ints = [16]> ()
"""

# {x} [T,K] -> {p}quantized [T,K] uint8 around 128, {p}scale [T,1]
_SYMMETRIC = """
    {p}abs = Abs ({x})
    {p}top = ReduceMax <keepdims = 1> ({p}abs, axis1)
    {p}range = Constant <value_float = 127.0> ()
    {p}fair = Div ({p}top, {p}range)
    {p}least = Constant <value_float = 1.17549435e-38> ()
    {p}scale = Max ({p}fair, {p}least)
    {p}scales = Squeeze ({p}scale, axis1)
    {p}count = Shape ({p}scales)
    {p}zero_point = ConstantOfShape <value = uint8[1] {{128}}> ({p}count)
    {p}quantized = QuantizeLinear <axis = 0> ({x}, {p}scales, {p}zero_point)
"""

# The same for the output of a GELU, around 32: from the maximum of each row, {p}top [T,1].
_POSITIVE = """
    {p}range = Constant <value_float = 223.0> ()
    {p}fair = Div ({p}top, {p}range)
    {p}least = Constant <value_float = 0.0053125> ()
    {p}scale = Max ({p}fair, {p}least)
    {p}scales = Squeeze ({p}scale, axis1)
    {p}count = Shape ({p}scales)
    {p}zero_point = ConstantOfShape <value = uint8[1] {{32}}> ({p}count)
"""

# Shape [K,N] of a packed weight [N/16,K/4,16,4]; it is constant, so it is computed once, when the session is created.
_SHAPE = """
    {p}blocks = Shape <start = 0, end = 1> ({w})
    {p}depth = Shape <start = 1, end = 2> ({w})
    {p}n = Mul ({p}blocks, sixteen)
    {p}k = Mul ({p}depth, four)
    {p}shape = Concat <axis = 0> ({p}k, {p}n)
"""
_UNIT = """
    unit_count = Shape <start = 0, end = 1> ({quantized})
    unit_yes = Equal (unit_count, unit_count)
    unit = Cast <to = 1> (unit_yes)
"""

# {quantized} [T,K], packed {w}, {weight_scale} [N] -> {p}scaled [T,N]; the product is that times the scale of the row
_SCALED = """
    {p}turned = Transpose <perm = [1, 3, 0, 2]> ({w})
    {p}matrix = Reshape ({p}turned, {shape})
    {p}sums = MatMulInteger ({quantized}, {p}matrix, {zero_point})
    {p}wide = Cast <to = 1> ({p}sums)
    {p}unfolded_scale = Mul (unit, {weight_scale})
    {p}scaled = Mul ({p}wide, {p}unfolded_scale)
"""
_PRODUCT = _SCALED + "    {out} = Mul ({p}scaled, {scale})\n"


def _linear(*, quantized: str, scale: str) -> str:
    names = {"quantized": quantized, "weight_scale": "weight_scale", "scale": scale, "zero_point": "zero_point8"}
    product = _PRODUCT.format(p="y_", w="weight", shape="w_shape", out="raw", **names)
    return _SHAPE.format(p="w_", w="weight") + _UNIT.format(quantized=quantized) + product


# x [T,K] -> quantized [T,K] uint8, scale [T,1]
_QUANTIZE = (
    "Quantize (x) => (quantized, scale)\n{"
    + _CONSTANTS
    + _SYMMETRIC.format(p="x_", x="x")
    + ("    quantized = Identity (x_quantized)\n    scale = Identity (x_scale)\n}")
)

# x [T,hidden], smooth [hidden] -> x * smooth quantized, scale
_SMOOTHED = (
    "    smoothed = Mul (y, smooth)\n"
    + _SYMMETRIC.format(p="x_", x="smoothed")
    + ("    quantized = Identity (x_quantized)\n    scale = Identity (x_scale)\n}")
)

_WORDS8 = """
    rows = Gather (table, ids)
    scales = Gather (table_scale, ids)
    words = DequantizeLinear <axis = 0> (rows, scales)
"""

# A byte holds two 4-bit values, the lower half first. The product is exact: a value has 4 bits and a scale 11.
_WORDS4 = """
    pairs = Gather (table, ids)
    fifteen = Constant <value = uint8[1] {15}> ()
    half = Constant <value = uint8[1] {4}> ()
    first = BitwiseAnd (pairs, fifteen)
    second = BitShift <direction = "RIGHT"> (pairs, half)
    end = Constant <value_ints = [-1]> ()
    first_of_two = Unsqueeze (first, end)
    second_of_two = Unsqueeze (second, end)
    twos = Concat <axis = -1> (first_of_two, second_of_two)
    count = Shape (ids)
    per_row = Shape <start = 1, end = 2> (table_scale)
    size = Constant <value_ints = [32]> ()
    blocked = Concat <axis = 0> (count, per_row, size)
    blocks = Reshape <allowzero = 1> (twos, blocked)
    places = Cast <to = 1> (blocks)
    eight = Constant <value_float = 8.0> ()
    centred = Sub (places, eight)
    halves = Gather (table_scale, ids)
    singles = Cast <to = 1> (halves)
    scales = Unsqueeze (singles, end)
    values = Mul (centred, scales)
    width = Shape (type)
    flat = Concat <axis = 0> (count, width)
    words = Reshape <allowzero = 1> (values, flat)
"""


# ids [T], table and table_scale, type, gamma, beta, smooth [hidden] -> y [T,hidden], quantized, scale
def _embedding(name: str, words: str) -> str:
    return (
        f"{name} <epsilon> (ids, table, table_scale, type, gamma, beta, smooth) => (y, quantized, scale)\n{{"
        + _CONSTANTS
        + words
        + """
    typed = Add (words, type)
    y = LayerNormalization <axis = -1, epsilon: float = @epsilon> (typed, gamma, beta)
"""
        + _SMOOTHED
    )


# Bits of a value in the table -> op. 8: table [V,hidden] int8 and table_scale [V]. 4: table [V,hidden/2] uint8 with zero point 8,
# and table_scale [V,hidden/32] float16.
EMBEDDINGS = {8: "Int8Embedding", 4: "Int4Embedding"}
_EMBEDDINGS = tuple(_embedding(EMBEDDINGS[bits], words) for bits, words in ((8, _WORDS8), (4, _WORDS4)))

# x and residual [T,hidden], gamma and beta [hidden] -> y [T,hidden]
_ADD_NORM = """
AddNorm <epsilon> (x, residual, gamma, beta) => (y)
{
    sum = Add (x, residual)
    y = LayerNormalization <axis = -1, epsilon: float = @epsilon> (sum, gamma, beta)
}
"""

# The same, and y * smooth quantized for the product that reads it: y [T,hidden], quantized, scale
_ADD_NORM_QUANTIZE = (
    "AddNormQuantize <epsilon> (x, residual, gamma, beta, smooth) => (y, quantized, scale)\n{"
    + _CONSTANTS
    + """
    sum = Add (x, residual)
    y = LayerNormalization <axis = -1, epsilon: float = @epsilon> (sum, gamma, beta)
"""
    + _SMOOTHED
)

# quantized [T,K] with zero point `zero_point`, scale [T,1], weight packed, weight_scale [N], bias [N] -> y [T,N]
_LINEAR = (
    "Int8Linear <zero_point> (quantized, scale, weight, weight_scale, bias) => (y)\n{"
    + _CONSTANTS
    + """
    zero_point0 = Constant <value_int: int = @zero_point> ()
    zero_point8 = Cast <to = 2> (zero_point0)
"""
    + _linear(quantized="quantized", scale="scale")
    + "    y = Add (raw, bias)\n}"
)

# The same followed by GELU -> quantized around 32, and scale, for the next product
_LINEAR_GELU = (
    "Int8LinearGelu (x_quantized, x_scale, weight, weight_scale, bias) => (quantized, scale)\n{"
    + _CONSTANTS
    + "    zero_point8 = Constant <value = uint8 {128}> ()\n"
    + _linear(quantized="x_quantized", scale="x_scale")
    + """
    biased = Add (raw, bias)
    active = Gelu (biased)
    h_top = ReduceMax <keepdims = 1> (active, axis1)
"""
    + _POSITIVE.format(p="h_")
    + "    quantized = QuantizeLinear <axis = 0> (active, h_scales, h_zero_point)\n    scale = Identity (h_scale)\n}"
)

# quantized [T,K], scale [T,1], w1 packed, w1_scale [ffn], b1 [ffn], w2 packed, w2_scale [N], b2 [N] -> y [T,N]: both products
# of a feed-forward network, with GELU between them
_FEED_FORWARD = (
    "Int8FeedForward (quantized, scale, w1, w1_scale, b1, w2, w2_scale, b2) => (y)\n{"
    + _CONSTANTS
    + "    zero_point8 = Constant <value = uint8 {128}> ()\n    gelu8 = Constant <value = uint8 {32}> ()\n"
    + _UNIT.format(quantized="quantized")
    + _SHAPE.format(p="w1_", w="w1")
    + _PRODUCT.format(
        p="up_",
        quantized="quantized",
        w="w1",
        shape="w1_shape",
        zero_point="zero_point8",
        weight_scale="w1_scale",
        scale="scale",
        out="raw",
    )
    + """
    biased = Add (raw, b1)
    active = Gelu (biased)
    h_top = ReduceMax <keepdims = 1> (active, axis1)
"""
    + _POSITIVE.format(p="h_")
    + "    h_quantized = QuantizeLinear <axis = 0> (active, h_scales, h_zero_point)\n"
    + _SHAPE.format(p="w2_", w="w2")
    + _PRODUCT.format(
        p="down_",
        quantized="h_quantized",
        w="w2",
        shape="w2_shape",
        zero_point="gelu8",
        weight_scale="w2_scale",
        scale="h_scale",
        out="down",
    )
    + "    y = Add (down, b2)\n}"
)

# {x} [T,heads,head_dim] -> {p}scale [T,heads,1] and {p}rounded, between -{range} and {range}
_HEAD = """
    {p}size = Abs ({x})
    {p}top = ReduceMax <keepdims = 1> ({p}size, axis2)
    {p}range = Constant <value_float = {range}> ()
    {p}fair = Div ({p}top, {p}range)
    {p}scale = Max ({p}fair, least)
    {p}inverse = Reciprocal ({p}scale)
    {p}unrounded = Mul ({x}, {p}inverse)
    {p}rounded = Round ({p}unrounded)
"""

# {x}, not negative -> its {p}low and {p}high byte
_BYTES = """
    {p}word = Cast <to = 6> ({x})
    {p}high_word = Div ({p}word, byte)
    {p}whole = Mul ({p}high_word, byte)
    {p}low_word = Sub ({p}word, {p}whole)
    {p}high = Cast <to = 2> ({p}high_word)
    {p}low = Cast <to = 2> ({p}low_word)
"""

# {x} [T,heads,any] -> {y} [batch,heads,columns,any], or with the last two axes exchanged
_GRID = """
    {y}_cells = Gather ({x}, places)
    {y}_grid = Reshape ({y}_cells, {shape})
    {y} = Transpose <perm = [0, 2, {perm}]> ({y}_grid)
"""

# quantized [T,K] around 128, scale [T,1], weight packed [3*hidden], weight_scale and qkv_bias [3*hidden], tokens [T],
# attention_mask [batch,sequence], cos and sin [positions,head_dim/2] -> attended [T,hidden] around 128 and its scale [T,1]
_ATTENTION = (
    "Int8Attention <num_heads> (quantized, scale, weight, weight_scale, qkv_bias, tokens, attention_mask, cos, sin)"
    " => (attended, attended_scale)\n{"
    + _CONSTANTS
    + "    zero_point8 = Constant <value = uint8 {128}> ()\n"
    + _linear(quantized="quantized", scale="scale")
    + "    qkv = Add (raw, qkv_bias)\n"
    + ROTATED
    + PLACES
    + MASK_BIAS
    + """
    axis2 = Constant <value_ints = [2]> ()
    axis3 = Constant <value_ints = [3]> ()
    least = Constant <value_float = 1.17549435e-38> ()
    byte = Constant <value = int32 {256}> ()
    q_offset = Constant <value_float = 32768.0> ()
    by_head = Concat <axis = 0> (count, heads, head_dim)
    single = Constant <value_ints = [1]> ()
    scale_shape = Concat <axis = 0> (batch, columns, heads, single)
    q_heads = Reshape <allowzero = 1> (q_rows, by_head)
    k_heads = Reshape <allowzero = 1> (k_rows, by_head)
    v_heads = Reshape <allowzero = 1> (v_packed, by_head)
"""
    + _HEAD.format(p="q_", x="q_heads", range="32767.0")
    + _HEAD.format(p="k_", x="k_heads", range="127.0")
    + _HEAD.format(p="v_", x="v_heads", range="127.0")
    + "    q_shifted = Add (q_rounded, q_offset)\n"
    + _BYTES.format(p="q_", x="q_shifted")
    + """
    k_integers = Cast <to = 3> (k_rounded)
    v_integers = Cast <to = 3> (v_rounded)
"""
    + _GRID.format(x="q_low", y="ql", shape="grid_shape", perm="1, 3")
    + _GRID.format(x="q_high", y="qh", shape="grid_shape", perm="1, 3")
    + _GRID.format(x="q_scale", y="qs", shape="scale_shape", perm="1, 3")
    + _GRID.format(x="k_integers", y="k", shape="grid_shape", perm="3, 1")
    + _GRID.format(x="k_scale", y="ks", shape="scale_shape", perm="3, 1")
    + _GRID.format(x="v_integers", y="v", shape="grid_shape", perm="1, 3")
    + _GRID.format(x="v_scale", y="vs", shape="scale_shape", perm="3, 1")
    + """
    low_sums = MatMulInteger (ql, k)
    high_sums = MatMulInteger (qh, k, zero_point8)
    high_shifted = Mul (high_sums, byte)
    score_sums = Add (high_shifted, low_sums)
    score_floats = Cast <to = 1> (score_sums)
    unmasked = Mul (score_floats, ks)
    scores = Add (unmasked, bias)
    largest = ReduceMax <keepdims = 1> (scores, axis3)
    below = Sub (scores, largest)
    width = CastLike (head_dim, qkv)
    root = Sqrt (width)
    log2e = Constant <value_float = 1.44269504> ()
    per_root = Div (log2e, root)
    factor = Mul (qs, per_root)
    exponents = Mul (below, factor)
    base = Constant <value_float = 2.0> ()
    unmasked_powers = Pow (base, exponents)
    present = Unsqueeze (mask, axis12)
    powers = Mul (unmasked_powers, present)
    sums = ReduceSum <keepdims = 1> (powers, axis3)
    vs_present = Mul (vs, present)
    vs_top = ReduceMax <keepdims = 1> (vs_present, axis3)
    vs_most = Max (vs_top, least)
    share_range = Constant <value_float = 32767.0> ()
    vs_part = Div (vs_present, vs_most)
    vs_weight = Mul (vs_part, share_range)
    unrounded_shares = Mul (powers, vs_weight)
    shares = Round (unrounded_shares)
"""
    + _BYTES.format(p="share_", x="shares")
    + """
    low_mixed = MatMulInteger (share_low, v)
    high_mixed = MatMulInteger (share_high, v)
    low_wide = Cast <to = 11> (low_mixed)
    high_wide = Cast <to = 11> (high_mixed)
    wide_byte = Constant <value = double {256.0}> ()
    shifted_wide = Mul (high_wide, wide_byte)
    mixed_wide = Add (shifted_wide, low_wide)
    mixed_floats = Cast <to = 1> (mixed_wide)
    share_unit = Div (vs_most, share_range)
    mean_factor = Div (share_unit, sums)
    mixed = Mul (mixed_floats, mean_factor)
    rows_first = Transpose <perm = [0, 2, 1, 3]> (mixed)
    out_shape = Concat <axis = 0> (cells, hidden)
    out = Reshape (rows_first, out_shape)
    y = Gather (out, cell)
"""
    + _SYMMETRIC.format(p="a_", x="y")
    + "    attended = Identity (a_quantized)\n    attended_scale = Identity (a_scale)\n}"
)

# Steps that all experts share are done once for all: the time of a short text is that of the number of operators.
_EXPERTS_HEAD = """
    zero_point8 = Constant <value = uint8 {{128}}> ()
    gelu8 = Constant <value = uint8 {{32}}> ()
    rows = Gather (quantized, tokens)
    row_scales = Gather (scale, tokens)
    {rows} = Split <axis = 0> (rows, counts)
    {scales} = Split <axis = 0> (row_scales, counts)
"""
_UP = """
    up{i}_index = Constant <value_int = {i}> ()
    up{i}_w1_scale = Gather <axis = 0> (w1_scale, up{i}_index)
"""
_ACTIVE = """
    active{i} = Gelu (raw{i})
    top{i} = ReduceMax <keepdims = 1> (active{i}, axis1)
"""
_BETWEEN = (
    "    h_top = Concat <axis = 0> ({tops})\n"
    + _POSITIVE.replace("{p}", "h_")
    + """
    {h_scales} = Split <axis = 0> (h_scales, counts)
    {h_zero_points} = Split <axis = 0> (h_zero_point, counts)
"""
)
_DOWN = """
    down{i}_w2_scale = Gather <axis = 0> (w2_scale, up{i}_index)
    h{i}_quantized = QuantizeLinear <axis = 0> (active{i}, h_scales{i}, h_zero_points{i})
"""
_OUT = """
    unscaled = Concat <axis = 0> ({scaled})
    grouped = Mul (unscaled, h_scale)
"""


def _experts(num_experts: int) -> str:
    """Return the function for a number of experts.

    quantized [T,hidden], scale [T,1], weights [T,top_k], expert_indices [T,top_k], bias [hidden], w1_scale [experts,ffn],
    w2_scale [experts,hidden], then every expert's packed w1 and every expert's packed w2 -> y [T,hidden].
    """
    w1, w2, rows, scales, tops, h_scales, h_zero_points = expert_names(
        num_experts, "w1_", "w2_", "rows", "scales", "top", "h_scales", "h_zero_points"
    )
    parts = [
        f"Int8Experts (quantized, scale, weights, expert_indices, bias, w1_scale, w2_scale, {w1}, {w2}) => (y)\n{{",
        _CONSTANTS,
        SORTED.format(experts=", ".join(map(str, range(num_experts)))),
        _EXPERTS_HEAD.format(rows=rows, scales=scales),
        _UNIT.format(quantized="quantized"),
        _SHAPE.format(p="up_", w="w1_0"),
        _SHAPE.format(p="down_", w="w2_0"),
    ]
    for i in range(num_experts):
        up = {"p": f"up{i}_", "w": f"w1_{i}", "shape": "up_shape", "quantized": f"rows{i}", "zero_point": "zero_point8"}
        parts += [
            _UP.format(i=i),
            _PRODUCT.format(**up, weight_scale=f"up{i}_w1_scale", scale=f"scales{i}", out=f"raw{i}"),
            _ACTIVE.format(i=i),
        ]
    parts.append(_BETWEEN.format(tops=tops, h_scales=h_scales, h_zero_points=h_zero_points))
    for i in range(num_experts):
        down = {
            "p": f"down{i}_",
            "w": f"w2_{i}",
            "shape": "down_shape",
            "quantized": f"h{i}_quantized",
            "zero_point": "gelu8",
        }
        parts += [_DOWN.format(i=i), _SCALED.format(**down, weight_scale=f"down{i}_w2_scale")]
    scaled = ", ".join(f"down{i}_scaled" for i in range(num_experts))
    return "".join(parts) + _OUT.format(scaled=scaled) + MIXED + "}"


@cache
def int8_functions(num_experts: int) -> tuple[onnx.FunctionProto, ...]:
    """Return the functions of an INT8 model with `num_experts` experts per MoE layer, beside Router, Attention and Pool."""
    fixed = (_QUANTIZE, *_EMBEDDINGS, _ADD_NORM, _ADD_NORM_QUANTIZE, _LINEAR, _LINEAR_GELU, _FEED_FORWARD, _ATTENTION)
    return tuple(parser.parse_function(HEADER + text) for text in (*fixed, _experts(num_experts)))
