"""Output precisions: quantized values, scales, and conversion back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from moembed import dequantize_embeddings, quantize_embeddings
from moembed.errors import ClippingWarning, InputError
from moembed.precision import PRECISIONS
from support.tolerances import (
    FLOAT16_MAX_ABS,
    INT8_LENGTH,
    INT8_MIN_COSINE,
    INT8_ONE_SCALE_MIN_COSINE,
    UNIT_LENGTH,
    cosine_of_bits,
)

TEXTS = ["Hello!", "How do I run it on a GPU?", "骆驼很酷", ""]


@pytest.mark.parametrize(
    ("precision", "dtype", "width"),
    [
        ("float32", np.float32, 384),
        ("float16", np.float16, 384),
        ("int8", np.int8, 384),
        ("int8-per-vector", np.int8, 384),
        ("uint8", np.uint8, 384),
        ("binary", np.int8, 48),
        ("ubinary", np.uint8, 48),
    ],
)
def test_shapes_and_the_way_back(model, precision, dtype, width):
    full = model.encode_query(TEXTS)
    codes = model.encode_query(TEXTS, precision=precision)
    assert (codes.dtype, codes.shape) == (dtype, (4, width))
    assert np.array_equal(model.encode_query(TEXTS[0], precision=precision), codes[0])
    back = dequantize_embeddings(codes, precision)
    assert np.allclose(np.linalg.norm(back, axis=1), 1, atol=FLOAT16_MAX_ABS)
    cosine = (back * full).sum(1)
    if "binary" in precision:
        np.testing.assert_allclose(cosine, cosine_of_bits(full), rtol=0, atol=UNIT_LENGTH)
        return
    least = {
        "float32": 1 - UNIT_LENGTH,
        "float16": 1 - FLOAT16_MAX_ABS,
        "int8": INT8_ONE_SCALE_MIN_COSINE,
        "int8-per-vector": INT8_MIN_COSINE,
        "uint8": INT8_ONE_SCALE_MIN_COSINE,
    }
    assert (cosine >= least[precision]).all()


def test_embed_yields_the_scale(model):
    (record,) = model.embed(["hello"], prompt="query: ", precision="int8")
    expected = model.encode_query("hello")
    assert np.abs(record.vector * np.float32(record.scale) - expected).max() <= record.scale / 2 + 1e-7


@pytest.mark.parametrize("precision", PRECISIONS)
def test_quantized_vectors_are_batch_invariant(model, precision):
    together = model.encode_query(TEXTS, precision=precision)
    for text, codes in zip(TEXTS, together, strict=True):
        assert model.encode_query(text, precision=precision).tobytes() == codes.tobytes()


VECTORS = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=1, max_dims=3, max_side=24), elements=st.floats(-1, 1, width=32)
)


@settings(max_examples=60, deadline=None)
@given(VECTORS)
def test_int8_per_vector_is_within_half_a_step(vectors):
    codes, scales = quantize_embeddings(vectors, "int8-per-vector")
    assert codes.shape == vectors.shape
    assert (
        np.abs(codes.astype(np.float64) * scales[..., None] - vectors).max(initial=0) <= scales.max(initial=0) * 0.5001
    )


@settings(max_examples=60, deadline=None)
@given(VECTORS, st.floats(1 / 127, 1))
def test_one_scale_is_within_half_a_step_and_clips_nothing_of_a_unit_vector(vectors, scale):
    codes, scales = quantize_embeddings(vectors, "int8", scale=scale)
    assert scales.shape == vectors.shape[:-1]
    assert (scales == np.float32(scale)).all()
    back = dequantize_embeddings(codes, "int8", scales)
    assert np.abs(back - vectors).max(initial=0) <= scale * 0.5001
    assert np.array_equal(back, dequantize_embeddings(codes, "int8", scale))
    shifted = quantize_embeddings(vectors, "uint8", scale=scale).codes
    assert np.array_equal(shifted.astype(int) - 128, codes.astype(int))
    assert np.array_equal(dequantize_embeddings(shifted, "uint8", scales), back)


def test_a_scale_clips_what_is_beyond_it():
    vectors = np.linspace(-1, 1, 400, dtype=np.float32)
    few = quantize_embeddings(vectors, "int8", scale=0.995 / 127)
    assert (few.codes.min(), few.codes.max()) == (-127, 127)
    with pytest.warns(ClippingWarning, match="200 of 400 components are larger than 127 times the scale"):
        codes = quantize_embeddings(vectors, "int8", scale=0.5 / 127).codes
    assert (np.abs(codes) == 127).sum() >= 200
    with pytest.warns(ClippingWarning, match="400 of 400"):
        quantize_embeddings(np.full(400, 3e38, np.float32), "uint8", scale=1e-30)


@pytest.mark.parametrize(
    ("precision", "scale", "said"),
    [
        ("int8", None, r"pass scale=embedder.int8_scale\(dim\), or choose the precision int8-per-vector"),
        ("uint8", None, "one scale for all vectors"),
        ("int8", 0, "expected a positive number"),
        ("int8", -0.1, "expected a positive number"),
        ("int8", float("nan"), "expected a positive number"),
        ("int8", float("inf"), "expected a positive number"),
        ("int8", [0.1, 0.1], "expected a positive number"),
        ("int8", True, "expected a positive number"),
        ("int8", "0.1", "scale is of type str"),
        ("int8-per-vector", 0.1, "int8-per-vector does not: leave it out"),
        ("ubinary", 0.1, "ubinary does not"),
    ],
)
def test_a_scale_that_is_missing_or_of_no_use(precision, scale, said):
    with pytest.raises(InputError, match=said):
        quantize_embeddings(np.ones(8, np.float32), precision, scale=scale)


def test_one_scale_ranks_by_dot_product_and_a_scale_per_vector_does_not(model):
    """C42: vectors of a model whose largest components differ. Queries and documents are codes, and so are their products."""
    rng = np.random.default_rng(7)
    sizes = rng.uniform(0.3, 0.9, (200, 1))
    rest = rng.standard_normal((200, 63))
    rest *= np.sqrt(1 - sizes**2) / np.linalg.norm(rest, axis=1, keepdims=True)
    vectors = np.concatenate([sizes, rest], axis=1).astype(np.float32)
    exact = _nearest(vectors @ vectors.T)

    def overlap(codes):
        wide = codes.astype(np.int64)
        return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(_nearest(wide @ wide.T), exact, strict=True)])

    assert overlap(quantize_embeddings(vectors, "int8", scale=1 / 127).codes) > 0.95
    assert overlap(quantize_embeddings(vectors, "int8-per-vector").codes) < 0.5


def _nearest(scores):
    return np.argsort(-scores, axis=1, kind="stable")[:, :10]


@pytest.mark.parametrize("dim", [384, 256, 300, 64])
def test_norms_are_what_stores_check(model, dim):
    """C42: dot products of stored vectors are cosines within a thousandth, at every width."""
    for precision in ("float32", "float16"):
        vectors = model.encode_document(TEXTS[:3], precision=precision, truncate_dim=dim)
        assert np.abs(np.linalg.norm(vectors.astype(np.float64), axis=1) - 1).max() <= 1e-3
    codes = model.encode_document(TEXTS[:3], precision="int8", truncate_dim=dim)
    lengths = np.linalg.norm(codes.astype(np.float64), axis=1) * model.int8_scale(dim)
    assert np.abs(lengths - 1).max() <= INT8_LENGTH


def test_encode_and_embed_take_the_scale_of_the_bundle(small):
    scales = small.bundle.manifest.int8.scales
    full = small.encode(TEXTS, prompt="")
    for dim in small.bundle.manifest.widths:
        assert small.int8_scale(dim) == scales[dim]
        short = small.encode(TEXTS, prompt="", truncate_dim=dim)
        codes = small.encode(TEXTS, prompt="", truncate_dim=dim, precision="int8")
        assert np.array_equal(codes, quantize_embeddings(short, "int8", scale=scales[dim]).codes)
        records = list(small.embed(TEXTS, prompt="", truncate_dim=dim, precision="uint8"))
        assert np.array_equal(np.stack([one.vector for one in records]).astype(int) - 128, codes.astype(int))
        assert {one.scale for one in records} == {float(np.float32(scales[dim]))}
    narrow = small.encode(TEXTS, prompt="", truncate_dim=8, normalize_embeddings=False, precision="int8")
    assert np.array_equal(narrow, quantize_embeddings(full[:, :8], "int8", scale=small.int8_scale()).codes)
    assert small.int8_scale(8, normalize_embeddings=False) == small.int8_scale() < small.int8_scale(8)


def test_binary_is_that_of_sentence_transformers():
    vector = np.array([0.1, -0.1, 0.0, 1, -1, -1, -1, 0.5], np.float32)
    assert quantize_embeddings(vector, "ubinary").codes.tolist() == [0b10010001]
    assert quantize_embeddings(vector, "binary").codes.tolist() == [0b10010001 - 128]
    signs = dequantize_embeddings(quantize_embeddings(vector, "binary").codes, "binary") * np.sqrt(8)
    assert signs.round().tolist() == [1, -1, -1, 1, -1, -1, -1, 1]


@pytest.mark.parametrize(
    ("vectors", "precision", "said"),
    [
        (np.zeros(8, np.float32), "int4", "expected one of"),
        (np.zeros(8, np.int8), "int8", "float vectors"),
        (np.float32(3), "int8-per-vector", "float vectors"),
        (np.array([np.nan, 1], np.float32), "int8", "NaN"),
        (np.zeros(12, np.float32), "binary", "multiple of 8"),
    ],
)
def test_what_cannot_be_quantized(vectors, precision, said):
    with pytest.raises(InputError, match=said):
        quantize_embeddings(vectors, precision)


def test_codes_of_another_precision_are_refused():
    with pytest.raises(InputError, match="int8 codes are int8 arrays; found uint8"):
        dequantize_embeddings(np.zeros(8, np.uint8), "int8")


def test_binary_needs_whole_bytes(model):
    with pytest.raises(InputError, match="100 is not a multiple of 8"):
        model.encode_query("x", precision="ubinary", truncate_dim=100)
    with pytest.raises(InputError, match="precision = 'int4'"):
        model.encode_query("x", precision="int4")
