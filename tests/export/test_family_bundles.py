"""Bundles of every family, of tiny networks: export, INT8 and conversion, on all kernels, with both poolings."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from moembed import Chunk, Embedder
from moembed.bundle.bundle import Bundle
from moembed.cli import main
from moembed.convert.conversion import convert
from moembed.errors import BundleError, InputError, TextTooLongError
from moembed.export.functions import DOMAIN
from moembed.export.pipeline import export
from moembed.inference.batching import pad
from moembed.inference.kernels import PORTABLE, VARIABLE, usable_kernels
from moembed.inference.session import Session
from moembed.models.locate import locate
from moembed.models.oracle import Oracle
from moembed.models.oracle_math import unit
from moembed.models.pooling import Pooling
from moembed.quantize.pipeline import quantize
from moembed.quantize.recipe import recipe_names
from moembed.verify.parity import compare, graph_runner, oracle_runner
from moembed.verify.tolerances import FP32
from support.tiny_networks import GTE, NETWORKS, NOMIC, POOLINGS, TEXTS, results, tensors_of, write_tiny
from support.tolerances import INT8_SMALL_MIN_COSINE, KERNEL_MIN_COSINE, MUTATION_FACTOR, OP_MAX_ABS

GRAPH = ("onnx/model_int8.onnx", "onnx/model_int8.onnx_data")
# The length that the network is traced with is 7, and its limit is 32.
GATED = {**dict.fromkeys(GTE, "Int8GeluMulFeedForward"), **dict.fromkeys(NOMIC, "Int8SiluMulFeedForward")}
LENGTHS = (2, 3, 6, 7, 8, 16, 31, 32)
# Each network with its own pooling, and one with the other.
OWN = {name: POOLINGS[network["pooling"]] for name, network in NETWORKS.items()}
CASES = {f"{name} {pooling}": (name, pooling) for name, pooling in [*OWN.items(), ("xlm_roberta", Pooling.FIRST)]}
# By default xlm_roberta has the pooling that tests of the server use too; bert has the same operators, and the mean.
LONG = f"xlm_roberta {Pooling.MEAN}"


@pytest.fixture(
    scope="module", params=[pytest.param(one, marks=pytest.mark.long) if one == LONG else one for one in CASES]
)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def checkpoint(case, once) -> Path:
    name, pooling = CASES[case]
    return once(f"tiny {case}", lambda path: write_tiny(path, name, pooling=pooling))


@pytest.fixture(scope="module")
def fp32(case, checkpoint, once) -> Bundle:
    return Bundle.open(once(f"fp32 {case}", lambda path: export(locate(checkpoint), path)))


@pytest.fixture(scope="module")
def quantized(case, fp32, once) -> Bundle:
    return Bundle.open(once(f"int8 {case}", lambda path: quantize(fp32, path)))


def texts():
    rng = np.random.default_rng(0)
    return [[2, *rng.integers(5, 128, length - 2).tolist(), 3] for length in LENGTHS] + list(TEXTS.values())


def ops(bundle):
    graph = onnx.load(bundle.graph, load_external_data=False).graph
    return Counter(node.op_type for node in graph.node if node.domain == DOMAIN)


def test_the_graph_computes_what_the_oracle_does(checkpoint, fp32):
    """M31, M34: at every length from the shortest to the limit, and not only the one that was traced."""
    oracle = Oracle(checkpoint)
    report = compare("numpy", oracle_runner(oracle), graph_runner(fp32.graph), texts(), FP32)
    oracle.close()
    assert report.passed, report.problems
    assert report.routing == {}


def test_the_manifest_says_what_the_model_is(case, fp32, quantized):
    for bundle in (fp32, quantized):
        manifest = bundle.manifest
        assert (manifest.num_experts, manifest.routers, manifest.certificate.same_experts) == (0, {}, {})
        assert manifest.pooling == CASES[case][1]
        assert ("pooling" in manifest.to_dict()) == (manifest.pooling != "mean")
        assert manifest.pooled_layer_norm == ("layer_norm" in case) == ("pooled_layer_norm" in manifest.to_dict())
        assert manifest.certificate.stability.passed
        assert (manifest.prompts, manifest.prompt_required) == ({}, False)
        assert manifest.max_tokens == NETWORKS[CASES[case][0]]["config"].get("max_trained_positions", 32)


def test_the_operators_are_those_of_a_dense_network(case, fp32, quantized):
    layers = 2
    pool = {"Pool": 1} if CASES[case][1] is Pooling.MEAN else {}
    assert ops(fp32) == {"Attention": layers} | pool
    expected = {"Int8Embedding": 1, "Int8Attention": layers, "AddNorm": 1, **pool}
    network = GATED.get(CASES[case][0], "Int8FeedForward")
    expected |= {"Int8LinearNorm": layers, f"{network}Norm": layers - 1, network: 1}
    assert ops(quantized) == expected


def test_nothing_large_stays_in_float32(quantized):
    graph = onnx.load(quantized.graph, load_external_data=False).graph
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
            assert tensor.name in ("cos", "sin", "embeddings.position_embeddings.weight")


def test_every_kernel_gives_the_oracles_vectors(checkpoint, fp32, quantized, monkeypatch):
    expected = [result.embedding for result in results(checkpoint, *texts())]
    by_kernels = {}
    for kernels in usable_kernels():
        monkeypatch.setenv(VARIABLE, kernels)
        for bundle, least in ((fp32, 1 - OP_MAX_ABS), (quantized, INT8_SMALL_MIN_COSINE)):
            session = Session(bundle)
            assert session.kernels == kernels
            found = [run(session, ids) for ids in texts()]
            assert min(float(a @ b) for a, b in zip(found, expected, strict=True)) > least, (
                kernels,
                bundle.manifest.recipe,
            )
            by_kernels[kernels, bundle.manifest.recipe] = np.array(found)
    native = [name for name in usable_kernels() if name != PORTABLE]
    for kernels in native:
        assert np.array_equal(by_kernels[kernels, "int8"], by_kernels[native[0], "int8"]), kernels
        cosines = (by_kernels[kernels, "int8"] * by_kernels[PORTABLE, "int8"]).sum(axis=1)
        assert cosines.min() > KERNEL_MIN_COSINE


def test_a_text_has_its_bytes_in_every_batch(fp32, quantized, monkeypatch):
    """M23, M31, M37: beside the longest and the shortest, in batches of 2, 11 and 33, on every kernel."""
    rows = texts()
    for kernels in usable_kernels():
        monkeypatch.setenv(VARIABLE, kernels)
        for bundle in (fp32, quantized):
            session = Session(bundle)
            alone = [run(session, ids) for ids in rows]
            shortest, longest = (choose(range(len(rows)), key=lambda i: len(rows[i])) for choose in (min, max))
            for batch in ([shortest, longest], list(range(len(rows))), 3 * list(range(len(rows)))):
                ids, mask = pad([np.array(rows[i], np.int32) for i in batch], 1)
                found = session.run("sentence_embedding", ids, mask)
                assert found.tobytes() == np.array([alone[i] for i in batch]).tobytes(), (
                    kernels,
                    bundle.manifest.recipe,
                )


def run(session, ids):
    row = np.array([ids], np.int64)
    return session.run("sentence_embedding", row, np.ones_like(row))[0]


@pytest.mark.parametrize(
    "recipe", [name if name == "int8" else pytest.param(name, marks=pytest.mark.long) for name in recipe_names()]
)
def test_conversion_gives_the_bundle_of_export_and_quantize(recipe, checkpoint, fp32, quantized, tmp_path):
    converted = convert(locate(checkpoint), tmp_path / "converted", recipe=recipe).manifest.files
    separate = quantized if recipe == "int8" else quantize(fp32, tmp_path / "quantized", recipe=recipe)
    expected = separate.manifest.files
    assert {name: converted[name] for name in GRAPH[1:]} == {name: expected[name] for name in GRAPH[1:]}


def test_the_tokenizer_of_a_bundle_neither_cuts_nor_pads(checkpoint, fp32):
    """M14."""
    before, after = (json.loads((folder / "tokenizer.json").read_text()) for folder in (checkpoint, fp32.folder))
    assert before["truncation"]
    assert before["padding"]
    assert after == before | {"truncation": None, "padding": None}
    assert json.loads((fp32.folder / "tokenizer_config.json").read_text())["tokenizer_class"] == "BertTokenizer"
    model = Embedder(fp32)
    assert model.token_embeddings("a" * 4).shape == (6, 64)
    assert model.token_embeddings("a" * (model.max_tokens - 2)).shape == (model.max_tokens, 64)


def test_an_embedder_of_a_dense_model(case, quantized):
    model = Embedder(quantized)
    assert np.array_equal(model.encode_query("abc"), model.encode_document("abc"))
    with pytest.raises(BundleError, match="no MoE layers"):
        model.routing("abc")
    late = Chunk(late=True, overlap=4, tokens=8)
    if CASES[case][1] is Pooling.MEAN:
        assert len(list(model.embed(["abc def"], overlong=late))) == 1
        (found,) = model.embed([""], overlong=late)
        assert np.abs(found.vector - model.encode("")).max() < OP_MAX_ABS
    else:
        with pytest.raises(InputError, match="first token"):
            model.embed(["abc def"], overlong=late)


def test_one_token_more_than_there_are_positions(quantized):
    """M24: XLM-RoBERTa's table has 34 rows, of which two belong to no position."""
    model = Embedder(quantized)
    assert model.encode("a" * (model.max_tokens - 2)).shape == (64,)
    with pytest.raises(TextTooLongError, match=f"{model.max_tokens + 1} tokens.*{model.max_tokens}"):
        model.encode("a" * (model.max_tokens - 1))


def test_a_short_text_does_not_depend_on_the_limit(case, checkpoint, fp32, tmp_path):
    """M28: nor does the graph, which has one table of rotary angles for all lengths."""
    if CASES[case][0] not in NOMIC:
        pytest.skip("rotary angles that depend on the limit are a fault of NomicBert's own code")
    folder = shutil.copytree(checkpoint, tmp_path / "shorter")
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 8}))
    shorter = export(locate(folder), tmp_path / "fp32")
    assert (shorter.manifest.max_tokens, fp32.manifest.max_tokens) == (8, 16)
    data = f"{shorter.manifest.graph}_data"
    assert shorter.manifest.files[data] == fp32.manifest.files[data]
    assert Embedder(shorter).encode("abc").tobytes() == Embedder(fp32).encode("abc").tobytes()


def test_shorter_vectors_are_cut_behind_the_head(case, checkpoint, fp32):
    """M35: LayerNorm over all dimensions where there is one, cut, unit length."""
    model = Embedder(fp32)
    (ids,) = model.tokenizer.encode(["abc def"])
    (result,) = results(checkpoint, ids.tolist())
    found, parts = model.encode("abc def", truncate_dim=32), (result.pooled, result.pooled[:32])
    whole, cut = (part / part.std() - part.mean() / part.std() for part in parts)
    head = whole if "layer_norm" in case else result.pooled
    assert np.abs(found - unit(head[:32])).max() < OP_MAX_ABS
    assert np.abs(found - unit(cut)).max() > MUTATION_FACTOR * OP_MAX_ABS
    if "layer_norm" in case:
        assert np.abs(found - unit(result.pooled[:32])).max() > MUTATION_FACTOR * OP_MAX_ABS


def test_verify_compares_a_bundle_with_its_checkpoint(case, checkpoint, fp32, quantized, tmp_path, capsys):
    """Layer by layer, with the network and the oracle; other weights are not those of the bundle."""
    for bundle in (fp32, quantized):
        assert main(["verify", str(bundle.folder), "--against", str(checkpoint), "--texts", "2"]) == 0, (
            capsys.readouterr()
        )
    name, pooling = CASES[case]
    tensors = {tensor: values * np.float32(1.01) for tensor, values in tensors_of(name).items()}
    other = write_tiny(tmp_path / "other", name, pooling=pooling, tensors=tensors)
    assert main(["verify", str(fp32.folder), "--against", str(other), "--texts", "2"]) != 0


def test_info_of_a_dense_model(case, quantized, capsys):
    assert main(["info", str(quantized.folder)]) == 0
    out = capsys.readouterr().out
    assert "2 layers, 4 attention heads, no experts" in out
    assert (
        f"{quantized.manifest.max_tokens} tokens per text, prompt and special tokens included: the positions of config.json"
        in out
    )
    assert ("state of the first token" in out) == (CASES[case][1] is Pooling.FIRST)
    assert ("normalized by a LayerNorm" in out) == ("layer_norm" in case)
