"""Random inputs of the ops of domain `moembed`, as a model of many shapes gives them."""

from functools import partial

import numpy as np

from moembed.quantize.layout import pack, quantize_blocks, quantize_rows


def _normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def _quantized(rng, tokens, width):
    return rng.integers(0, 256, (tokens, width)).astype(np.uint8), rng.random((tokens, 1), np.float32) / 40


def norm(rng, tokens, width):
    """Return the inputs of a norm that follows, and its attributes."""
    residual, gamma, beta = (_normal(rng, *shape) for shape in ((tokens, width), (width,), (width,)))
    return [residual, gamma, beta, rng.random(width, np.float32) + 0.5], {"epsilon": 1e-5}


def rows(rng, tokens):
    width = int(rng.integers(1, 40)) * 4
    x, residual, gamma, beta = (_normal(rng, *shape) for shape in ((tokens, width),) * 2 + ((width,),) * 2)
    smooth, norm = rng.random(width, np.float32) + 0.5, {"epsilon": 1e-5}
    table, scale = quantize_rows(_normal(rng, 30, width))
    ids = rng.integers(-30, 30, tokens)
    wide, wide_smooth = -(-width // 32) * 32, rng.random(-(-width // 32) * 32, np.float32) + 0.5
    # Rows whose scales are subnormal in float16 too.
    table4, scale4 = quantize_blocks(_normal(rng, 30, wide) * 10.0 ** -np.arange(0, 7.5, 0.25, np.float32)[:, None])
    return [
        ("Quantize", [x], {}),
        ("GeluMulQuantize", [3 * x, residual], {}),
        ("SiluMulQuantize", [3 * x, residual], {}),
        ("AddNorm", [x, residual, gamma, beta], norm),
        ("AddNormQuantize", [x, residual, gamma, beta, smooth], norm),
        ("Int8Embedding", [ids, table, scale, gamma, gamma, beta, smooth], norm),
        ("Int8Embedding", [ids, table, scale, x, gamma, beta, smooth], norm),
        ("Int4Embedding", [ids, table4, scale4, *_normal(rng, 3, wide), wide_smooth], norm),
        ("Int4Embedding", [ids, table4, scale4, _normal(rng, tokens, wide), *_normal(rng, 2, wide), wide_smooth], norm),
        ("Router", [x, _normal(rng, int(rng.integers(3, 20)), width)], {"top_k": int(rng.integers(1, 4))}),
    ]


def linear(rng, tokens):
    width, out = int(rng.integers(1, 60)) * 4, int(rng.integers(1, 7)) * 16
    quantized, scale = _quantized(rng, tokens, width)
    weight = pack(rng.integers(-127, 128, (out, width)).astype(np.int8))
    arrays = [quantized, scale, weight, rng.random(out, np.float32) / 50, _normal(rng, out)]
    return [
        ("Int8Linear", arrays, {"zero_point": 128}),
        ("Int8Linear", arrays, {"zero_point": 32}),
        ("Int8LinearGelu", arrays, {}),
        _followed("Int8Linear", arrays, *norm(rng, tokens, out)),
    ]


def _followed(op, arrays, norm, attributes, at=None):
    at = len(arrays) if at is None else at
    return f"{op}Norm", [*arrays[:at], *norm, *arrays[at:]], attributes


def feed_forward(rng, tokens):
    hidden, inner = int(rng.integers(1, 9)) * 16, int(rng.integers(1, 12)) * 16
    up, down = quantize_rows(_normal(rng, inner, hidden) / 7), quantize_rows(_normal(rng, hidden, inner) / 6)
    arrays = [*_quantized(rng, tokens, hidden), pack(up[0]), up[1], _normal(rng, inner)]
    arrays += [pack(down[0]), down[1], _normal(rng, hidden)]
    return [("Int8FeedForward", arrays, {}), _followed("Int8FeedForward", arrays, *norm(rng, tokens, hidden))]


def gated_feed_forward(rng, tokens):
    hidden, inner = int(rng.integers(1, 9)) * 16, int(rng.integers(1, 12)) * 16
    layers = [(inner, hidden), (inner, hidden), (hidden, inner)]
    arrays = [*_quantized(rng, tokens, hidden)]
    for shape in layers:
        weight, scale = quantize_rows(_normal(rng, *shape) / np.float32(np.sqrt(shape[1])))
        arrays += [pack(weight), scale, _normal(rng, shape[0])]
    found = []
    for op in ("Int8GeluMulFeedForward", "Int8SiluMulFeedForward"):
        found += [(op, arrays, {}), _followed(op, arrays, *norm(rng, tokens, hidden))]
    return found


def experts(rng, tokens, allowed=5, top_k=2):
    hidden, ffn, experts = int(rng.integers(1, 6)) * 16, int(rng.integers(1, 8)) * 16, 5
    expert_indices = np.array([rng.permutation(allowed)[:top_k] for _ in range(tokens)], np.int64).reshape(
        tokens, top_k
    )
    up = [quantize_rows(_normal(rng, ffn, hidden) / 7) for _ in range(experts)]
    down = [quantize_rows(_normal(rng, hidden, ffn) / 6) for _ in range(experts)]
    scales = [np.stack([s for _, s in part]) for part in (up, down)]
    weights = rng.random((tokens, top_k), np.float32)
    arrays = [*_quantized(rng, tokens, hidden), weights, expert_indices, _normal(rng, hidden), *scales]
    arrays += [pack(m) for m, _ in up + down]
    return [("Int8Experts", arrays, {}), _followed("Int8Experts", arrays, *norm(rng, tokens, hidden), at=7)]


def texts(rng, tokens):
    lengths = [tokens // 3, 0, tokens - tokens // 3] if tokens else [0]
    mask = np.zeros((len(lengths), max(*lengths, 1) + int(rng.integers(0, 9))), np.int64)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1
    cells = np.flatnonzero(mask).astype(np.int64)
    heads, dim = int(rng.integers(1, 4)), 2 * int(rng.integers(1, 40))
    angle = np.outer(np.arange(mask.shape[1]), 100.0 ** (-np.arange(0, dim, 2) / dim))
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    x = _normal(rng, len(cells), 3 * heads * dim)
    width, dim = int(rng.integers(1, 20)) * 4, 16 * int(rng.integers(1, 5))
    half = dim // 2
    weight, weight_scale = quantize_rows(_normal(rng, 3 * heads * dim, width) / np.sqrt(width))
    product = [*_quantized(rng, len(cells), width), pack(weight), weight_scale, _normal(rng, 3 * heads * dim)]
    turns = np.resize(cos, (len(cos), half)), np.resize(sin, (len(sin), half))
    return [
        ("Attention", [x, cells, mask, cos, sin], {"num_heads": heads}),
        ("Int8Attention", [*product, cells, mask, *turns], {"num_heads": heads}),
        ("Pool", [x, cells, mask], {}),
    ]


MAKERS = {
    "rows": rows,
    "linear": linear,
    "feed-forward": feed_forward,
    "gated feed-forward": gated_feed_forward,
    "experts": experts,
    "all on two experts": partial(experts, allowed=2),
    "one expert each": partial(experts, allowed=1, top_k=1),
    "texts": texts,
}
