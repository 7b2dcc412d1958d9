"""Definition of the INT8 ops of domain `moembed`: ONNX functions with bodies of standard operators.

Activations are quantized per token row, where they are computed. The quantized values of a row depend on that row alone,
and integer sums do not depend on the order of summation, so the result is batch-invariant. Quantized activations are
unsigned bytes with a fixed zero point, the operand that CPUs multiply with signed weights:

* after a norm or attention, symmetric around 128: `scale = max|x| / 127`;
* after GELU, rounded to a float16 times 2^8, around 32: erf GELU never falls below -0.17, so
  `scale = max(max x / 223, 0.17 / 32)` clips nothing there and resolves the positive side almost twice as finely. Values are
  capped at the largest of these, 16,769,024;
* a gated product within a feed-forward network, rounded and capped like that on both sides, symmetric around 128:
  `scale = max(max|x| / 127, 2^-16)`, which is the distance of the smallest of these values. A gated product by itself is not
  rounded, and has the scale of a norm.

A kernel multiplies by the reciprocal of a scale where `QuantizeLinear` divides, and its GELU is a polynomial: a value between two
integers may become either. The kernels agree with each other to the bit.

A product is `(float(sum) * weight_scale) * scale + bias`, in this order and without fused operations. (Not
`scale * weight_scale` first: ONNX Runtime 1.31 fuses that with the bias into MatMulIntegerToFloat, which then scales the
bias too.) `moembed.quantize.layout` describes the packing of weights. `unit` in the bodies is a 1 that ONNX Runtime cannot fold,
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

from moembed.export.functions import HEADER, MIXED, SORTED, expert_names
from moembed.quantize.attention_function import INT8_ATTENTION
from moembed.quantize.function_parts import (
    CONSTANTS,
    HALVES,
    NORM,
    NORM_END,
    NORM_INPUTS,
    NORM_OUTPUTS,
    POSITIVE,
    PRODUCT,
    SCALED,
    SHAPE,
    SMOOTHED,
    SYMMETRIC,
    UNIT,
    linear,
)
from moembed.quantize.gated_functions import GATED_FEED_FORWARDS, GATED_PRODUCTS

# x [T,K] -> quantized [T,K] uint8, scale [T,1]
_QUANTIZE = (
    "Quantize (x) => (quantized, scale)\n{"
    + CONSTANTS
    + SYMMETRIC.format(p="x_", x="x")
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
    width = Shape <start = -1> (type)
    flat = Concat <axis = 0> (count, width)
    words = Reshape <allowzero = 1> (values, flat)
"""


# ids [T], table and table_scale, type [hidden] or [T,hidden], gamma, beta, smooth [hidden] -> y [T,hidden], quantized, scale; a
# `type` for each row holds learned positions too
def _embedding(name: str, words: str) -> str:
    return (
        f"{name} <epsilon> (ids, table, table_scale, type, gamma, beta, smooth) => (y, quantized, scale)\n{{"
        + CONSTANTS
        + words
        + """
    typed = Add (words, type)
    y = LayerNormalization <axis = -1, epsilon: float = @epsilon> (typed, gamma, beta)
"""
        + SMOOTHED.replace("{p}", "")
        + "}"
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
    + CONSTANTS
    + NORM.replace("{p}", "")
    + "}"
)

# quantized [T,K] with zero point `zero_point`, scale [T,1], weight packed, weight_scale [N], bias [N] -> y [T,N]
_LINEAR = (
    "Int8Linear <zero_point> (quantized, scale, weight, weight_scale, bias) => (y)\n{"
    + CONSTANTS
    + """
    zero_point0 = Constant <value_int: int = @zero_point> ()
    zero_point8 = Cast <to = 2> (zero_point0)
"""
    + linear(quantized="quantized", scale="scale")
    + "    y = Add (raw, bias)\n}"
)

# The same with zero point 128, then AddNormQuantize
_LINEAR_NORM = (
    f"Int8LinearNorm <epsilon> (quantized, scale, weight, weight_scale, bias, {NORM_INPUTS}) => ({NORM_OUTPUTS})\n{{"
    + CONSTANTS
    + "    zero_point8 = Constant <value = uint8 {128}> ()\n"
    + linear(quantized="quantized", scale="scale")
    + "    x = Add (raw, bias)\n"
    + NORM_END
)

# raw [T,N], {bias} [N] -> {quantized} [T,N] around 32, h_scale [T,1]: the quantized GELU of their sum
_GELU = (
    """
    biased = Add (raw, {bias})
    full = Gelu (biased)
"""
    + HALVES.format(x="full", y="active")
    + "    h_top = ReduceMax <keepdims = 1> (active_capped, axis1)\n"
    + POSITIVE.replace("{p}", "h_")
    + "    {quantized} = QuantizeLinear <axis = 0> (active, h_scales, h_zero_point)\n"
)

# The same followed by GELU -> quantized around 32, and scale, for the next product
_LINEAR_GELU = (
    "Int8LinearGelu (x_quantized, x_scale, weight, weight_scale, bias) => (quantized, scale)\n{"
    + CONSTANTS
    + "    zero_point8 = Constant <value = uint8 {128}> ()\n"
    + linear(quantized="x_quantized", scale="x_scale")
    + _GELU.format(bias="bias", quantized="quantized")
    + "    scale = Identity (h_scale)\n}"
)

_FEED_FORWARD_INPUTS = "quantized, scale, w1, w1_scale, b1, w2, w2_scale, b2"
_FEED_FORWARD_BODY = (
    CONSTANTS
    + "    zero_point8 = Constant <value = uint8 {128}> ()\n    gelu8 = Constant <value = uint8 {32}> ()\n"
    + UNIT.format(quantized="quantized")
    + SHAPE.format(p="w1_", w="w1")
    + PRODUCT.format(
        p="up_",
        quantized="quantized",
        w="w1",
        shape="w1_shape",
        zero_point="zero_point8",
        weight_scale="w1_scale",
        scale="scale",
        out="raw",
    )
    + _GELU.format(bias="b1", quantized="h_quantized")
    + SHAPE.format(p="w2_", w="w2")
    + PRODUCT.format(
        p="down_",
        quantized="h_quantized",
        w="w2",
        shape="w2_shape",
        zero_point="gelu8",
        weight_scale="w2_scale",
        scale="h_scale",
        out="down",
    )
)

# quantized [T,K], scale [T,1], w1 packed, w1_scale [ffn], b1 [ffn], w2 packed, w2_scale [N], b2 [N] -> y [T,N]: both products
# of a feed-forward network, with GELU between them
_FEED_FORWARD = f"Int8FeedForward ({_FEED_FORWARD_INPUTS}) => (y)\n{{{_FEED_FORWARD_BODY}    y = Add (down, b2)\n}}"

# The same, then AddNormQuantize
_FEED_FORWARD_NORM = (
    f"Int8FeedForwardNorm <epsilon> ({_FEED_FORWARD_INPUTS}, {NORM_INPUTS}) => ({NORM_OUTPUTS})\n{{"
    + _FEED_FORWARD_BODY
    + "    x = Add (down, b2)\n"
    + NORM_END
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
_ACTIVE = (
    "    full{i} = Gelu (raw{i})\n"
    + HALVES.format(x="full{i}", y="active{i}")
    + "    top{i} = ReduceMax <keepdims = 1> (active{i}_capped, axis1)\n"
)
_BETWEEN = (
    "    h_top = Concat <axis = 0> ({tops})\n"
    + POSITIVE.replace("{p}", "h_")
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


def _experts(num_experts: int, *, norm: bool) -> str:
    """Return the function for a number of experts.

    quantized [T,hidden], scale [T,1], weights [T,top_k], expert_indices [T,top_k], bias [hidden], w1_scale [experts,ffn],
    w2_scale [experts,hidden], then every expert's packed w1 and every expert's packed w2 -> y [T,hidden]. With `norm`,
    AddNormQuantize follows; its other inputs come before the weights of the experts.
    """
    w1, w2, rows, scales, tops, h_scales, h_zero_points = expert_names(
        num_experts, "w1_", "w2_", "rows", "scales", "top", "h_scales", "h_zero_points"
    )
    name, further, results = "Int8Experts", "", "y"
    if norm:
        name, further, results = "Int8ExpertsNorm <epsilon>", f"{NORM_INPUTS}, ", NORM_OUTPUTS
    parts = [
        f"{name} (quantized, scale, weights, expert_indices, bias, w1_scale, w2_scale, {further}{w1}, {w2})"
        f" => ({results})\n{{",
        CONSTANTS,
        SORTED.format(experts=", ".join(map(str, range(num_experts)))),
        _EXPERTS_HEAD.format(rows=rows, scales=scales),
        UNIT.format(quantized="quantized"),
        SHAPE.format(p="up_", w="w1_0"),
        SHAPE.format(p="down_", w="w2_0"),
    ]
    for i in range(num_experts):
        up = {"p": f"up{i}_", "w": f"w1_{i}", "shape": "up_shape", "quantized": f"rows{i}", "zero_point": "zero_point8"}
        parts += [
            _UP.format(i=i),
            PRODUCT.format(**up, weight_scale=f"up{i}_w1_scale", scale=f"scales{i}", out=f"raw{i}"),
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
        parts += [_DOWN.format(i=i), SCALED.format(**down, weight_scale=f"down{i}_w2_scale")]
    scaled = ", ".join(f"down{i}_scaled" for i in range(num_experts))
    parts += [_OUT.format(scaled=scaled), MIXED.format(y="x" if norm else "y"), NORM_END if norm else "}"]
    return "".join(parts)


@cache
def int8_functions(num_experts: int) -> tuple[onnx.FunctionProto, ...]:
    """Return the functions of an INT8 model with `num_experts` experts per MoE layer, beside Router, Attention and Pool."""
    fixed = (
        _QUANTIZE,
        *GATED_PRODUCTS,
        *_EMBEDDINGS,
        _ADD_NORM,
        _ADD_NORM_QUANTIZE,
        _LINEAR,
        _LINEAR_NORM,
        _LINEAR_GELU,
        _FEED_FORWARD,
        _FEED_FORWARD_NORM,
        *GATED_FEED_FORWARDS,
        INT8_ATTENTION,
        *(_experts(num_experts, norm=norm) for norm in (False, True)),
    )
    return tuple(parser.parse_function(HEADER + text) for text in fixed)
