"""Arguments of the Python API of any type; invalid ones raise an error with a remedy."""

import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moembed import Chunk, Embedder, MoembedError, dequantize_embeddings, quantize_embeddings
from moembed.errors import InputError, SourceError
from moembed.precision import PRECISIONS

TEXTS = ["one", "zwei", "三"]


class Indexed:
    def __index__(self):
        return 2


@pytest.mark.parametrize(
    "two", [2, np.int64(2), np.uint8(2), np.array(2), Indexed()], ids=lambda two: type(two).__name__
)
def test_integers_of_any_kind(model, two):
    assert np.array_equal(model.encode_query(TEXTS, batch_size=two), model.encode_query(TEXTS))
    assert model.encode_query(TEXTS, truncate_dim=two).shape == (3, 2)
    assert len(model.token_embeddings(TEXTS, prompt="", batch_size=two)) == 3
    assert next(model.embed(TEXTS, prompt="", batch_size=two, truncate_dim=two)).vector.shape == (2,)
    assert Chunk(overlap=two) == Chunk(overlap=2)
    assert Embedder.from_pretrained(threads=two).threads == 2


@pytest.mark.parametrize("wrong", [0, -1, 1.0, np.float32(2), True, np.True_, "2", None, [2], Fraction(2), 10**30])
def test_no_integers(model, wrong):
    for name in ("batch_size", "truncate_dim"):
        if (wrong is None and name == "truncate_dim") or (type(wrong) is int and wrong > 0 and name == "batch_size"):
            continue
        for call in (model.encode_query, lambda texts, **one: model.embed(texts, prompt="", **one)):
            with pytest.raises(InputError, match=rf"{name} = .*expected"):
                call(TEXTS, **{name: wrong})
    if wrong is not None:
        with pytest.raises(InputError, match="threads = .*expected an integer from 1"):
            Embedder.from_pretrained(threads=wrong)
    if type(wrong) is not int or wrong < 0:
        with pytest.raises(InputError, match="overlap = .*expected an integer"):
            Chunk(overlap=wrong)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"prompt": 5}, "prompt = 5; expected a string"),
        ({"prompt": b"query: "}, "prompt = b'query: '; expected a string"),
        ({"prompt": "\ud800"}, "the prompt has the lone surrogate U.D800 at character 0"),
        ({"prompt_name": 5}, "no prompt named 5; this model has passage, query"),
        ({"prompt_name": ["query"]}, "no prompt named"),
        ({"prompt_name": ""}, "no prompt named ''"),
        ({"prompt": "", "precision": ["int8"]}, "precision = .*expected one of float32"),
        ({"prompt": "", "precision": np.array(["int8", "int8"])}, "precision = "),
        ({"prompt": "", "precision": None}, "precision = None"),
        ({"prompt": "", "normalize_embeddings": "no"}, "normalize_embeddings = 'no'; expected True or False"),
        ({"prompt": "", "normalize_embeddings": None}, "normalize_embeddings = None"),
        ({"prompt": "", "overlong": np.array(["chunk", "chunk"])}, "overlong = "),
        ({"prompt": "", "overlong": Chunk}, "overlong = .*expected 'error'"),
        ({"prompt": "", "overlong": None}, "overlong = None"),
    ],
)
def test_arguments_of_the_wrong_type(model, arguments, said):
    for call in (model.encode, model.embed):
        with pytest.raises(InputError, match=said):
            call(TEXTS, **arguments)
    if set(arguments) <= {"prompt", "prompt_name"}:
        for call in (model.count_tokens, model.token_embeddings):
            with pytest.raises(InputError, match=said):
                call(TEXTS, **arguments)
        for call in (model.tokens, model.routing):
            with pytest.raises(InputError, match=said):
                call("one", **arguments)


def test_flags_are_booleans(model):
    assert np.array_equal(model.encode_query("a", normalize_embeddings=np.True_), model.encode_query("a"))
    with pytest.raises(InputError, match="pooled = 'no'; expected True or False"):
        Chunk(pooled="no")
    with pytest.raises(InputError, match="show_progress_bar = 'yes'"):
        model.encode_query("a", show_progress_bar="yes")
    with pytest.raises(InputError, match="local_files_only = 1"):
        Embedder.from_pretrained(local_files_only=1)


def test_two_prompts_are_one_too_many_in_every_method(model):
    for call in (model.encode, model.count_tokens, model.tokens, model.routing, model.token_embeddings):
        with pytest.raises(InputError, match="pass only one of them"):
            call("a", prompt_name="query", prompt="x")


@pytest.mark.parametrize("source", [b"folder", 5, 5.0, "", [], object()])
def test_sources_of_the_wrong_type(source):
    with pytest.raises(InputError, match="source = .*expected a path"):
        Embedder.from_pretrained(source)


@pytest.mark.parametrize("source", ["\0", "a" * 5000, "x\ud800", "a/b/c", Path("no-such-folder")])
def test_sources_that_are_nothing(source):
    with pytest.raises(SourceError, match="no folder"):
        Embedder.from_pretrained(source)


def test_sources_and_options_that_open(model):
    folder = model.bundle.folder

    class Own:
        def __fspath__(self):
            return str(folder)

    for source in (str(folder), folder, Own()):
        assert Embedder.from_pretrained(source, cache_dir=Path("x"), threads=1).bundle.folder.samefile(folder)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cache_dir": 5}, "cache_dir = 5; expected a path"),
        ({"cache_dir": b"x"}, "cache_dir = b'x'"),
        ({"revision": 5}, "revision = 5; expected a string"),
        ({"providers": 5}, "providers = 5; expected 'cpu'"),
        ({"providers": [5]}, r"providers = \[5\]"),
        ({"providers": None}, "providers = None"),
    ],
)
def test_options_of_from_pretrained(options, said):
    with pytest.raises(InputError, match=said):
        Embedder.from_pretrained(**options)


def test_an_embedder_is_made_of_a_bundle():
    with pytest.raises(InputError, match="Embedder.from_pretrained opens a folder or hub name"):
        Embedder("some/folder")


# --- vectors


@pytest.mark.parametrize(
    ("a", "said"),
    [
        ([[1.0], [2.0, 3.0]], "a cannot be converted to an array"),
        (np.array([np.ones(2), np.ones(2), None], object), "a is of type ndarray, which gives an array of object"),
        (["x"], "a is of type list"),
        (None, "a is of type NoneType"),
        ({"a": 1}, "a is of type dict"),
        (np.ones((2, 2), complex), "complex"),
        (np.ones((2, 2), np.int8), "float vectors, found int8.*dequantize"),
        ([[np.nan, 1.0]], "NaN or infinity"),
        ([[np.inf, 1.0]], "NaN or infinity"),
        ([[1e300, 1.0]], "too large for float32"),
        (np.ones((1, 2, 2)), r"\[n, dim\]"),
        (1.0, r"found \(1, 1\) and \(2, 2\)"),
    ],
)
def test_similarity_of_odd_input(model, a, said):
    with pytest.raises(InputError, match=said):
        model.similarity(a, np.eye(2))


def test_similarity_takes_what_numpy_reads(model):
    square = [[1.0, 0.0], [0.0, 2.0]]
    for vectors in (square, np.array(square), np.array(square, np.float16), tuple(map(tuple, square))):
        assert np.array_equal(model.similarity(vectors, vectors), np.eye(2))
    torch = pytest.importorskip("torch")
    assert np.array_equal(model.similarity(torch.eye(2), torch.eye(2)), np.eye(2))
    with pytest.raises(InputError, match="cannot be converted to an array.*requires grad"):
        model.similarity(torch.eye(2, requires_grad=True), np.eye(2))


def test_codes_and_scales_of_odd_input():
    vectors = np.linspace(-1, 1, 32, dtype=np.float32).reshape(2, 16)
    with pytest.raises(InputError, match=r"shape \(0,\)"):
        quantize_embeddings([], "int8")
    with pytest.raises(InputError, match="float16 would hold.*too large for float16"):
        quantize_embeddings([[1e6] * 8], "float16")
    with pytest.raises(InputError, match="precision = .'int8'.; expected"):
        dequantize_embeddings(np.ones(8, np.int8), ["int8"])
    codes, scales = quantize_embeddings(vectors, "int8-per-vector")
    assert dequantize_embeddings(codes, "int8", scales.tolist()).shape == vectors.shape
    for wrong, said in [
        (scales[:1], "take one scale or scales of shape"),
        ("x", "scales is of type str"),
        ([1, np.nan], "NaN"),
    ]:
        with pytest.raises(InputError, match=said):
            dequantize_embeddings(codes, "int8", wrong)
    with pytest.raises(InputError, match="the codes hold NaN"):
        dequantize_embeddings(np.array([np.nan], np.float32), "float32")
    for wrong in (np.int8(3), 5, None, "x", [[1], [1, 2]]):
        with pytest.raises(InputError):
            dequantize_embeddings(wrong, "int8")


# --- anything at all

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 2000),
    st.floats(),
    st.text(max_size=8),
    st.characters(categories=["Cs"]),
    st.binary(max_size=4),
    st.lists(st.text(max_size=4) | st.integers(0, 3) | st.none(), max_size=3),
    st.dictionaries(st.text(max_size=2), st.text(max_size=2), max_size=2),
    st.sets(st.text(max_size=2), max_size=2),
    st.sampled_from(
        [np.int64(3), np.float32(1), np.array("a"), np.array(["a", "b"]), np.array([["a"]]), np.ones((2, 384))]
    ),
    st.sampled_from([object(), object, len, Ellipsis, 1j, Fraction(1, 2), Path("x"), Chunk(), Chunk(5, False)]),
    st.sampled_from([*PRECISIONS, "query", "passage", "error", "truncate", "chunk", "mean"]),
)
METHODS = {
    "encode": ("prompt", "prompt_name", "batch_size", "precision", "normalize_embeddings", "truncate_dim", "overlong"),
    "encode_query": ("batch_size", "precision", "normalize_embeddings", "truncate_dim", "overlong"),
    "encode_document": ("prompt", "prompt_name", "precision", "show_progress_bar"),
    "embed": ("prompt", "prompt_name", "batch_size", "precision", "normalize_embeddings", "truncate_dim", "overlong"),
    "count_tokens": ("prompt", "prompt_name"),
    "token_embeddings": ("prompt", "prompt_name", "batch_size"),
    "tokens": ("prompt", "prompt_name"),
    "routing": ("prompt", "prompt_name"),
}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_junk_ends_in_a_right_result_or_in_our_error(model, data):
    name = data.draw(st.sampled_from(sorted(METHODS)))
    texts = data.draw(st.just("a") | JUNK)
    options = data.draw(st.dictionaries(st.sampled_from(METHODS[name]), JUNK, max_size=2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("error", RuntimeWarning)
        try:
            found = getattr(model, name)(texts, **options)
            found = list(found) if name == "embed" else found
        except MoembedError as error:
            assert 20 < len(str(error)) < 700  # noqa: PT017
            return
    rows = 1 if isinstance(texts, str) else len(texts)
    if name.startswith("encode"):
        assert (found.ndim, len(found) if found.ndim == 2 else 1) == (1 if isinstance(texts, str) else 2, rows)
    elif name in ("embed", "token_embeddings", "count_tokens") and not isinstance(texts, str):
        assert len(found) == rows


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(a=JUNK, b=JUNK, c=JUNK)
def test_junk_vectors_end_in_a_right_result_or_in_our_error(model, a, b, c):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        for call in (
            lambda: model.similarity(a, b),
            lambda: quantize_embeddings(a, b),
            lambda: dequantize_embeddings(a, b, c),
            lambda: Chunk(a, b),
            lambda: model.prompt_for(a),
        ):
            try:
                call()
            except MoembedError as error:
                assert str(error)  # noqa: PT017
