"""Parts of the bodies of INT8 functions, as text: quantization of rows, and products with packed weights."""

SYMMETRIC_ZERO_POINT, GELU_ZERO_POINT = 128, 32

CONSTANTS = """
    axis1 = Constant <value_ints = [1]> ()
    four = Constant <value_ints = [4]> ()
    sixteen = Constant <value_ints = [16]> ()
"""

# {x} [T,K] -> {p}quantized [T,K] uint8 around 128, {p}scale [T,1]
SYMMETRIC = """
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

# {x} -> {y}_capped, at most the largest float16 * 2^8, and {y}, rounded to a float16 * 2^8: what a kernel keeps between the
# products of a feed-forward network. So activations to 16,769,024 are finite.
HALVES = """
    {y}_unit = Constant <value_float = 0.00390625> ()
    {y}_most = Constant <value_float = 16769024.0> ()
    {y}_capped = Min ({x}, {y}_most)
    {y}_small = Mul ({y}_capped, {y}_unit)
    {y}_half = Cast <to = 10> ({y}_small)
    {y}_wide = Cast <to = 1> ({y}_half)
    {y} = Div ({y}_wide, {y}_unit)
"""

# The same for the output of a GELU, around 32: from the maximum of each row, {p}top [T,1].
POSITIVE = """
    {p}range = Constant <value_float = 223.0> ()
    {p}fair = Div ({p}top, {p}range)
    {p}least = Constant <value_float = 0.0053125> ()
    {p}scale = Max ({p}fair, {p}least)
    {p}scales = Squeeze ({p}scale, axis1)
    {p}count = Shape ({p}scales)
    {p}zero_point = ConstantOfShape <value = uint8[1] {{32}}> ({p}count)
"""

# y [T,hidden], smooth [hidden] -> y * smooth quantized: {p}quantized, {p}scale
SMOOTHED = (
    "    smoothed = Mul (y, smooth)\n"
    + SYMMETRIC.format(p="x_", x="smoothed")
    + "    {p}quantized = Identity (x_quantized)\n    {p}scale = Identity (x_scale)\n"
)

# x and residual [T,hidden], gamma, beta and smooth [hidden] -> y [T,hidden], and y * smooth quantized for the product that reads
# it: {p}quantized, {p}scale
NORM = (
    """
    sum = Add (x, residual)
    y = LayerNormalization <axis = -1, epsilon: float = @epsilon> (sum, gamma, beta)
"""
    + SMOOTHED
)

# The inputs and outputs of an operator that ends with AddNormQuantize, whose x is its result.
NORM_INPUTS, NORM_OUTPUTS = "residual, gamma, beta, smooth", "y, y_quantized, y_scale"
NORM_END = NORM.replace("{p}", "y_") + "}"

# Shape [K,N] of a packed weight [N/16,K/4,16,4]; it is constant, so it is computed once, when the session is created.
SHAPE = """
    {p}blocks = Shape <start = 0, end = 1> ({w})
    {p}depth = Shape <start = 1, end = 2> ({w})
    {p}n = Mul ({p}blocks, sixteen)
    {p}k = Mul ({p}depth, four)
    {p}shape = Concat <axis = 0> ({p}k, {p}n)
"""
UNIT = """
    unit_count = Shape <start = 0, end = 1> ({quantized})
    unit_yes = Equal (unit_count, unit_count)
    unit = Cast <to = 1> (unit_yes)
"""

# {quantized} [T,K], packed {w}, {weight_scale} [N] -> {p}scaled [T,N]; the product is that times the scale of the row
SCALED = """
    {p}turned = Transpose <perm = [1, 3, 0, 2]> ({w})
    {p}matrix = Reshape ({p}turned, {shape})
    {p}sums = MatMulInteger ({quantized}, {p}matrix, {zero_point})
    {p}wide = Cast <to = 1> ({p}sums)
    {p}unfolded_scale = Mul (unit, {weight_scale})
    {p}scaled = Mul ({p}wide, {p}unfolded_scale)
"""
PRODUCT = SCALED + "    {out} = Mul ({p}scaled, {scale})\n"


def linear(*, quantized: str, scale: str) -> str:
    """Return the nodes that compute `raw` [T,N] of a packed `weight`, its `weight_scale` and `zero_point8`."""
    names = {"quantized": quantized, "weight_scale": "weight_scale", "scale": scale, "zero_point": "zero_point8"}
    product = PRODUCT.format(p="y_", w="weight", shape="w_shape", out="raw", **names)
    return SHAPE.format(p="w_", w="weight") + UNIT.format(quantized=quantized) + product
