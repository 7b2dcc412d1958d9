"""Output precisions: quantized values, scales, and conversion back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from moembed import dequantize_embeddings, quantize_embeddings
from moembed.errors import InputError
from moembed.precision import PRECISIONS
from support.tolerances import FLOAT16_MAX_ABS, INT8_MIN_COSINE, UNIT_LENGTH, cosine_of_bits

TEXTS = ["Hello!", "How do I run it on a GPU?", "骆驼很酷", ""]


@pytest.mark.parametrize(
    ("precision", "dtype", "width"),
    [
        ("float32", np.float32, 384),
        ("float16", np.float16, 384),
        ("int8", np.int8, 384),
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
        "int8": INT8_MIN_COSINE,
        "uint8": INT8_MIN_COSINE,
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


@settings(max_examples=60)
@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=3, max_side=24), elements=st.floats(-1, 1, width=32))
)
def test_int8_is_within_half_a_step(vectors):
    codes, scales = quantize_embeddings(vectors, "int8")
    assert codes.shape == vectors.shape
    assert (
        np.abs(codes.astype(np.float64) * scales[..., None] - vectors).max(initial=0) <= scales.max(initial=0) * 0.5001
    )
    shifted = quantize_embeddings(vectors, "uint8").codes
    assert np.array_equal(shifted.astype(int) - 128, codes.astype(int))
    assert np.array_equal(dequantize_embeddings(shifted, "uint8", scales), dequantize_embeddings(codes, "int8", scales))


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
        (np.float32(3), "int8", "float vectors"),
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
