"""ONNX functions of gated MLPs, `down(act(gate(x)) * up(x))`; `moembed.quantize.functions` describes the arithmetic."""

from moembed.quantize.function_parts import (
    CONSTANTS,
    HALVES,
    NORM_END,
    NORM_INPUTS,
    NORM_OUTPUTS,
    PRODUCT,
    SHAPE,
    SYMMETRIC,
    UNIT,
)

# {gate} and {up} -> product
_GELU_MUL = """
    active = Gelu ({gate})
    product = Mul (active, {up})
"""
_SILU_MUL = """
    share = Sigmoid ({gate})
    active = Mul ({gate}, share)
    product = Mul (active, {up})
"""


def _product(name: str, product: str) -> str:
    return (
        f"{name} (gate, up) => (quantized, scale)\n{{"
        + CONSTANTS
        + product.format(gate="gate", up="up")
        + SYMMETRIC.format(p="x_", x="product")
        + "    quantized = Identity (x_quantized)\n    scale = Identity (x_scale)\n}"
    )


# gate and up [T,K] -> quantized [T,K] uint8, scale [T,1] of the product gelu(gate) * up or silu(gate) * up
GATED_PRODUCTS = (_product("GeluMulQuantize", _GELU_MUL), _product("SiluMulQuantize", _SILU_MUL))

# Bounds of a product on both sides; its values, rounded to a float16 * 2^8, and their scales
_QUANTIZED = (
    """
    least = Constant <value_float = -16769024.0> ()
    floored = Max (product, least)
"""
    + HALVES.format(x="floored", y="kept")
    + """
    h_size = Abs (kept_capped)
    h_top = ReduceMax <keepdims = 1> (h_size, axis1)
    h_range = Constant <value_float = 127.0> ()
    h_fair = Div (h_top, h_range)
    h_least = Constant <value_float = 1.52587890625e-05> ()
    h_scale = Max (h_fair, h_least)
    h_scales = Squeeze (h_scale, axis1)
    h_count = Shape (h_scales)
    h_zero_point = ConstantOfShape <value = uint8[1] {128}> (h_count)
    h_quantized = QuantizeLinear <axis = 0> (kept, h_scales, h_zero_point)
"""
)


def _layer(name: str, quantized: str, scale: str) -> str:
    """Return the nodes that compute `{name}_raw` of a packed weight and its scales, without bias."""
    return SHAPE.format(p=f"{name}_", w=name) + PRODUCT.format(
        p=f"{name}_",
        quantized=quantized,
        w=name,
        shape=f"{name}_shape",
        zero_point="zero_point8",
        weight_scale=f"{name}_scale",
        scale=scale,
        out=f"{name}_raw",
    )


_INPUTS = "quantized, scale, up, up_scale, up_bias, gate, gate_scale, gate_bias, down, down_scale, down_bias"


def _body(product: str) -> str:
    return (
        CONSTANTS
        + "    zero_point8 = Constant <value = uint8 {128}> ()\n"
        + UNIT.format(quantized="quantized")
        + _layer("up", "quantized", "scale")
        + "    up_full = Add (up_raw, up_bias)\n"
        + _layer("gate", "quantized", "scale")
        + "    gate_full = Add (gate_raw, gate_bias)\n"
        + product.format(gate="gate_full", up="up_full")
        + _QUANTIZED
        + _layer("down", "h_quantized", "h_scale")
    )


def _feed_forward(name: str, product: str) -> str:
    return f"{name} ({_INPUTS}) => (y)\n{{{_body(product)}    y = Add (down_raw, down_bias)\n}}"


# quantized [T,K] around 128, scale [T,1], up and gate packed, their scales and biases [ffn], down packed, down_scale [N],
# down_bias [N] -> y [T,N]: the products of a gated feed-forward network, with gelu(gate) * up or silu(gate) * up between them
_FEED_FORWARDS = (
    _feed_forward("Int8GeluMulFeedForward", _GELU_MUL),
    _feed_forward("Int8SiluMulFeedForward", _SILU_MUL),
)


def _feed_forward_norm(name: str, product: str) -> str:
    return (
        f"{name} <epsilon> ({_INPUTS}, {NORM_INPUTS}) => ({NORM_OUTPUTS})\n{{"
        + _body(product)
        + "    x = Add (down_raw, down_bias)\n"
        + NORM_END
    )


# The same, then AddNormQuantize
GATED_FEED_FORWARDS = (
    *_FEED_FORWARDS,
    _feed_forward_norm("Int8GeluMulFeedForwardNorm", _GELU_MUL),
    _feed_forward_norm("Int8SiluMulFeedForwardNorm", _SILU_MUL),
)
