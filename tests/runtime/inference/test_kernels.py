"""Native kernels: against the functions that they replace, against each other, and the errors where they cannot be used."""

import json
import threading
import warnings

import numpy as np
import onnxruntime
import pytest

from moembed import Embedder
from moembed.cli import main
from moembed.errors import InputError, NativeWarning, ProviderError
from moembed.inference import kernels as kernels_module
from moembed.inference.kernels import CONFIG_ENTRY, PORTABLE, VARIABLE, Kernels, choose_kernels, usable_kernels
from moembed.native import loader as library_module
from moembed.native.loader import LIBRARY_FILE, NativeLibrary
from moembed.verify.stability import check_stability
from support import op_inputs
from support.graph_ops import NATIVE, needs_native, run_graph
from support.op_inputs import MAKERS
from support.tolerances import (
    KERNEL_EXPERT_MAX_ABS,
    KERNEL_GELU_APART,
    KERNEL_MAX_ABS,
    KERNEL_MIN_COSINE,
    KERNEL_QUANTIZED_APART,
)

every_native = pytest.mark.parametrize("name", NATIVE)
TOKENS = (0, 1, 15, 17, 513)


@needs_native
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_kernels_do_what_the_functions_do_and_all_the_same(make, tokens):
    for op, arrays, attributes in make(np.random.default_rng(tokens), tokens):
        first = run_graph(op, arrays, attributes, kernels=NATIVE[0])
        for name in NATIVE:
            for threads in (1, 3):
                again = run_graph(op, arrays, attributes, kernels=name, threads=threads)
                assert [a.tobytes() for a in again] == [a.tobytes() for a in first], (op, name, threads)
        if op in ("Attention", "Int8Attention", "Pool") and not tokens:
            continue  # the functions do not take a batch without tokens
        for found, expected in zip(first, run_graph(op, arrays, attributes), strict=True):
            assert found.shape == expected.shape
            assert found.dtype == expected.dtype
            apart = np.abs(found.astype(np.float64) - expected.astype(np.float64))
            if op == "Int8Linear":
                assert not apart.any(), "to the bit"
            elif found.dtype == np.uint8:
                assert apart.max(initial=0) <= 1
                exact = op in ("Quantize", "AddNormQuantize", "Int8Embedding", "Int4Embedding", "Int8LinearNorm")
                share = KERNEL_QUANTIZED_APART if exact else KERNEL_GELU_APART
                assert (apart > 0).sum() <= 1 + share * apart.size
            else:
                limit = KERNEL_EXPERT_MAX_ABS if op.startswith("Int8Experts") or "FeedForward" in op else KERNEL_MAX_ABS
                assert apart.max(initial=0) <= limit * max(1, np.abs(expected).max(initial=0)), op


@needs_native
@pytest.mark.parametrize(("tokens", "threads"), [(0, 2), (3, 2), (97, 2), (300, 8), (513, 2)])
def test_weights_that_are_constant_give_the_same(tokens, threads):
    """Their column sums are kept from the first call: few rows compute them on their way, others before. 300 rows are few for 8
    threads, and more than a task has."""
    rng = np.random.default_rng(tokens)
    for op, arrays, attributes in (
        *op_inputs.linear(rng, tokens),
        *op_inputs.feed_forward(rng, tokens),
        *op_inputs.gated_feed_forward(rng, tokens),
        *op_inputs.texts(rng, tokens)[1:2],
    ):
        if "MulFeedForward" in op:
            names = ["up", "gate", "down"]
        else:
            names = ["w1", "w2"] if op.startswith("Int8FeedForward") else ["weight"]
        expected = run_graph(op, arrays, attributes, kernels=NATIVE[0])
        for name in NATIVE:
            for _ in range(2):
                found = run_graph(op, arrays, attributes, constants=names, kernels=name, threads=threads)
                assert [a.tobytes() for a in found] == [a.tobytes() for a in expected], (op, name)


@needs_native
def test_a_call_without_rows_keeps_no_sums():
    for op, arrays, attributes in op_inputs.linear(np.random.default_rng(0), 97):
        without = [a[:0] if len(a) == 97 else a for a in arrays]
        expected = run_graph(op, arrays, attributes, kernels=NATIVE[0])
        for name in NATIVE:
            run_graph(op, without, attributes, constants=["weight"], kernels=name)
            found = run_graph(op, arrays, attributes, constants=["weight"], kernels=name)
            assert [a.tobytes() for a in found] == [a.tobytes() for a in expected], (op, name)


@needs_native
@pytest.mark.parametrize("tokens", [3, 97, 513])
def test_experts_that_an_earlier_call_did_not_use_give_the_same(tokens):
    rng = np.random.default_rng(tokens)
    names = [f"w{part}_{expert}" for part in (1, 2) for expert in range(5)]
    for op, arrays, attributes in op_inputs.experts(rng, tokens, allowed=2):
        for name in NATIVE:
            for shift in (0, 1, 3, 0):
                changed = _changed(arrays, 3, arrays[3] + shift)
                expected = run_graph(op, changed, attributes, kernels=NATIVE[0])
                found = run_graph(op, changed, attributes, constants=names, kernels=name, threads=2)
                assert [a.tobytes() for a in found] == [a.tobytes() for a in expected], (op, name, shift)


def _changed(arrays, index, array):
    return [array if i == index else old for i, old in enumerate(arrays)]


def _malformed():
    rng = np.random.default_rng(0)
    (_, linear, zero_point), *_, (_, linear_norm, _) = op_inputs.linear(rng, 5)
    (_, experts, _), (_, experts_norm, epsilon) = op_inputs.experts(rng, 9)
    (_, network, _), (_, network_norm, _) = op_inputs.feed_forward(rng, 9)
    (_, gated, _), _, _, (_, gated_norm, _) = op_inputs.gated_feed_forward(rng, 9)
    gelu, silu = "Int8GeluMulFeedForward", "Int8SiluMulFeedForward"
    (_, text, heads), (_, attended, heads8), (_, pool, _) = op_inputs.texts(rng, 9)
    rows = {name: (inputs, attributes) for name, inputs, attributes in reversed(op_inputs.rows(rng, 4))}
    (norm, epsilon), (words, _), (words4, _), (route, top) = (
        rows[name] for name in ("AddNormQuantize", "Int8Embedding", "Int4Embedding", "Router")
    )
    far = np.full(9, 10**12, np.int64)
    return {
        "rows too narrow": ("Int8Linear", _changed(linear, 0, linear[0][:, :-1]), zero_point, "quantized has"),
        "weight of another depth": ("Int8Linear", _changed(linear, 2, linear[2][:, :-1]), zero_point, "weight is"),
        "weight of other blocks": ("Int8Linear", _changed(linear, 2, linear[2][..., :3]), zero_point, "weight is"),
        "weight without depth": (
            "Int8Linear",
            [linear[0][:, :0], linear[1], linear[2][:, :0], *linear[3:]],
            zero_point,
            "weight has a depth of 0",
        ),
        "scales of other rows": ("Int8Linear", _changed(linear, 1, linear[1][:-1]), zero_point, "scale is"),
        "scales of other columns": ("Int8LinearGelu", _changed(linear, 3, linear[3][:-1]), {}, "weight_scale is"),
        "zero point of no byte": ("Int8Linear", linear, {"zero_point": 300}, "zero_point is 300"),
        "an expert that is not there": ("Int8Experts", _changed(experts, 3, experts[3] + 5), {}, "index . is out"),
        "an expert below 0": ("Int8Experts", _changed(experts, 3, experts[3] - 5), {}, "index -. is out"),
        "a matrix of another shape": ("Int8Experts", _changed(experts, 9, experts[9][:, :-1]), {}, "w1 is"),
        "two matrices less": ("Int8Experts", experts[:-2], {}, "8 matrices for 5 experts"),
        "bias of another width": ("Int8Experts", _changed(experts, 4, experts[4][:-1]), {}, "bias is"),
        "a token outside": ("Attention", _changed(text, 1, text[1] + 10**6), heads, "is cell"),
        "tokens out of order": ("Attention", _changed(text, 1, text[1][::-1].copy()), heads, "is cell"),
        "too few positions": ("Attention", [*text[:3], text[3][:2], text[4][:2]], heads, "position . is out"),
        "heads that do not divide": ("Attention", text, {"num_heads": heads["num_heads"] + 1}, "qkv is"),
        "integer tokens outside": ("Int8Attention", _changed(attended, 5, attended[5] + 10**6), heads8, "is cell"),
        "integer positions": (
            "Int8Attention",
            [*attended[:7], attended[7][:2], attended[8][:2]],
            heads8,
            "position . is out",
        ),
        "integer heads": ("Int8Attention", attended, {"num_heads": heads8["num_heads"] + 1}, "weight has"),
        "no heads": ("Int8Attention", attended, {"num_heads": 0}, "num_heads is 0"),
        "biases of other columns": ("Int8Attention", _changed(attended, 4, attended[4][:-1]), heads8, "qkv_bias is"),
        "too large heads": (
            "Int8Attention",
            [*attended[:7], *(np.resize(table, (len(table), 300)) for table in attended[7:])],
            heads8,
            "cos has 300 columns, expected at most 256",
        ),
        "matrices that do not follow": ("Int8FeedForward", _changed(network, 5, network[5][:, :-1]), {}, "w2 is"),
        "inner biases too few": ("Int8FeedForward", _changed(network, 4, network[4][:-1]), {}, "b1 is"),
        "outer biases too few": ("Int8FeedForward", _changed(network, 7, network[7][:-1]), {}, "b2 is"),
        "gated rows too narrow": (gelu, _changed(gated, 0, gated[0][:, :-1]), {}, "quantized has"),
        "gated scales of other rows": (silu, _changed(gated, 1, gated[1][:-1]), {}, "scale is"),
        "up of another depth": (gelu, _changed(gated, 2, gated[2][:, :-1]), {}, "up is"),
        "up biases too few": (silu, _changed(gated, 4, gated[4][:-1]), {}, "up_bias is"),
        "gate of fewer columns": (silu, _changed(gated, 5, gated[5][:-1]), {}, "gate is"),
        "gate of another depth": (gelu, _changed(gated, 5, gated[5][:, :-1]), {}, "gate is"),
        "gate scales too few": (gelu, _changed(gated, 6, gated[6][:-1]), {}, "gate_scale is"),
        "gate biases too few": (silu, _changed(gated, 7, gated[7][:-1]), {}, "gate_bias is"),
        "down that does not follow": (gelu, _changed(gated, 8, gated[8][:, :-1]), {}, "down is"),
        "down scales too few": (silu, _changed(gated, 9, gated[9][:-1]), {}, "down_scale is"),
        "down biases too few": (gelu, _changed(gated, 10, gated[10][:-1]), {}, "down_bias is"),
        "residual of a gated network": (
            f"{silu}Norm",
            _changed(gated_norm, 11, gated_norm[11][:, :-1]),
            epsilon,
            "residual is",
        ),
        "smooth of a gated network": (
            f"{gelu}Norm",
            _changed(gated_norm, 14, gated_norm[14][:-1]),
            epsilon,
            "smooth is",
        ),
        "beta of another width": (
            "Int8ExpertsNorm",
            _changed(experts_norm, 9, experts_norm[9][:-1]),
            epsilon,
            "beta is",
        ),
        "residual of fewer rows": (
            "Int8LinearNorm",
            _changed(linear_norm, 5, linear_norm[5][:-1]),
            epsilon,
            "residual is",
        ),
        "gamma of another width": (
            "Int8FeedForwardNorm",
            _changed(network_norm, 9, network_norm[9][:-1]),
            epsilon,
            "gamma is",
        ),
        "smooth of another width": (
            "Int8ExpertsNorm",
            _changed(experts_norm, 10, experts_norm[10][:-1]),
            epsilon,
            "smooth is",
        ),
        "pooled tokens outside": ("Pool", _changed(pool, 1, far), {}, "is cell"),
        "no such word": ("Int8Embedding", _changed(words, 0, words[0] + 60), epsilon, "table size 30"),
        "no such word of 4 bits": ("Int4Embedding", _changed(words4, 0, words4[0] + 60), epsilon, "table size 30"),
        "half a block": ("Int4Embedding", _changed(words4, 1, words4[1][:, :-8]), epsilon, "a multiple of 32"),
        "scales of other blocks": ("Int4Embedding", _changed(words4, 2, words4[2][:-1]), epsilon, "table_scale is"),
        "residual of other rows": ("AddNormQuantize", _changed(norm, 1, norm[1][:-1]), epsilon, "residual is"),
        "gamma too short": ("AddNorm", _changed(norm, 2, norm[2][:-1])[:4], epsilon, "gamma is"),
        "more experts than there are": ("Router", route, {"top_k": 99}, "top_k is 99"),
        "router of another width": ("Router", _changed(route, 1, route[1][:, :-1]), top, "weight is"),
    }


@needs_native
@pytest.mark.parametrize("case", _malformed())
def test_malformed_inputs_are_an_error(case):
    op, arrays, attributes, message = _malformed()[case]
    with pytest.raises(Exception, match=rf"moembed\.{op}: .*{message}"):
        run_graph(op, arrays, attributes, kernels="plain")


TEXTS = ["hello", "骆驼很酷", "a longer text about bridges and rivers " * 30]


def _vectors(monkeypatch, bundle, name, **options):
    monkeypatch.setenv(VARIABLE, name)
    model = Embedder(bundle, **options)
    assert model.kernels == name
    return model.encode_query(TEXTS)


@needs_native
def test_every_instruction_set_gives_the_same_vectors(int8, bundle, monkeypatch):
    expected = _vectors(monkeypatch, int8, PORTABLE)
    found = {name: _vectors(monkeypatch, int8, name) for name in NATIVE}
    assert len({vectors.tobytes() for vectors in found.values()}) == 1
    assert (found[NATIVE[0]] * expected).sum(axis=1).min() >= KERNEL_MIN_COSINE
    float32 = _vectors(monkeypatch, bundle, PORTABLE)
    assert np.abs(_vectors(monkeypatch, bundle, NATIVE[0]) - float32).max() <= KERNEL_MAX_ABS


@every_native
def test_bytes_are_stable(int8, monkeypatch, name):
    monkeypatch.setenv(VARIABLE, name)
    report = check_stability(int8, quick=name != NATIVE[0])
    assert report.passed, report


@needs_native
def test_the_best_is_taken(int8, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert Embedder(int8).kernels == NATIVE[0]
    monkeypatch.setenv(VARIABLE, "plain")
    assert choose_kernels().name == "plain"
    assert choose_kernels(PORTABLE).name == PORTABLE


def test_names_that_cannot_be_used(int8, monkeypatch):
    monkeypatch.setenv(VARIABLE, "sse9")
    with pytest.raises(InputError, match="MOEMBED_KERNELS is 'sse9'; expected one of portable, plain"):
        Embedder(int8)
    missing = "neon" if "neon" not in NATIVE else "avx2"
    monkeypatch.setenv(VARIABLE, missing)
    with pytest.raises(ProviderError, match=f"kernels '{missing}' cannot be used, only .*portable: "):
        Embedder(int8)


def _options(*entry):
    options = onnxruntime.SessionOptions()
    if entry:
        options.add_session_config_entry(*entry)
    options.register_custom_ops_library(str(LIBRARY_FILE))
    return options


@needs_native
def test_the_config_entry_selects_them():
    _options(CONFIG_ENTRY, NATIVE[-1])
    with pytest.raises(Exception, match=f"set the session config entry '{CONFIG_ENTRY}'"):
        _options()
    for name in ("sse9", PORTABLE, "x" * 100):
        with pytest.raises(Exception, match=CONFIG_ENTRY):
            _options(CONFIG_ENTRY, name)
    with pytest.raises(ProviderError, match="kernels 'sse9' cannot be used"):
        Kernels("sse9").register(onnxruntime.SessionOptions())


@needs_native
def test_doctor_names_them(capsys, monkeypatch):
    monkeypatch.setenv(VARIABLE, "plain")
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kernels"] == f"plain, of {', '.join(usable_kernels())}"


@pytest.fixture
def without(monkeypatch):
    """A process without the library that has not said so yet."""
    monkeypatch.setattr(kernels_module, "native_library", lambda: NativeLibrary(None, "no reason at all"))
    monkeypatch.setattr(library_module, "_warn_once", threading.Lock())
    monkeypatch.delenv(VARIABLE, raising=False)
    kernels_module._tables.cache_clear()
    yield
    kernels_module._tables.cache_clear()


def test_without_the_library_functions_run_and_one_warning_says_so(int8, without):
    with pytest.warns(NativeWarning, match="no reason at all"):
        model = Embedder(int8)
    assert model.kernels == PORTABLE
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Embedder(int8).encode_query(TEXTS).shape == (3, model.dim)


def test_asked_for_without_the_library(int8, without, monkeypatch):
    monkeypatch.setenv(VARIABLE, "plain")
    with pytest.raises(ProviderError, match="no reason at all"):
        Embedder(int8)
    monkeypatch.setenv(VARIABLE, PORTABLE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Embedder(int8).kernels == PORTABLE
