"""Containers of texts: lists, arrays, columns and streams; anything else raises an error with a remedy."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from moembed import dequantize_embeddings, quantize_embeddings
from moembed.errors import InputError

TEXTS = ["one", "zwei", "三"]


@pytest.fixture(scope="module")
def expected(model):
    return model.encode_query(TEXTS)


def series(library, *arguments, **options):
    return importlib.import_module(library).Series(*arguments, **options)


def arrow(kind="string", texts=TEXTS):
    pa = pytest.importorskip("pyarrow")
    return pa.array(texts, getattr(pa, kind)())


# --- containers

CONTAINERS = {
    "list": lambda: TEXTS,
    "tuple": lambda: tuple(TEXTS),
    "generator": lambda: (text for text in TEXTS),
    "values of a dict": lambda: dict(enumerate(TEXTS)).values(),
    "keys of a dict": lambda: dict.fromkeys(TEXTS).keys(),
    "NumPy str": lambda: np.array(TEXTS),
    "NumPy object": lambda: np.array(TEXTS, object),
    "list of np.str_": lambda: list(np.array(TEXTS)),
    "slice of an array": lambda: np.array([TEXTS, TEXTS])[:, ::1][0],
    "pandas Series": lambda: series("pandas", TEXTS, index=[7, 7, 3]),
    "pandas string": lambda: series("pandas", TEXTS, dtype="string"),
    "pandas category": lambda: series("pandas", TEXTS, dtype="category"),
    "pandas Index": lambda: importlib.import_module("pandas").Index(TEXTS),
    "Polars Series": lambda: series("polars", TEXTS),
    "Polars categorical": lambda: series("polars", TEXTS, dtype=importlib.import_module("polars").Categorical),
    "Arrow string": arrow,
    "Arrow large_string": lambda: arrow("large_string"),
    "Arrow string_view": lambda: arrow("string_view"),
    "Arrow dictionary": lambda: arrow().dictionary_encode(),
    "Arrow slice": lambda: arrow(texts=["x", *TEXTS, "y"]).slice(1, 3),
    "Arrow chunked": lambda: pytest.importorskip("pyarrow").chunked_array([TEXTS[:1], [], TEXTS[1:]]),
    "Arrow chunks of dictionaries": lambda: pytest.importorskip("pyarrow").chunked_array(
        [arrow(texts=part).dictionary_encode() for part in (TEXTS[:1], TEXTS[1:])]
    ),
    "Arrow slice of views": lambda: arrow("string_view", ["x", *TEXTS]).slice(1),
    "Arrow run-end encoded": lambda: pytest.importorskip("pyarrow").RunEndEncodedArray.from_arrays([1, 2, 3], TEXTS),
    "pandas Arrow string": lambda: series("pandas", arrow("large_string"), dtype="large_string[pyarrow]"),
    "Polars Enum": lambda: series("polars", TEXTS, dtype=importlib.import_module("polars").Enum(TEXTS)),
    "column of an Arrow table": lambda: pytest.importorskip("pyarrow").table({"text": TEXTS})["text"],
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_containers_of_texts(model, expected, kind):
    if kind.split()[0] in ("pandas", "Polars"):
        pytest.importorskip(kind.split()[0].lower())
    made = CONTAINERS[kind]
    assert model.encode_query(made()).tobytes() == expected.tobytes()
    streamed = model.embed(made(), prompt_name="query", batch_size=2)
    assert np.stack([result.vector for result in streamed]).tobytes() == expected.tobytes()
    assert model.count_tokens(made()) == model.count_tokens(TEXTS)
    assert len(model.token_embeddings(made(), prompt="")) == len(TEXTS)


def frame(library, kind="DataFrame"):
    return getattr(pytest.importorskip(library), kind)({"text": TEXTS})


REFUSED = {
    "dict": (lambda: {"a": "b"}, r"type dict, which would yield its keys.*list\(texts.values\(\)\)"),
    "set": (lambda: {"a"}, "type set, which has no order; pass a list"),
    "frozenset": (lambda: frozenset("a"), "type frozenset, which has no order"),
    "bytes": (lambda: b"a", "type bytes; decode it first"),
    "bytearray": (lambda: bytearray(b"a"), "type bytearray; decode"),
    "None": (lambda: None, "type NoneType; expected a string, or a list"),
    "number": (lambda: 5, "type int; expected a string"),
    "path": (lambda: Path("x"), "type PosixPath; expected|type WindowsPath; expected"),
    "0-d array": (lambda: np.array("a"), r"shape \(\); expected one dimension: pass texts.item\(\)"),
    "2-d array": (lambda: np.array([TEXTS]), r"shape \(1, 3\); expected one dimension: pass one column"),
    "pandas DataFrame": (lambda: frame("pandas"), r"DataFrame of shape \(3, 1\); expected one dimension"),
    "Polars DataFrame": (lambda: frame("polars"), r"DataFrame of shape \(3, 1\)"),
    "Polars LazyFrame": (lambda: frame("polars").lazy(), "LazyFrame; expected"),
    "Arrow table": (lambda: pytest.importorskip("pyarrow").table({"t": TEXTS}), r"Table of shape \(3, 1\)"),
    "Arrow nulls": (lambda: arrow(texts=["a", None]), "text 1 is NoneType, expected str: fill or drop missing values"),
    "Arrow dictionary with nulls": (
        lambda: arrow(texts=["a", None]).dictionary_encode(),
        "text 1 is NoneType, expected str: fill or drop",
    ),
    "Arrow null type": (lambda: pytest.importorskip("pyarrow").nulls(2), "text 0 is NoneType, expected str: fill"),
    "Arrow binary": (lambda: arrow("binary", [b"a"]), "text 0 is bytes, expected str: decode it first"),
    "Arrow struct": (lambda: pytest.importorskip("pyarrow").array([{"a": "b"}]), "text 0 is dict.*pass one field"),
    "Arrow scalar": (lambda: pytest.importorskip("pyarrow").scalar("a"), "type StringScalar; expected a string"),
    "Arrow batch": (lambda: frame("pyarrow", "record_batch"), r"RecordBatch of shape \(3, 1\); expected one dimension"),
    "Arrow string of other bytes": (
        lambda: arrow("binary", [b"a", b"h\xff"]).view("string"),
        r"text 1 is not valid UTF-8 \(invalid start byte at byte 1\): cast the column to binary",
    ),
    "Arrow numbers": (lambda: pytest.importorskip("pyarrow").array([1]), "text 0 is int"),
    "pandas NaN": (lambda: frame("pandas").reindex([0, 9])["text"], "text 1 is float, expected str: fill or drop"),
    "pandas NA": (
        lambda: [pytest.importorskip("pandas").NA],
        "text 0 is NAType, expected str: fill or drop",
    ),
    "Polars null": (lambda: pytest.importorskip("polars").Series(["a", None]), "text 1 is NoneType"),
    "masked": (lambda: np.ma.array(["a", "b"], mask=[False, True]), "text 1 is NoneType"),
    "bytes inside": (lambda: np.array([b"a"]), "text 0 is bytes, expected str: decode it first"),
    "lists inside": (lambda: ["a", ["b"]], "text 1 is list, expected str: pass one flat sequence"),
    "rows inside": (lambda: [{"text": "a"}], "text 0 is dict, expected str: pass one field of each row"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_no_containers_of_texts(model, kind):
    made, said = REFUSED[kind]
    for call in (
        model.encode_query,
        model.count_tokens,
        lambda texts: model.token_embeddings(texts, prompt=""),
        lambda texts: list(model.embed(texts, prompt="")),
    ):
        with pytest.raises(InputError, match=said):
            call(made())


def test_a_stream_names_the_text_and_refuses_a_container_at_once(model):
    stream = model.embed(["a"] * 5 + [None], prompt="", batch_size=2)
    assert [next(stream).index for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(InputError, match="text 5 is NoneType"):
        next(stream)
    with pytest.raises(InputError, match="no order"):
        model.embed({"a"}, prompt="")


def test_a_fault_of_the_callers_own_iterator_stays_its_own(model):
    def broken():
        yield "a"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        model.encode_query(broken())


def test_one_text_where_one_is_expected(model, expected):
    assert np.array_equal(model.encode_query(np.str_("one")), expected[0])
    assert type(model.count_tokens(np.str_("one"))) is int
    assert model.tokens(np.str_("one")) == model.tokens("one")
    for call in (model.tokens, model.routing):
        for wrong in (TEXTS, None, 5, b"a"):
            with pytest.raises(InputError, match="expected one string"):
                call(wrong)


@pytest.mark.parametrize("empty", [[], (), iter(()), np.array([]), np.array([], dtype="U1")])
def test_no_texts_give_empty_results(model, empty):
    assert model.encode_query(empty).shape == (0, 384)
    assert model.encode_query([], precision="binary", truncate_dim=64).shape == (0, 8)
    assert model.count_tokens([]) == model.token_embeddings([], prompt="") == list(model.embed([], prompt="")) == []
    none = np.empty((0, 384), np.float32)
    assert model.similarity(none, none).shape == (0, 0)
    assert model.similarity(none, np.ones((3, 384))).shape == (0, 3)
    assert quantize_embeddings(none, "int8", scale=0.01).codes.shape == (0, 384)
    assert dequantize_embeddings(np.empty((0, 48), np.uint8), "ubinary").shape == (0, 384)


def test_foreign_libraries_are_not_imported(model):
    import subprocess
    import sys

    code = (
        "import sys; from moembed import Embedder; Embedder.from_pretrained().encode_query(['a']); "
        "print([name for name in ('pyarrow', 'pandas', 'polars') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# --- numbers, flags, words
