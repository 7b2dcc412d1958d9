"""The strict loader: every tensor is checked, and every difference is listed."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from moembed.bundle.bundle import sha256_of
from moembed.errors import CheckpointError, SourceError
from moembed.models.checkpoint import expected_tensors, load_network
from moembed.models.locate import locate
from moembed.models.nomic_bert_moe.config import NomicMoeConfig
from support.checkpoints import published_spec, small_config, write_checkpoint
from support.folders import DATA


@pytest.fixture
def altered(checkpoint, tmp_path):
    """A copy of the checkpoint whose tensors a test may change."""

    def alter(change):
        folder = tmp_path / "altered"
        shutil.copytree(checkpoint, folder)
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")
        return folder

    return alter


def test_names_are_the_published_ones(network):
    state = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert state == expected_tensors(network.config)
    names = expected_tensors(NomicMoeConfig.from_file(DATA / "published_config.json"))
    assert names["embeddings.word_embeddings.weight"] == (250048, 768)
    assert names["encoder.layers.0.mlp.fc2.weight"] == (768, 3072)
    assert names["encoder.layers.1.mlp.router.layer.weight"] == (8, 768)
    assert names["encoder.layers.11.mlp.experts.mlp.w2"] == (24576, 768)
    assert names["encoder.layers.11.mlp.experts.bias"] == (768,)
    assert not any("router.layer.bias" in name or "position" in name for name in names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("encoder.layers.1.mlp.experts.bias"), "missing: encoder.layers.1.mlp.experts.bias"),
        (lambda t: t.update({"lm_head.weight": np.zeros(3, np.float32)}), "unexpected: lm_head.weight"),
        (
            lambda t: t.update({"emb_ln.weight": np.zeros(49, np.float32)}),
            r"emb_ln.weight: expected \[48\], found \[49\]",
        ),
        (lambda t: t.update({"emb_ln.weight": np.ones(48, np.float64)}), "emb_ln.weight: its dtype is F64"),
        (
            lambda t: t.update({n.replace("layers.1.mlp", "layers.2.mlp"): t.pop(n) for n in list(t) if "1.mlp" in n}),
            r"the tensors have \[2, 3\], the rule of config.json",
        ),
        (lambda t: t["emb_ln.bias"].__setitem__(3, np.nan), "NaN or infinity in emb_ln.bias"),
        (lambda t: t["encoder.layers.3.mlp.experts.mlp.w1"].__setitem__((0, 0), np.inf), "experts.mlp.w1"),
    ],
)
def test_wrong_tensors_are_refused_by_name(altered, change, message):
    with pytest.raises(CheckpointError, match=message):
        load_network(altered(change))


def test_every_problem_is_listed(altered):
    def change(tensors):
        tensors.pop("emb_ln.weight")
        tensors.pop("encoder.layers.0.norm1.bias")
        tensors["pooler.dense.weight"] = np.zeros(2, np.float32)

    with pytest.raises(CheckpointError) as caught:
        load_network(altered(change))
    assert all(name in str(caught.value) for name in ("emb_ln.weight", "layers.0.norm1.bias", "pooler.dense.weight"))


@pytest.mark.parametrize("keep", [0, 7, 500, 100_000])
def test_a_truncated_file_is_refused(checkpoint, tmp_path, keep):
    folder = shutil.copytree(checkpoint, tmp_path / "cut")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:keep])
    with pytest.raises(CheckpointError, match="not a readable safetensors"):
        load_network(folder)


def test_a_pickle_is_never_loaded(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    for read in (load_network, locate):
        with pytest.raises(CheckpointError, match="lacks model.safetensors.*Found pytorch_model.bin: a pickle"):
            read(folder)


def test_half_precision_widens_exactly(tmp_path):
    folder = write_checkpoint(tmp_path / "half", small_config(torch_dtype="float16", n_layer=2))
    network = load_network(folder)
    stored = load_file(folder / "model.safetensors")
    for name, tensor in network.state_dict().items():
        assert tensor.dtype == torch.float32
        assert np.array_equal(tensor.numpy(), stored[name].astype(np.float32)), name


def test_facts_of_a_local_checkpoint(checkpoint, tmp_path):
    found = locate(checkpoint)
    assert found.spec.name == "small-moe"
    assert found.spec.repo is None
    assert found.spec.prompts == {"query": "search_query: ", "passage": "search_document: "}
    assert (found.spec.max_tokens, found.spec.dims, found.spec.prompt_required) == (512, (48,), True)
    assert found.weights_sha256 == sha256_of(checkpoint / "model.safetensors")


def test_the_published_config_has_the_published_dims_and_prompts(tmp_path):
    from moembed.models.spec import spec_of

    raw = DATA / "published_config.json"
    spec = spec_of(tmp_path, NomicMoeConfig.from_file(raw), sha256_of(raw))
    published = published_spec()
    assert (spec.name, spec.dims, spec.prompts, spec.max_tokens) == (
        published.name,
        (768, 256),
        published.prompts,
        512,
    )
    assert spec.repo is None, "the same config does not imply the same weights"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config_sentence_transformers.json", "{", "JSON"),
        ("config_sentence_transformers.json", json.dumps({"prompts": {"query": 3}}), "prompts"),
        ("config_sentence_transformers.json", json.dumps({"matryoshka_dims": [32, 64]}), "widest first"),
        ("config_sentence_transformers.json", json.dumps({"matryoshka_dims": [4096]}), "matryoshka_dims"),
        ("config_sentence_transformers.json", json.dumps({"matryoshka_dims": []}), "matryoshka_dims"),
        ("sentence_bert_config.json", json.dumps({"max_seq_length": 2}), "is 2; expected at least 3"),
        (
            "sentence_bert_config.json",
            json.dumps({"max_seq_length": "512"}),
            "max_seq_length = '512'; expected a number",
        ),
        ("sentence_bert_config.json", "[]", "JSON object"),
    ],
)
def test_malformed_interop_files_are_refused(checkpoint, tmp_path, file, content, message):
    folder = shutil.copytree(checkpoint, tmp_path / "side")
    (folder / file).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        locate(folder)


ST, TOKENIZER = "max_seq_length in sentence_bert_config.json", "model_max_length in tokenizer_config.json"
POSITIONS = "the positions of config.json"


@pytest.mark.parametrize(
    ("stated", "tokenizer", "limit", "source"),
    [
        (256, 128, 256, ST),
        (512, 128, 512, ST),
        (None, 128, 128, TOKENIZER),
        (None, 10**30, 512, POSITIONS),
        (None, 1e30, 512, POSITIONS),
        (4096, None, 512, POSITIONS),
        (None, None, 512, POSITIONS),
    ],
)
def test_the_first_limit_that_is_stated_counts(checkpoint, tmp_path, stated, tokenizer, limit, source):
    """M15: capped by the positions; transformers writes 1e30 for none."""
    folder = shutil.copytree(checkpoint, tmp_path / "limits")
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": stated}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": tokenizer}))
    spec = locate(folder).spec
    assert (spec.max_tokens, spec.limit_source) == (limit, source)


@pytest.mark.parametrize(
    ("prompts", "expected", "required"),
    [
        ({"query": "", "document": ""}, {"query": "", "document": ""}, False),
        ({"query": "q: "}, {"query": "q: ", "document": ""}, False),
        ({"query": "q: ", "passage": "p: "}, {"query": "q: ", "passage": "p: "}, True),
        ({}, {}, False),
    ],
)
def test_empty_and_missing_prompts(checkpoint, tmp_path, prompts, expected, required):
    """M16, M39: empty prompts do not warn, and a model with one for queries alone has an empty one for documents."""
    folder = shutil.copytree(checkpoint, tmp_path / "prompts")
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    spec = locate(folder).spec
    assert (spec.prompts, spec.prompt_required) == (expected, required)


@pytest.mark.parametrize("source", ["no/such/folder", "nowhere", "../x"])
def test_an_unknown_source_is_refused(source):
    with pytest.raises(SourceError, match="no folder"):
        locate(source)
