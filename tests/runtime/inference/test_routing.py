"""Routing seen from outside: against the torch network, the numpy oracle and onnx's own reading of the graph."""

import threading
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moembed import Embedder, Routing
from moembed.bundle.locate import DEFAULT_FOLDER
from moembed.bundle.protobuf import encoded, fields, numbers, strings, submessages
from moembed.errors import BundleError, InputError, TextTooLongError
from moembed.inference import routing
from moembed.inference.kernels import PORTABLE, VARIABLE, usable_kernels
from moembed.inference.routing import Routers
from moembed.models.oracle import Oracle
from moembed.tokenizer.tokenizer import Tokenizer
from moembed.verify.parity import observe_graph, observe_network, observe_oracle
from moembed.verify.tolerances import TOLERANCES

TEXTS = ["", "骆驼很酷", "How long does bread stay in the oven?", "a longer text about bridges and rivers " * 5]
GRAPH = (DEFAULT_FOLDER / "onnx" / "model_int8.onnx").read_bytes()


@pytest.fixture(params=usable_kernels())
def kernels(request, monkeypatch):
    monkeypatch.setenv(VARIABLE, request.param)
    return request.param


def _ids(model, text):
    (ids,) = model.tokenizer.encode([text])
    return ids.tolist()


@pytest.mark.parametrize("reference", ["network", "oracle"])
def test_float32_routing_is_that_of_the_references(bundle, network, checkpoint, kernels, reference):
    model, bound = Embedder(bundle, threads=2), TOLERANCES["fp32"]
    observe = observe_network(network) if reference == "network" else observe_oracle(Oracle(checkpoint))
    for text in TEXTS:
        found, wanted = model.routing(text), observe(_ids(model, text)).routing
        assert found.layers == tuple(sorted(wanted))
        assert found.num_experts == network.config.num_experts
        for place, layer in enumerate(found.layers):
            clear = wanted[layer].margin > bound.margin
            order = np.abs(np.diff(wanted[layer].weights, axis=1)).min(axis=1) > bound.margin
            assert np.array_equal(found.experts[place][clear & order], wanted[layer].chosen[clear & order])
            assert (clear & order).mean() > 0.9, "nearly every token is compared"
            assert np.abs(found.weights[place] - wanted[layer].weights).max() <= bound.router_max_abs


@pytest.mark.parametrize("kind", ["bundle", "int8", "embedded"])
def test_routing_is_what_onnx_finds_in_the_graph_and_vectors_keep_their_bytes(kind, kernels, request):
    model = (
        Embedder.from_pretrained(threads=2)
        if kind == "embedded"
        else Embedder(request.getfixturevalue(kind), threads=2)
    )
    assert model.kernels == kernels
    observe = observe_graph(model.bundle.graph)
    for text in TEXTS:
        found, wanted = model.routing(text), observe(_ids(model, text)).routing
        assert found.tokens == tuple(model.tokens(text))
        assert found.experts.shape == found.weights.shape == (len(found.layers), len(found.tokens), 2)
        assert (found.experts.dtype, found.weights.dtype) == (np.int64, np.float32)
        assert (np.diff(found.weights, axis=2) <= 0).all(), "the expert of greatest weight first"
        assert found.layers == tuple(sorted(wanted))
        for place, layer in enumerate(found.layers):
            assert np.array_equal(found.experts[place], wanted[layer].chosen)
            assert np.array_equal(found.weights[place], wanted[layer].weights)
        assert found.vector.tobytes() == model.encode(text, prompt="").tobytes()


def test_prompts_and_load(model):
    found = model.routing("the cat sleeps", prompt_name="query")
    assert found.tokens == tuple(model.tokens("query: the cat sleeps"))
    assert found.vector.tobytes() == model.encode_query("the cat sleeps").tobytes()
    assert found.load.shape == (len(found.layers), 8)
    assert (found.load.sum(axis=1) == 2 * len(found.tokens)).all()
    for place, expert in ((0, 3), (-1, 0)):
        assert found.load[place, expert] == (found.experts[place] == expert).any(axis=1).sum()
    with pytest.raises(InputError, match="no prompt named 'sts'"):
        model.routing("a", prompt_name="sts")


def test_bad_input(model):
    with pytest.raises(TextTooLongError, match="the model reads 512"):
        model.routing("word " * 600)
    with pytest.raises(InputError, match=r"text 0 has the lone surrogate U\+D800"):
        model.routing("\ud800")
    with pytest.raises(InputError, match="the text is of type int; expected one string"):
        model.routing(7)


def test_threads_share_one_session_that_is_opened_when_it_is_asked_for(monkeypatch):
    opened, once = [], routing._open
    monkeypatch.setattr(routing, "_open", lambda *arguments: opened.append(1) or once(*arguments))
    model = Embedder.from_pretrained()
    model.encode_query("a")
    assert not opened
    found: list[Routing] = []
    threads = [threading.Thread(target=lambda: found.append(model.routing(TEXTS[2]))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1
    assert len({(r.experts.tobytes(), r.weights.tobytes(), r.vector.tobytes()) for r in found}) == 1
    assert len(found) == 6


def test_kernels_of_a_later_environment_change_nothing(monkeypatch):
    monkeypatch.setenv(VARIABLE, PORTABLE)
    model = Embedder.from_pretrained()
    monkeypatch.setenv(VARIABLE, "sse9")
    assert model.routing(TEXTS[2]).vector.tobytes() == model.encode(TEXTS[2], prompt="").tobytes()


def _routers_of(tmp_path, graph):
    path = tmp_path / "model.onnx"
    path.write_bytes(graph)
    bundle, tokenizer = SimpleNamespace(graph=path), Tokenizer(DEFAULT_FOLDER / "tokenizer.json")
    return Routers(bundle, tokenizer, providers=["CPUExecutionProvider"], threads=1, kernels=PORTABLE)


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        (b"", "has 0 routers"),
        (b"\x3a", "no number at byte 1"),
        (b"\x3a\x05a", "ends within a field of 5 bytes"),
        (b"\x3b", "field of kind 3"),
        (b"\xff" * 40, "no number at byte 0"),
        (b"\x38\x01", "field 7 is a number"),
        (encoded(7, encoded(1, encoded(4, b"\xff"))), "not UTF-8"),
        (GRAPH[: len(GRAPH) // 2], "ends within a field"),
        (GRAPH.replace(b"mlp.router.layer", b"mlp.rooter.layer"), "has 0 routers"),
        (
            GRAPH + encoded(7, encoded(5, encoded(8, b"encoder.layers.1.mlp.router.layer.weight") + b"\x08\x07")),
            "of [7, 8]",
        ),
        (GRAPH[:-1000], "ends within"),
    ],
)
def test_damaged_graphs_are_refused(tmp_path, graph, words):
    with pytest.raises(BundleError) as caught:
        _routers_of(tmp_path, graph).open()
    assert words in str(caught.value)


def test_a_graph_that_onnxruntime_refuses(tmp_path):
    with pytest.raises(BundleError, match="cannot load the graph"):
        _routers_of(tmp_path, GRAPH).open()  # no weights beside it


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=60)
    | st.tuples(st.integers(0, len(GRAPH) - 400), st.integers(1, 400)).map(lambda s: GRAPH[s[0] :][: s[1]])
)
def test_any_bytes_are_a_message_or_refused(data):
    message = memoryview(data)
    for read in (fields, lambda m: submessages(m, 1), lambda m: strings(m, 1), lambda m: numbers(m, 1)):
        try:
            found = list(read(message))
        except BundleError:
            continue
        assert len(found) <= len(data)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 2**28), st.binary(max_size=300), st.integers(0, 2**64 - 1))
def test_wire_reads_what_it_writes_and_what_protobuf_writes(number, value, integer):
    assert [(n, bytes(v)) for n, v in fields(memoryview(encoded(number, value)))] == [(number, value)]
    tensor = onnx.TensorProto(name="a", dims=[integer >> 1, 3])
    assert list(numbers(memoryview(tensor.SerializeToString()), 1)) == [integer >> 1, 3]
    packed = encoded(1, b"\x80\x01\x05")
    assert list(numbers(memoryview(packed), 1)) == [128, 5]
    assert strings(memoryview(tensor.SerializeToString()), 8) == ["a"]
