"""INT8: the quantized bundle, its recipes and its batch invariance."""

import math
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moembed import Embedder
from moembed.bundle.bundle import Bundle
from moembed.cli import main
from moembed.errors import InputError, OutputError, VerificationError
from moembed.export.functions import DOMAIN
from moembed.export.pipeline import export
from moembed.export.writer import write_graph
from moembed.inference.kernels import PORTABLE, VARIABLE, usable_kernels
from moembed.models.locate import locate
from moembed.quantize import recipe as recipe_module
from moembed.quantize import sensitivity
from moembed.quantize.pipeline import quantize, read_model
from moembed.quantize.recipe import load_recipe, recipe_names, tolerance_of
from moembed.quantize.rewrite import Rewriter
from moembed.tokenizer.tokenizer import Tokenizer
from moembed.verify.parity import graph_runner
from moembed.verify.probes import probe_ids, probe_texts
from moembed.verify.stability import check_stability
from moembed.verify.tolerances import FP32
from support.bundles import edit
from support.checkpoints import small_config, write_checkpoint
from support.tolerances import INT8_SMALL_MIN_COSINE, KERNEL_MIN_COSINE


def _normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def int8_model(int8):
    return Embedder(int8, threads=2)


def test_a_layer_is_a_few_operators(int8, network):
    """Attention, what follows it, and the feed-forward network or the experts, each with its norm; the last norm stays alone."""
    nodes = [
        node.op_type for node in onnx.load(int8.graph, load_external_data=False).graph.node if node.domain == DOMAIN
    ]
    layers, sparse = network.config.num_layers, len(network.config.moe_layers)
    expected = {
        "Int8Attention": layers,
        "Int8LinearNorm": layers,
        "Int8FeedForwardNorm": layers - sparse,
        "Router": sparse,
    }
    last_is_sparse = layers - 1 in network.config.moe_layers
    assert last_is_sparse
    expected |= {"Int8ExpertsNorm": sparse - 1, "Int8Experts": 1, "AddNorm": 1, "Int8Embedding": 1, "Pool": 1}
    assert Counter(nodes) == expected


def test_weights_are_quantized_by_role_in_the_layout(int8, network):
    model = onnx.load(int8.graph, load_external_data=False)
    found = {i.name: (i.data_type, tuple(i.dims)) for i in model.graph.initializer}
    int8_type, float_type = onnx.TensorProto.INT8, onnx.TensorProto.FLOAT
    layer = "encoder.layers.1."
    assert found["embeddings.word_embeddings.weight.int8"] == (int8_type, (51200, 48))
    assert found[layer + "attn.Wqkv.weight.int8"] == (int8_type, (9, 12, 16, 4))
    assert found[layer + "attn.out_proj.weight.int8"] == (int8_type, (3, 12, 16, 4))
    assert found[layer + "mlp.experts.mlp.w1.4.int8"] == (int8_type, (5, 12, 16, 4))
    assert found[layer + "mlp.experts.mlp.w2.4.int8"] == (int8_type, (3, 20, 16, 4))
    assert found["encoder.layers.0.mlp.fc2.weight.int8"] == (int8_type, (3, 20, 16, 4))
    for kept in ("mlp.router.layer.weight", "norm1.weight", "attn.Wqkv.bias", "mlp.experts.bias"):
        assert found[layer + kept][0] == float_type
    float_bytes = sum(4 * math.prod(dims) for name, (kind, dims) in found.items() if kind == float_type)
    int8_bytes = sum(math.prod(dims) for name, (kind, dims) in found.items() if kind == int8_type)
    assert float_bytes < 0.15 * int8_bytes, "nothing large remains in float32"
    ops = {node.op_type for node in model.graph.node if node.domain == "moembed"}
    assert ops == {f.name for f in model.functions}
    assert not ops & {"Experts"}
    assert all(o.domain == "" for f in model.functions for o in f.opset_import)


def test_the_manifest_describes_the_bundle(int8, bundle):
    manifest = int8.manifest
    assert (manifest.recipe, manifest.graph) == ("int8", "onnx/model_int8.onnx")
    assert manifest.source == bundle.manifest.source
    assert manifest.certificate.reference.kind == "bundle"
    assert manifest.certificate.embedding_mean_cosine >= INT8_SMALL_MIN_COSINE
    weights = "onnx/model{}.onnx_data"
    assert manifest.files[weights.format("_int8")].size < bundle.manifest.files[weights.format("")].size / 3.5
    assert (int8.folder / "modules.json").exists()


def test_vectors_are_close_to_float32(int8, small):
    texts = ["hello", "跟我讲讲嵌入", "a longer text about bridges and rivers " * 9]
    cosine = (Embedder(int8, threads=2).encode_query(texts) * small.encode_query(texts)).sum(axis=1)
    assert (cosine >= INT8_SMALL_MIN_COSINE).all()


def test_it_is_batch_invariant(int8):
    report = check_stability(int8)
    assert report.passed, report


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=200), min_size=1, max_size=9),
    order=st.randoms(use_true_random=False),
    batch_size=st.integers(1, 6),
)
def test_batch_composition_order_and_size_do_not_matter(int8_model, texts, order, batch_size):
    model = int8_model
    alone = np.stack([model.encode_query(text) for text in texts])
    positions = list(range(len(texts)))
    order.shuffle(positions)
    shuffled = model.encode_query([texts[i] for i in positions], batch_size=batch_size)
    assert shuffled.tobytes() == alone[positions].tobytes()


def test_a_cpu_without_vnni_gives_the_same_bytes(int8, monkeypatch):
    """Forces ONNX Runtime's code path for such CPUs; tests/native/test_emulation.py runs it on an emulated one."""
    from moembed.inference import session

    texts = ["hello", "骆驼很酷", "word " * 300]
    expected = Embedder(int8).encode_query(texts)
    monkeypatch.setattr(session, "saturates", lambda: True)
    assert Embedder(int8).encode_query(texts).tobytes() == expected.tobytes()


def test_quantizing_twice_gives_the_same_bytes(int8, bundle, tmp_path):
    again = quantize(bundle, tmp_path / "again").manifest
    # Another process may have loaded other packages.
    assert replace(again, made_with=int8.manifest.made_with) == int8.manifest


def test_calibration_texts_change_the_factors(int8, bundle, tmp_path):
    other = quantize(bundle, tmp_path / "other", calibration=["only this"])
    assert other.manifest.files["onnx/model_int8.onnx_data"] != int8.manifest.files["onnx/model_int8.onnx_data"]


def test_invalid_requests_are_refused(int8, bundle, tmp_path):
    with pytest.raises(InputError, match="only an fp32 bundle"):
        quantize(int8, tmp_path / "out")
    with pytest.raises(InputError, match="unknown recipe 'int3': this version of moembed has int8"):
        quantize(bundle, tmp_path / "out", recipe="int3")
    with pytest.raises(InputError, match="calibration is empty"):
        quantize(bundle, tmp_path / "out", calibration=[])
    raw = small_config(n_layer=2, n_embd=30, n_head=3)
    odd = export(locate(write_checkpoint(tmp_path / "odd", raw)), tmp_path / "odd-bundle")
    with pytest.raises(InputError, match="multiples of 4 and 16"):
        quantize(odd, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def add_recipe(tmp_path_factory, monkeypatch):
    """Adds a recipe, which is a file: recipe int8 with one text replaced by another."""
    folder = shutil.copytree(recipe_module.FOLDER, tmp_path_factory.mktemp("package") / "recipes")
    monkeypatch.setattr(recipe_module, "FOLDER", folder)

    def add(name, old, new):
        text = (folder / "int8.toml").read_text("utf-8")
        assert old in text
        (folder / f"{name}.toml").write_text(text.replace(old, new), "utf-8")

    return add


def test_a_file_adds_a_recipe(add_recipe, bundle, int8, checkpoint, tmp_path, capsys):
    before = recipe_names()
    add_recipe("int8-rough-2", "attention = 1.0", "attention = 0.25")
    assert recipe_names() == sorted([*before, "int8-rough-2"])
    rough = quantize(bundle, tmp_path / "rough", recipe="int8-rough-2")
    assert Bundle.open(rough.folder).manifest.recipe == "int8-rough-2"
    assert rough.manifest.files["onnx/model_int8.onnx_data"] != int8.manifest.files["onnx/model_int8.onnx_data"]
    verify = ["verify", str(rough.folder), "--against", str(bundle.folder)]
    assert main(verify) == 0
    add_recipe("int8-rough-2", "embedding_min_cosine = 0.99", "embedding_min_cosine = 0.9999999")
    assert main(verify) == 1, "the tolerance is that of the recipe's file"
    assert "required 0.9999999" in capsys.readouterr().out


def test_a_bundle_of_a_recipe_that_this_version_lacks(copy, bundle, capsys):
    edit(copy, lambda raw: raw.update(recipe="int8-newer"))
    newer = Bundle.open(copy)
    assert Embedder(newer).encode_query("it embeds all the same").any()
    assert main(["verify", str(newer.folder), "--against", str(bundle.folder)]) == 2
    assert "unknown recipe 'int8-newer': this version of moembed has int8, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("table = 8", "table = 5", "table = 5; expected 4 or 8: correct the recipe"),
        ("keep = 0.0", "keep = -1", "keep = -1; expected a number from 0 to 1"),
        ("ffn = 0.6", "fnn = 0.6", r"smoothing: missing \['ffn'\], unknown \['fnn'\]"),
        ("damping = 0.01", "damping = 0.0", "rounding.damping = 0.0; expected a number above 0"),
        ("table = 8", 'table = 8\nname = "int8"', r"unknown \['name'\]"),
        ("[tolerance]", "[tolerances]", r"missing \['tolerance'\]"),
        ("table = 8", "table = ", "malformed.toml is not valid TOML"),
    ],
)
def test_a_malformed_recipe_is_refused(add_recipe, old, new, message):
    add_recipe("malformed", old, new)
    with pytest.raises(InputError, match=message):
        load_recipe("malformed")


def test_a_result_that_is_too_far_away_is_not_published(add_recipe, bundle, tmp_path):
    add_recipe("strict", "embedding_min_cosine = 0.99", "embedding_min_cosine = 0.99999999")
    with pytest.raises(VerificationError, match="the graph differs from the fp32 bundle: embedding cosine"):
        quantize(bundle, tmp_path / "out", recipe="strict")
    assert list(tmp_path.iterdir()) == []


def test_the_destination_is_safe(bundle, int8, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("precious")
    with pytest.raises(OutputError, match="not a bundle"):
        quantize(bundle, tmp_path / "mine", force=True)
    copy = shutil.copytree(int8.folder, tmp_path / "copy")
    with pytest.raises(OutputError, match="--force"):
        quantize(bundle, copy)


def test_the_recipes_differ_as_described():
    recipes = {name: load_recipe(name) for name in recipe_names()}
    assert len(set(map(repr, recipes.values()))) == len(recipes) >= 3
    int8 = recipes["int8"]
    assert int8.smoothing.attention == 1.0
    assert (int8.attention, recipes["int8-wide"].attention) == ("integer", "float")
    assert replace(recipes["int8-wide"], keep=0.0, attention="integer") == int8
    assert replace(recipes["int8-table4"], table=8, tolerance=int8.tolerance) == int8
    assert (tolerance_of("fp32"), tolerance_of("int8")) == (FP32, int8.tolerance)


def test_a_table_in_4_bits(tmp_path, bundle, projected_bundles, monkeypatch):
    full, eight, four = map(projected_bundles, ("fp32", "int8", "int8-table4"))
    rows = small_config()["vocab_size"]
    assert eight.size - four.size == pytest.approx(rows * (64 + 4 - 32 - 4), abs=3000)
    assert four.manifest.recipe == "int8-table4"
    assert check_stability(four).passed
    assert main(["verify", str(four.folder), "--against", str(full.folder)]) == 0
    texts = ["a", "Bread is baked from flour.", "über " * 60]
    vectors = {}
    for name in usable_kernels():
        monkeypatch.setenv(VARIABLE, name)
        vectors[name] = Embedder(four).encode_query(texts)
    portable = vectors.pop(PORTABLE)
    assert len({found.tobytes() for found in vectors.values()}) <= 1
    assert all((found * portable).sum(axis=1).min() >= KERNEL_MIN_COSINE for found in vectors.values())
    model = onnx.load(four.graph, load_external_data=False)
    functions = {function.name for function in model.functions}
    assert "Int4Embedding" in functions
    assert "Int8Embedding" not in functions
    with pytest.raises(InputError, match="whole blocks of 32 values, and its rows have 48: use a recipe"):
        quantize(bundle, tmp_path / "odd", recipe="int8-table4")
    assert not (tmp_path / "odd").exists()


def test_wide_keeps_the_most_sensitive_layers(bundle, int8, tmp_path, monkeypatch):
    seen = []

    def recorded(*arguments):
        seen.append(measured(*arguments))
        return seen[-1]

    measured = sensitivity.sensitivities
    monkeypatch.setattr(sensitivity, "sensitivities", recorded)
    wide = quantize(bundle, tmp_path / "wide", recipe="int8-wide")
    model = onnx.load(wide.graph, load_external_data=False)
    kept = {node.input[1] for node in model.graph.node if node.op_type == "Gemm"}
    (sizes,) = seen
    assert len(sizes) == sum(
        node.op_type == "Gemm" for node in onnx.load(bundle.graph, load_external_data=False).graph.node
    )
    assert min(sizes.values()) > 0, "a switch has no effect"
    assert len(kept) == round(0.3 * len(sizes))
    assert min(sizes[name] for name in kept) >= max(size for name, size in sizes.items() if name not in kept)
    exact = Embedder(bundle).encode(probe_texts(), prompt="")
    cosines = [(Embedder(made).encode(probe_texts(), prompt="") * exact).sum(axis=1) for made in (wide, int8)]
    # Of most texts: where a router changes its mind, a text is off by far more than by all roundings.
    assert np.median(cosines[0]) > np.median(cosines[1])
    assert check_stability(wide).passed


def test_kept_layers_next_to_a_gelu(bundle, tmp_path):
    """A float32 fc1 before a quantized fc2, and the reverse."""
    texts = [np.array(ids, np.int32) for ids in probe_ids(Tokenizer(bundle.folder / "tokenizer.json"), 512)[:6]]
    expected = [graph_runner(bundle.graph)(ids.tolist()).embedding for ids in texts]
    for name in ("fc1", "fc2"):
        keep = [f"encoder.layers.0.mlp.{name}.weight"]
        model = Rewriter(read_model(bundle.graph), load_recipe("int8"), texts, keep=keep).run()
        write_graph(model, tmp_path / name / "model.onnx", {})
        found = [graph_runner(tmp_path / name / "model.onnx")(ids.tolist()).embedding for ids in texts]
        assert min(float(a @ b) for a, b in zip(expected, found, strict=True)) >= INT8_SMALL_MIN_COSINE


def test_an_embedding_with_a_further_part_is_refused(bundle):
    """The INT8 operator would leave the part out, and a small one would pass the comparison with the fp32 bundle."""
    model = onnx_ir.load(bundle.graph)
    norm = next(node for node in model.graph if node.op_type == "LayerNormalization")
    further = onnx_ir.node("Add", [norm.inputs[0], norm.inputs[0]], num_outputs=1)
    model.graph.insert_before(norm, further)
    norm.replace_input_with(0, further.outputs[0])
    with pytest.raises(ValueError, match="emb_ln.weight does not normalize the sum of a word's embedding"):
        Rewriter(model, load_recipe("int8"), [np.array([0, 2], np.int32)]).run()


def test_the_command(bundle, checkpoint, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("one text\n\nanother text\n")
    out = tmp_path / "out"
    assert main(["quantize", str(bundle.folder), "-o", str(out), "--calibrate", str(tmp_path / "texts.txt")]) == 0
    printed, messages = capsys.readouterr()
    assert printed == f"{out}\n"
    assert "calibrating on 2 texts" in messages
    assert "cosine to fp32 0.99" in messages
    assert main(["verify", str(out), "--against", str(checkpoint), "--texts", "3"]) == 0
    assert main(["quantize", str(bundle.folder), "-o", str(out)]) == 2
    assert main(["quantize", str(bundle.folder), "-o", str(tmp_path / "x"), "--calibrate", str(tmp_path)]) == 2
    assert Bundle.open(out).manifest.recipe == "int8"
