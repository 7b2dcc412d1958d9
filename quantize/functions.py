"""The ONNX meaning of the INT8 ops of domain `moembed`: functions with bodies of standard operators.

Activations are quantised per token row, where they are made: a row's codes depend on that row alone and integer sums do
not depend on the order of summation, so a token's result does not depend on its company. Codes are unsigned bytes around
a fixed middle, the operand that CPUs multiply with signed weights:

* after a norm or attention, symmetric around 128: `step = max|x| / 127`;
* after GELU, around 32: erf GELU never falls below -0.17, so `step = max(max x / 223, 0.17 / 32)` loses nothing there and
  resolves the positive side almost twice as finely.

A product is `(float(sum) * weight_scale) * row_step + bias`, in this order and without fused operations. (Never
`row_step * weight_scale` first: ONNX Runtime 1.31 fuses that with the bias into MatMulIntegerToFloat, which then scales
the bias too.) Weights are packed as `moembed.quantize.layout` says; `one` in `_PRODUCT` is a 1 that ONNX Runtime cannot
fold, which lets it fuse the cast and the first product.
"""

from functools import cache

import onnx
from onnx import parser

from moembed.export.functions import HEADER, MIXED, SORTED, expert_names

GELU_MIDDLE = 32

_CONSTANTS = """
    axis1 = Constant <value_ints = [1]> ()
    four = Constant <value_ints = [4]> ()
    sixteen = Constant <value_ints = [16]> ()
"""

# {x} [T,K] -> {p}codes [T,K] uint8 around 128, {p}step [T,1]
_SYMMETRIC = """
    {p}abs = Abs ({x})
    {p}top = ReduceMax <keepdims = 1> ({p}abs, axis1)
    {p}range = Constant <value_float = 127.0> ()
    {p}fair = Div ({p}top, {p}range)
    {p}least = Constant <value_float = 1.17549435e-38> ()
    {p}step = Max ({p}fair, {p}least)
    {p}steps = Squeeze ({p}step, axis1)
    {p}count = Shape ({p}steps)
    {p}middle = ConstantOfShape <value = uint8[1] {{128}}> ({p}count)
    {p}codes = QuantizeLinear <axis = 0> ({x}, {p}steps, {p}middle)
"""

# The same for the output of a GELU, around 32: from the largest of each row, {p}top [T,1].
_POSITIVE_STEP = """
    {p}range = Constant <value_float = 223.0> ()
    {p}fair = Div ({p}top, {p}range)
    {p}least = Constant <value_float = 0.0053125> ()
    {p}step = Max ({p}fair, {p}least)
    {p}steps = Squeeze ({p}step, axis1)
    {p}count = Shape ({p}steps)
    {p}middle = ConstantOfShape <value = uint8[1] {{32}}> ({p}count)
"""

# The matrix [K,N] of a packed weight [N/16,K/4,16,4]; all of it constant, so done once, when the session is made.
_SHAPE = """
    {p}blocks = Shape <start = 0, end = 1> ({w})
    {p}depth = Shape <start = 1, end = 2> ({w})
    {p}n = Mul ({p}blocks, sixteen)
    {p}k = Mul ({p}depth, four)
    {p}shape = Concat <axis = 0> ({p}k, {p}n)
"""
_ONE = """
    one_count = Shape <start = 0, end = 1> ({codes})
    one_yes = Equal (one_count, one_count)
    one = Cast <to = 1> (one_yes)
"""

# {codes} [T,K], packed {w}, {scale} [N] -> {p}scaled [T,N], which times the codes' step is the product
_SCALED = """
    {p}turned = Transpose <perm = [1, 3, 0, 2]> ({w})
    {p}matrix = Reshape ({p}turned, {shape})
    {p}sums = MatMulInteger ({codes}, {p}matrix, {middle})
    {p}wide = Cast <to = 1> ({p}sums)
    {p}scale1 = Mul (one, {scale})
    {p}scaled = Mul ({p}wide, {p}scale1)
"""
_PRODUCT = _SCALED + "    {out} = Mul ({p}scaled, {step})\n"

# x [T,K] -> codes [T,K] uint8, step [T,1]
_QUANTIZE = (
    "Quantize (x) => (codes, step)\n{"
    + _CONSTANTS
    + _SYMMETRIC.format(p="x_", x="x")
    + ("    codes = Identity (x_codes)\n    step = Identity (x_step)\n}")
)

# x [T,hidden], smooth [hidden] -> codes of x * smooth, step
_SMOOTHED = (
    "    smoothed = Mul (y, smooth)\n"
    + _SYMMETRIC.format(p="x_", x="smoothed")
    + ("    codes = Identity (x_codes)\n    step = Identity (x_step)\n}")
)

_WORDS8 = """
    rows = Gather (table, ids)
    scales = Gather (scale, ids)
    words = DequantizeLinear <axis = 0> (rows, scales)
"""

# A byte holds two codes, the lower half first; exact, since a code has 4 bits and a scale 11.
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
    per_row = Shape <start = 1, end = 2> (scale)
    size = Constant <value_ints = [32]> ()
    blocked = Concat <axis = 0> (count, per_row, size)
    blocks = Reshape <allowzero = 1> (twos, blocked)
    places = Cast <to = 1> (blocks)
    eight = Constant <value_float = 8.0> ()
    centred = Sub (places, eight)
    halves = Gather (scale, ids)
    singles = Cast <to = 1> (halves)
    scales = Unsqueeze (singles, end)
    values = Mul (centred, scales)
    width = Shape (type)
    flat = Concat <axis = 0> (count, width)
    words = Reshape <allowzero = 1> (values, flat)
"""


# ids [T], table and scale, type, gamma, beta, smooth [hidden] -> y [T,hidden], codes, step
def _embedding(name: str, words: str) -> str:
    return (
        f"{name} <epsilon> (ids, table, scale, type, gamma, beta, smooth) => (y, codes, step)\n{{"
        + _CONSTANTS
        + words
        + """
    typed = Add (words, type)
    y = LayerNormalization <axis = -1, epsilon: float = @epsilon> (typed, gamma, beta)
"""
        + _SMOOTHED
    )


# By the bits of a value in the table: table [V,hidden] int8 and scale [V], or table [V,hidden/2] uint8, around 8, and scale
# [V,hidden/32] float16.
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

# The same, and the codes of y * smooth for the product that reads it: y [T,hidden], codes, step
_ADD_NORM_QUANTIZE = (
    "AddNormQuantize <epsilon> (x, residual, gamma, beta, smooth) => (y, codes, step)\n{"
    + _CONSTANTS
    + """
    sum = Add (x, residual)
    y = LayerNormalization <axis = -1, epsilon: float = @epsilon> (sum, gamma, beta)
"""
    + _SMOOTHED
)

# codes [T,K], step [T,1], weight packed, scale [N], bias [N] -> y [T,N]; `middle` is the codes' zero point
_LINEAR = (
    "Int8Linear <middle> (codes, step, weight, scale, bias) => (y)\n{"
    + _CONSTANTS
    + """
    middle0 = Constant <value_int: int = @middle> ()
    middle8 = Cast <to = 2> (middle0)
"""
    + _SHAPE.format(p="w_", w="weight")
    + _ONE.format(codes="codes")
    + _PRODUCT.format(
        p="y_", w="weight", shape="w_shape", codes="codes", scale="scale", step="step", middle="middle8", out="raw"
    )
    + "    y = Add (raw, bias)\n}"
)

# The same with GELU behind it: codes around 32 and step for the next product
_LINEAR_GELU = (
    "Int8LinearGelu (x_codes, x_step, weight, scale, bias) => (codes, step)\n{"
    + _CONSTANTS
    + "    middle8 = Constant <value = uint8 {128}> ()\n"
    + _SHAPE.format(p="w_", w="weight")
    + _ONE.format(codes="x_codes")
    + _PRODUCT.format(
        p="y_", w="weight", shape="w_shape", codes="x_codes", scale="scale", step="x_step", middle="middle8", out="raw"
    )
    + """
    biased = Add (raw, bias)
    active = Gelu (biased)
    h_top = ReduceMax <keepdims = 1> (active, axis1)
"""
    + _POSITIVE_STEP.format(p="h_")
    + "    codes = QuantizeLinear <axis = 0> (active, h_steps, h_middle)\n    step = Identity (h_step)\n}"
)

# What is done for all experts at once is done once: a short text takes as long as the graph has operators.
_EXPERTS_HEAD = """
    middle8 = Constant <value = uint8 {{128}}> ()
    gelu8 = Constant <value = uint8 {{32}}> ()
    rows = Gather (codes, tokens)
    row_steps = Gather (step, tokens)
    {rows} = Split <axis = 0> (rows, counts)
    {steps} = Split <axis = 0> (row_steps, counts)
"""
_UP = """
    up{i}_index = Constant <value_int = {i}> ()
    up{i}_scale = Gather <axis = 0> (scale1, up{i}_index)
"""
_ACTIVE = """
    active{i} = Gelu (raw{i})
    top{i} = ReduceMax <keepdims = 1> (active{i}, axis1)
"""
_BETWEEN = (
    "    h_top = Concat <axis = 0> ({tops})\n"
    + _POSITIVE_STEP.replace("{p}", "h_")
    + """
    {h_steps} = Split <axis = 0> (h_steps, counts)
    {h_middles} = Split <axis = 0> (h_middle, counts)
"""
)
_DOWN = """
    down{i}_scale = Gather <axis = 0> (scale2, up{i}_index)
    h{i}_codes = QuantizeLinear <axis = 0> (active{i}, h_steps{i}, h_middles{i})
"""
_OUT = """
    unscaled = Concat <axis = 0> ({scaled})
    grouped = Mul (unscaled, h_step)
"""


def _experts(num_experts: int) -> str:
    """Body for a number of experts.

    codes [T,hidden], step [T,1], weights [T,top_k], chosen [T,top_k], bias [hidden], scale1 [experts,ffn], scale2
    [experts,hidden], then every expert's packed w1 and every expert's packed w2 -> y [T,hidden].
    """
    w1, w2, rows, steps, tops, h_steps, h_middles = expert_names(
        num_experts, "w1_", "w2_", "rows", "steps", "top", "h_steps", "h_middles"
    )
    parts = [
        f"Int8Experts (codes, step, weights, chosen, bias, scale1, scale2, {w1}, {w2}) => (y)\n{{",
        _CONSTANTS,
        SORTED.format(experts=", ".join(map(str, range(num_experts)))),
        _EXPERTS_HEAD.format(rows=rows, steps=steps),
        _ONE.format(codes="codes"),
        _SHAPE.format(p="up_", w="w1_0"),
        _SHAPE.format(p="down_", w="w2_0"),
    ]
    for i in range(num_experts):
        up = {"p": f"up{i}_", "w": f"w1_{i}", "shape": "up_shape", "codes": f"rows{i}", "middle": "middle8"}
        parts += [
            _UP.format(i=i),
            _PRODUCT.format(**up, scale=f"up{i}_scale", step=f"steps{i}", out=f"raw{i}"),
            _ACTIVE.format(i=i),
        ]
    parts.append(_BETWEEN.format(tops=tops, h_steps=h_steps, h_middles=h_middles))
    for i in range(num_experts):
        down = {"p": f"down{i}_", "w": f"w2_{i}", "shape": "down_shape", "codes": f"h{i}_codes", "middle": "gelu8"}
        parts += [_DOWN.format(i=i), _SCALED.format(**down, scale=f"down{i}_scale")]
    scaled = ", ".join(f"down{i}_scaled" for i in range(num_experts))
    return "".join(parts) + _OUT.format(scaled=scaled) + MIXED + "}"


@cache
def int8_functions(num_experts: int) -> tuple[onnx.FunctionProto, ...]:
    """The functions that an INT8 model with `num_experts` experts per MoE layer carries beside Router, Attention and Pool."""
    fixed = (_QUANTIZE, *_EMBEDDINGS, _ADD_NORM, _ADD_NORM_QUANTIZE, _LINEAR, _LINEAR_GELU)
    return tuple(parser.parse_function(HEADER + text) for text in (*fixed, _experts(num_experts)))
