"""Routing compared with the torch network, the numpy oracle and onnx's reference evaluator."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from moembed import Embedder, Routing
from moembed.bundle.manifest import RouterOutputs
from moembed.errors import BundleError, InputError, TextTooLongError
from moembed.inference import routing
from moembed.inference.kernels import PORTABLE, VARIABLE, usable_kernels
from moembed.inference.routing import Routers
from moembed.models.oracle import Oracle
from moembed.pull.opening import DEFAULT_FOLDER
from moembed.tokenizer.tokenizer import Tokenizer
from moembed.verify.parity import graph_runner, network_runner, oracle_runner
from moembed.verify.tolerances import FP32

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
    model, bound = Embedder(bundle, threads=2), FP32
    observe = network_runner(network) if reference == "network" else oracle_runner(Oracle(checkpoint))
    for text in TEXTS:
        found, wanted = model.routing(text), observe(_ids(model, text)).routing
        assert found.layers == tuple(sorted(wanted))
        assert found.num_experts == network.config.num_experts
        for place, layer in enumerate(found.layers):
            clear = wanted[layer].margin > bound.margin
            order = np.abs(np.diff(wanted[layer].weights, axis=1)).min(axis=1) > bound.margin
            assert np.array_equal(found.experts[place][clear & order], wanted[layer].expert_indices[clear & order])
            assert (clear & order).mean() > 0.9, "nearly every token is compared"
            assert np.abs(found.weights[place] - wanted[layer].weights).max() <= bound.router_max_abs


@pytest.mark.parametrize("kind", ["bundle", "int8", "built-in"])
def test_routing_is_what_onnx_finds_in_the_graph_and_vectors_keep_their_bytes(kind, kernels, request):
    model = (
        Embedder.from_pretrained(threads=2)
        if kind == "built-in"
        else Embedder(request.getfixturevalue(kind), threads=2)
    )
    assert model.kernels == kernels
    observe = graph_runner(model.bundle.graph)
    for text in TEXTS:
        found, wanted = model.routing(text), observe(_ids(model, text)).routing
        assert found.tokens == tuple(model.tokens(text))
        assert found.experts.shape == found.weights.shape == (len(found.layers), len(found.tokens), 2)
        assert (found.experts.dtype, found.weights.dtype) == (np.int64, np.float32)
        assert (np.diff(found.weights, axis=2) <= 0).all(), "the expert of greatest weight first"
        assert found.layers == tuple(sorted(wanted))
        for place, layer in enumerate(found.layers):
            assert np.array_equal(found.experts[place], wanted[layer].expert_indices)
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
    with pytest.raises(TextTooLongError, match="the model's limit is 512"):
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


def test_kernels_of_a_later_environment_change_nothing(int8, monkeypatch):
    monkeypatch.setenv(VARIABLE, PORTABLE)
    model = Embedder(int8)
    monkeypatch.setenv(VARIABLE, "sse9")
    assert model.routing(TEXTS[2]).vector.tobytes() == model.encode(TEXTS[2], prompt="").tobytes()


def _routers_of(bundle):
    tokenizer = Tokenizer(DEFAULT_FOLDER / "tokenizer.json")
    return Routers(bundle, tokenizer, providers=["CPUExecutionProvider"], threads=1, kernels=PORTABLE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"routers": {}}, "has no MoE layers"),
        (
            {"routers": {1: RouterOutputs(weights="no such value", expert_indices="token_embeddings")}},
            "cannot load the graph",
        ),
        (
            {"routers": {1: RouterOutputs(weights="token_embeddings", expert_indices="token_embeddings")}},
            "are not the weights",
        ),
        ({"num_experts": 2}, "indices of 2 experts"),
    ],
)
def test_a_manifest_that_does_not_fit_the_graph_is_refused(model, change, words):
    changed = replace(model.bundle, manifest=replace(model.bundle.manifest, **change))
    with pytest.raises(BundleError) as caught:
        _routers_of(changed).run(np.array([0, 5, 6, 2], np.int32))
    assert words in str(caught.value)


def test_a_graph_that_onnxruntime_refuses(model, tmp_path):
    (tmp_path / "onnx").mkdir()
    (tmp_path / model.bundle.manifest.graph).write_bytes(GRAPH)
    with pytest.raises(BundleError, match="cannot load the graph"):
        _routers_of(replace(model.bundle, folder=tmp_path)).open()  # no weights beside it
