"""Attention over integers, as an ONNX function; `moembed.quantize.functions` describes the arithmetic."""

from moembed.export.functions import MASK_BIAS, PARTS, PLACES, ROTATED
from moembed.quantize.function_parts import CONSTANTS, SYMMETRIC, linear

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

# {x}, not negative -> its {p}low and {p}high byte; a cast to fewer bits keeps the lowest ones
_BYTES = """
    {p}word = Cast <to = 6> ({x})
    {p}low = Cast <to = 2> ({p}word)
    {p}quotient = Mul ({x}, part_of_byte)
    {p}whole = Floor ({p}quotient)
    {p}high = Cast <to = 2> ({p}whole)
"""

# {x} [T,heads,any] -> {y} [batch,heads,columns,any], or with the last two axes exchanged
_GRID = """
    {y}_cells = Gather ({x}, places)
    {y}_grid = Reshape ({y}_cells, {shape})
    {y} = Transpose <perm = [0, 2, {perm}]> ({y}_grid)
"""

# {x} [T,heads,any] -> {y} [parts,batch,heads,height,any]
_QUERIES = """
    {y}_cells = Gather ({x}, q_places)
    {y}_grid = Reshape ({y}_cells, {shape})
    {y} = Transpose <perm = [0, 1, 3, 2, 4]> ({y}_grid)
"""

# Keys and values are uint8 around 128: without VNNI, ONNX Runtime adds pairs of products of uint8 and int8 in 16 bits, and cuts
# them off. It has an option against that for constant matrices only.
#
# quantized [T,K] around 128, scale [T,1], weight packed [3*hidden], weight_scale and qkv_bias [3*hidden], tokens [T],
# attention_mask [batch,sequence], cos and sin [positions,head_dim/2] -> attended [T,hidden] around 128 and its scale [T,1]
INT8_ATTENTION = (
    "Int8Attention <num_heads> (quantized, scale, weight, weight_scale, qkv_bias, tokens, attention_mask, cos, sin)"
    " => (attended, attended_scale)\n{"
    + CONSTANTS
    + "    zero_point8 = Constant <value = uint8 {128}> ()\n    zero8 = Constant <value = uint8 {0}> ()\n"
    + linear(quantized="quantized", scale="scale")
    + "    qkv = Add (raw, qkv_bias)\n"
    + ROTATED
    + PLACES
    + MASK_BIAS
    # Products lay out all keys for each part, which takes longer than the product of a few rows.
    + "    least_rows = Constant <value_ints = [64]> ()\n"
    + PARTS.format(least="least_rows")
    + """
    axis2 = Constant <value_ints = [2]> ()
    axis3 = Constant <value_ints = [3]> ()
    least = Constant <value_float = 1.17549435e-38> ()
    byte = Constant <value = int32 {256}> ()
    part_of_byte = Constant <value_float = 0.00390625> ()
    q_offset = Constant <value_float = 32768.0> ()
    offset = Constant <value_float = 128.0> ()
    by_head = Concat <axis = 0> (count, heads, head_dim)
    single = Constant <value_ints = [1]> ()
    scale_shape = Concat <axis = 0> (batch, columns, heads, single)
    q_scale_shape = Concat <axis = 0> (parts, batch, height, heads, single)
    q_heads = Reshape <allowzero = 1> (q_rows, by_head)
    k_heads = Reshape <allowzero = 1> (k_rows, by_head)
    v_heads = Reshape <allowzero = 1> (v_packed, by_head)
"""
    + _HEAD.format(p="q_", x="q_heads", range="32767.0")
    + _HEAD.format(p="k_", x="k_heads", range="127.0")
    + _HEAD.format(p="v_", x="v_heads", range="127.0")
    + """
    q_shifted = Add (q_rounded, q_offset)
    k_shifted = Add (k_rounded, offset)
    v_shifted = Add (v_rounded, offset)
    k_integers = Cast <to = 2> (k_shifted)
    v_integers = Cast <to = 2> (v_shifted)
"""
    + _QUERIES.format(x="q_shifted", y="q16", shape="q_shape")
    + _QUERIES.format(x="q_scale", y="qs", shape="q_scale_shape")
    + _GRID.format(x="k_integers", y="k", shape="grid_shape", perm="3, 1")
    + _GRID.format(x="k_scale", y="ks", shape="scale_shape", perm="3, 1")
    + _GRID.format(x="v_integers", y="v", shape="grid_shape", perm="1, 3")
    + _GRID.format(x="v_scale", y="vs", shape="scale_shape", perm="3, 1")
    + """
    width = CastLike (head_dim, qkv)
    root = Sqrt (width)
    log2e = Constant <value_float = 1.44269504> ()
    per_root = Div (log2e, root)
    base = Constant <value_float = 2.0> ()
    present = Unsqueeze (mask, axis12)
    vs_present = Mul (vs, present)
    vs_top = ReduceMax <keepdims = 1> (vs_present, axis3)
    vs_most = Max (vs_top, least)
    share_range = Constant <value_float = 32767.0> ()
    vs_part = Div (vs_present, vs_most)
    vs_weight = Mul (vs_part, share_range)
    share_unit = Div (vs_most, share_range)
    wide_byte = Constant <value = double {256.0}> ()
    out_parts = Scan <num_scan_inputs = 2, body = part_of_queries (q16_part, qs_part) => (out_part) {
"""
    + _BYTES.format(p="q_", x="q16_part")
    + """
        low_sums = MatMulInteger (q_low, k, zero8, zero_point8)
        high_sums = MatMulInteger (q_high, k, zero_point8, zero_point8)
        high_shifted = Mul (high_sums, byte)
        score_sums = Add (high_shifted, low_sums)
        score_floats = Cast <to = 1> (score_sums)
        unmasked = Mul (score_floats, ks)
        scores = Add (unmasked, bias)
        largest = ReduceMax <keepdims = 1> (scores, axis3)
        below = Sub (scores, largest)
        factor = Mul (qs_part, per_root)
        exponents = Mul (below, factor)
        unmasked_powers = Pow (base, exponents)
        powers = Mul (unmasked_powers, present)
        sums = ReduceSum <keepdims = 1> (powers, axis3)
        unrounded_shares = Mul (powers, vs_weight)
        shares = Round (unrounded_shares)
"""
    + _BYTES.format(p="share_", x="shares")
    + """
        low_mixed = MatMulInteger (share_low, v, zero8, zero_point8)
        high_mixed = MatMulInteger (share_high, v, zero8, zero_point8)
        low_wide = Cast <to = 11> (low_mixed)
        high_wide = Cast <to = 11> (high_mixed)
        shifted_wide = Mul (high_wide, wide_byte)
        mixed_wide = Add (shifted_wide, low_wide)
        mixed_floats = Cast <to = 1> (mixed_wide)
        mean_factor = Div (share_unit, sums)
        mixed = Mul (mixed_floats, mean_factor)
        out_part = Transpose <perm = [0, 2, 1, 3]> (mixed)
    }> (q16, qs)
    out_shape = Concat <axis = 0> (q_cells, hidden)
    out = Reshape (out_parts, out_shape)
    y = Gather (out, q_cell)
"""
    + SYMMETRIC.format(p="a_", x="y")
    + "    attended = Identity (a_quantized)\n    attended_scale = Identity (a_scale)\n}"
)
