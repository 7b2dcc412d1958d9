"""Export of a checkpoint: the form of the graph, its numbers and bytes, and failures."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from moembed.bundle.bundle import Bundle
from moembed.bundle.manifest import MANIFEST_FILE
from moembed.errors import CheckpointError, OutputError, VerificationError
from moembed.export import writer
from moembed.export.pipeline import export
from moembed.inference.session import Session
from moembed.models.checkpoint import load_network
from moembed.models.locate import locate
from moembed.models.oracle import Oracle
from moembed.verify.outputs import ModelOutput, Routing
from moembed.verify.parity import compare, graph_runner, network_runner, oracle_runner
from moembed.verify.stability import check_stability
from moembed.verify.tolerances import FP32
from support.checkpoints import small_config, write_checkpoint
from support.tolerances import INVARIANCE_MAX_ABS

TEXTS = [[0, 2], [0, 5, 17, 300, 4711, 9, 2], [0, *range(100, 700, 3), 2], [0, *range(1000, 1510), 2]]


@pytest.fixture(scope="module")
def graph(bundle):
    return onnx.load(bundle.graph, load_external_data=False)


def test_inputs_and_outputs(graph):
    def described(values):
        return {
            v.name: (v.type.tensor_type.elem_type, [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim])
            for v in values
        }

    assert described(graph.graph.input) == {
        "input_ids": (onnx.TensorProto.INT64, ["batch", "sequence"]),
        "attention_mask": (onnx.TensorProto.INT64, ["batch", "sequence"]),
    }
    assert described(graph.graph.output) == {
        "sentence_embedding": (onnx.TensorProto.FLOAT, ["batch", 48]),
        "token_embeddings": (onnx.TensorProto.FLOAT, ["batch", "sequence", 48]),
        "last_hidden_state": (onnx.TensorProto.FLOAT, ["batch", "sequence", 48]),
    }


def test_the_routing_ops_are_one_node_each_with_a_body(graph, network):
    ops = [node.op_type for node in graph.graph.node if node.domain == "moembed"]
    layers, moe = network.config.num_layers, len(network.config.moe_layers)
    assert {op: ops.count(op) for op in set(ops)} == {"Attention": layers, "Router": moe, "Experts": moe, "Pool": 1}
    assert {f.name for f in graph.functions} == set(ops)
    assert all(f.domain == "moembed" for f in graph.functions)
    assert {o.domain: o.version for o in graph.opset_import} == {"": 23, "moembed": 1}
    assert all(o.domain == "" for f in graph.functions for o in f.opset_import), "bodies are standard operators only"


def test_the_graph_has_every_expert(graph, network):
    config = network.config
    names = {init.name: tuple(init.dims) for init in graph.graph.initializer}
    for layer in config.moe_layers:
        for matrix in ("w1", "w2"):
            for expert in range(config.num_experts):
                name = f"encoder.layers.{layer}.mlp.experts.mlp.{matrix}.{expert}"
                assert names[name] == (config.expert_ffn_size, config.hidden_size)
    body = next(f for f in graph.functions if f.name == "Experts")
    assert sum(node.op_type in ("Gemm", "MatMul") for node in body.node) == 2 * config.num_experts


def test_weights_are_external_and_page_aligned(graph, bundle):
    external = [i for i in graph.graph.initializer if i.data_location == onnx.TensorProto.EXTERNAL]
    assert len(external) > 20
    for init in external:
        entries = {e.key: e.value for e in init.external_data}
        assert entries["location"] == "model.onnx_data"
        assert int(entries["offset"]) % 4096 == 0
    assert bundle.graph.stat().st_size < 300_000


def test_nothing_of_the_exporting_machine_is_in_the_graph(bundle):
    content = bundle.graph.read_bytes()
    for trace in (b".py", b"site-packages", str(Path.cwd()).encode(), b"stack_trace", b"nn_module"):
        assert trace not in content, trace


def test_provenance_is_in_the_graph_and_in_the_manifest(graph, bundle, checkpoint):
    props = {p.key: p.value for p in graph.metadata_props}
    source = locate(checkpoint)
    assert props["moembed.weights_sha256"] == source.weights_sha256 == bundle.manifest.source.weights_sha256
    assert (props["moembed.recipe"], props["moembed.source"]) == ("fp32", "local")
    assert bundle.manifest.source.config_sha256 == source.config_sha256
    assert bundle.manifest.certificate.same_experts == {1: 1.0, 3: 1.0}
    assert bundle.manifest.certificate.embedding_min_cosine > 0.999999


def test_interop_files_are_written(bundle):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        assert (bundle.folder / name).is_file()
    modules = json.loads((bundle.folder / "modules.json").read_text())
    assert [m["type"].rsplit(".", 1)[1] for m in modules] == ["Transformer", "Pooling", "Normalize"]
    pooling = json.loads((bundle.folder / "1_Pooling" / "config.json").read_text())
    assert pooling["pooling_mode_mean_tokens"]
    assert pooling["word_embedding_dimension"] == 48
    assert json.loads((bundle.folder / "sentence_bert_config.json").read_text())["max_seq_length"] == 512


def test_every_layer_agrees_with_torch_and_with_numpy(bundle, network, checkpoint):
    found, tolerance = graph_runner(bundle.graph), FP32
    oracle = Oracle(checkpoint)
    for name, reference in (("torch", network_runner(network)), ("numpy", oracle_runner(oracle))):
        report = compare(name, reference, found, TEXTS, tolerance)
        assert report.passed, report.problems
        assert report.tokens == sum(map(len, TEXTS))
        assert all(r.same_experts + r.near_ties == r.tokens for r in report.routing.values())
    oracle.close()


@pytest.mark.parametrize(
    ("margin", "weight", "texts", "problem"),
    [
        (1e-7, 0.4, 2, None),
        (1e-7, 0.4, 1, "no embedding could be compared"),
        (1e-3, 0.4, 2, "hidden states differ"),
        (0.0, 0.0, 2, "hidden states differ"),
    ],
)
def test_outputs_after_a_near_tie_are_not_compared(margin, weight, texts, problem):
    """Rounding decides between equally probable experts; an expert clearly behind, or of no weight, is no excuse."""
    states = list(np.random.default_rng(0).normal(size=(3, 3, 4)))
    weights = np.tile([0.6, weight], (3, 1))
    margins = np.array([0.5, margin, 0.5])
    embedding = states[-1].mean(0)

    def output(second, moved):
        routing = Routing(np.array([[0, 1], [0, second], [2, 1]]), weights, margins)
        return ModelOutput(embedding + moved, [*states[:2], states[2] + moved], {1: routing})

    found = {0: output(3, 0.1), 1: output(1, 0.0)}
    report = compare(
        "made up",
        lambda ids: output(1, 0.0),
        lambda ids: found[ids[0]],
        [[0, 0, 0], [1, 1, 1]][:texts],
        FP32,
    )
    assert report.passed == (problem is None), report.problems
    assert problem is None or any(problem in one for one in report.problems)
    assert report.routing[1].same_experts == 3 * texts - 1


def test_texts_longer_than_the_traced_example_and_than_the_limit(bundle, network):
    """The rotary table is not limited to the traced length (7), and ends at the network's last position."""
    ids = np.arange(10, 10 + 512)[None]
    session = Session(bundle)
    out = session.run("sentence_embedding", ids, np.ones_like(ids))
    expected = network_runner(network)(ids[0].tolist()).embedding
    assert np.abs(out[0] - expected).max() < INVARIANCE_MAX_ABS
    with pytest.raises(Exception, match="data bounds|position 512 is out of range"):
        session.run("sentence_embedding", np.ones((1, 513), np.int64), np.ones((1, 513), np.int64))


@pytest.mark.long
def test_other_shapes_of_the_family_export(tmp_path):
    raw = small_config(n_layer=5, moe_every_n_layers=3, num_experts=3, moe_top_k=3, ffn_div=2, n_embd=30, n_head=3)
    folder = write_checkpoint(tmp_path / "other", raw, seed=5)
    bundle = export(locate(folder), tmp_path / "bundle")
    report = compare("torch", network_runner(load_network(folder)), graph_runner(bundle.graph), TEXTS, FP32)
    assert report.passed, report.problems
    assert check_stability(bundle).passed


def test_exporting_twice_gives_the_same_bytes(checkpoint, bundle, tmp_path):
    again = export(locate(checkpoint), tmp_path / "again")
    assert again.manifest == bundle.manifest


def test_a_checkpoint_without_interop_files_gets_them(checkpoint, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copyfile(checkpoint / name, bare / name)
    bundle = export(locate(bare), tmp_path / "bundle")
    assert (bundle.folder / "modules.json").is_file()
    assert json.loads((bundle.folder / "tokenizer_config.json").read_text())["model_max_length"] == 512
    assert not bundle.manifest.prompt_required, "no prompts are known, so none is required"


def test_a_graph_that_is_not_the_network_is_not_published(checkpoint, tmp_path, monkeypatch):
    from moembed.export import weights

    right = weights.fill

    def wrong(model, config, stored):
        model = right(model, config, stored)
        name = "encoder.layers.1.mlp.experts.bias"
        array = np.zeros(config.hidden_size, np.float32)
        model.graph.initializers[name].const_value = weights.ir.Tensor(array, name=name)
        return model

    monkeypatch.setattr(weights, "fill", wrong)
    with pytest.raises(VerificationError, match="hidden states differ"):
        export(locate(checkpoint), tmp_path / "out")
    assert list(tmp_path.iterdir()) == [], "no partial output is left"


def test_a_tokenizer_larger_than_the_table_is_refused(tmp_path):
    folder = write_checkpoint(tmp_path / "narrow", small_config(vocab_size=4096, n_layer=2))
    with pytest.raises(CheckpointError, match=r"has \d{5} tokens, but the embedding table has 4096 rows"):
        export(locate(folder), tmp_path / "out")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not a readable tokenizer"):
        export(locate(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_destination_is_safe(checkpoint, bundle, tmp_path, monkeypatch):
    source = locate(checkpoint)
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter1.md").write_text("years of work")
    for force in (False, True):
        with pytest.raises(OutputError, match="not a bundle"):
            export(source, foreign, force=force)
    assert (foreign / "chapter1.md").read_text() == "years of work"

    mine = shutil.copytree(bundle.folder, tmp_path / "mine")
    with pytest.raises(OutputError, match="--force"):
        export(source, mine)

    # A replacement that fails leaves the old bundle as it was.
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer.BundleWriter, "copy_interop_files", full)
    with pytest.raises(OutputError, match="No space left"):
        export(source, mine, force=True)
    assert Bundle.open(mine, rehash=True).manifest == bundle.manifest
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "thesis"]


def test_force_replaces_a_bundle(checkpoint, bundle, tmp_path):
    mine = shutil.copytree(bundle.folder, tmp_path / "mine")
    (mine / "tokenizer.json").write_text("{}")
    assert export(locate(checkpoint), mine, force=True).manifest.files == bundle.manifest.files
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_a_destination_inside_a_file_is_refused(checkpoint, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        export(locate(checkpoint), tmp_path / "file" / "out")


@pytest.mark.long
def test_a_killed_export_leaves_no_bundle(checkpoint, tmp_path):
    out = tmp_path / "out"
    script = "import sys; from moembed.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "export", str(checkpoint), "-o", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if re.match("writing", line):
            break
    time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert not out.exists()
    assert not any((p / MANIFEST_FILE).exists() for p in tmp_path.iterdir())
    assert export(locate(checkpoint), out).folder == out, "the killed attempt does not block the next one"
