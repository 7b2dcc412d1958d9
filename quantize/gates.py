"""Products `act(gate) * up` of gated MLPs in a float graph."""

import onnx_ir as ir


def gated_product(value: ir.Value) -> tuple[str, list[ir.Value]] | None:
    """Return the operator that quantizes a value at once with the product that it is, and gate and up; None for another value."""
    for active, up in _factors(value):
        if (gate := _gelu(active)) is not None:
            return "GeluMulQuantize", [gate, up]
        if (gate := _silu(active)) is not None:
            return "SiluMulQuantize", [gate, up]
    return None


def _gelu(value: ir.Value) -> ir.Value | None:
    """Return x of `gelu(x)`."""
    node = value.producer()
    return node.inputs[0] if node is not None and node.op_type == "Gelu" else None


def _silu(value: ir.Value) -> ir.Value | None:
    """Return x of `x * sigmoid(x)`, as the exporter writes SiLU."""
    for x, share in _factors(value):
        node = share.producer()
        if node is not None and node.op_type == "Sigmoid" and node.inputs[0] is x:
            return x
    return None


def _factors(value: ir.Value) -> list[tuple[ir.Value, ir.Value]]:
    """Return the two factors of a product in both orders; an empty list for another value."""
    node = value.producer()
    if node is None or node.op_type != "Mul":
        return []
    a, b = node.inputs
    return [(a, b), (b, a)] if a is not None and b is not None else []
