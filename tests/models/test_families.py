"""Every family on tiny networks: published results, oracle, torch network, transformers' own class, and mutations."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from torch.nn import functional

from moembed.errors import CheckpointError
from moembed.export.contents import check_tokenizer
from moembed.export.templates import FOLDER, config_of
from moembed.models import text_encoder
from moembed.models.bert import fields as bert_fields
from moembed.models.checkpoint import expected_tensors, load_network, open_checkpoint, parameter_count
from moembed.models.families import FAMILIES, family_of, family_of_raw, read_config
from moembed.models.gte import fields as gte_fields
from moembed.models.gte.config import GteConfig
from moembed.models.locate import locate
from moembed.models.nomic_bert_moe.config import NomicMoeConfig
from moembed.models.oracle import Oracle
from moembed.models.pooling import Pooling
from moembed.models.roles import Kind, role
from moembed.models.rotary import rotary_table
from moembed.verify.parity import compare, network_runner, oracle_runner
from support.checkpoints import PUBLISHED_CONFIG
from support.folders import TESTS
from support.tiny_networks import NETWORKS, TEXTS, tensors_of, write_modules, write_tiny
from support.tolerances import MUTATION_FACTOR, PUBLISHED_MAX_ABS, REFERENCE, TRANSFORMERS_MAX_ABS

BERT = ["bert", "xlm_roberta"]
GTE = ["gte", "new"]


# Of a head of 64.
SIZES = {
    "vocab_size": 8,
    "hidden_size": 768,
    "num_layers": 1,
    "num_heads": 12,
    "ffn_size": 8,
    "layer_norm_eps": 1e-12,
    "max_positions": 8,
    "dtype": "float32",
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Folders of the networks by name."""
    folder = tmp_path_factory.mktemp("tiny")
    return {name: write_tiny(folder / name, name) for name in NETWORKS}


@pytest.fixture(scope="module", params=NETWORKS)
def name(request):
    return request.param


def run(folder, ids):
    oracle = Oracle(folder)
    try:
        return oracle.run(ids)
    finally:
        oracle.close()


# --- what is computed


def test_the_oracle_gives_the_published_results(name, tiny):
    published = NETWORKS[name]
    for text, ids in TEXTS.items():
        found = run(tiny[name], ids)
        assert np.abs(found.embedding - published["sentence_embedding"][text]).max() < PUBLISHED_MAX_ABS
    found = run(tiny[name], TEXTS["A"])
    assert np.abs(found.hidden_states[0][0, :8] - published["embedding_norm_A_token0_first8"]).max() < PUBLISHED_MAX_ABS
    for token in (0, 6):
        expected = published[f"last_hidden_A_token{token}"]
        assert np.abs(found.hidden_states[-1][token] - expected).max() < PUBLISHED_MAX_ABS


def test_the_seeds_give_the_published_weights(name):
    tensors = tensors_of(name)
    for tensor, values in NETWORKS[name]["first_values"].items():
        assert np.allclose(tensors[tensor].ravel()[: len(values)], values, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("pooling", Pooling)
def test_torch_agrees_with_the_oracle(name, pooling, tiny, tmp_path):
    folder = shutil.copytree(tiny[name], tmp_path / "checkpoint")
    write_modules(folder, pooling)
    network = load_network(folder)
    assert network.config.pooling is pooling
    oracle = Oracle(folder)
    report = compare("numpy", oracle_runner(oracle), network_runner(network), TEXTS.values(), REFERENCE)
    oracle.close()
    assert report.passed, report.problems
    assert report.tokens == sum(map(len, TEXTS.values()))


def test_pads_and_batches_change_nothing(name, tiny):
    """M23: pads are on the right; those of a row are not seen by its tokens, nor counted."""
    network = load_network(tiny[name])
    longest = max(map(len, TEXTS.values()))
    ids, mask = torch.ones(len(TEXTS), longest, dtype=torch.int64), torch.zeros(len(TEXTS), longest, dtype=torch.int64)
    for row, text in enumerate(TEXTS.values()):
        ids[row, : len(text)], mask[row, : len(text)] = torch.tensor(text), 1
    with torch.no_grad():
        embeddings, _ = network(ids, mask)
    for row, text in enumerate(TEXTS.values()):
        alone = network_runner(network)(text).embedding
        assert np.abs(embeddings[row].numpy() - alone).max() < TRANSFORMERS_MAX_ABS


def test_transformers_gives_the_same_states(name, tiny, tmp_path):
    """The library's own class, in float32, over the same file. It has none for the layout `new`."""
    if name == "new":
        pytest.skip("code of its own, which is never run")
    transformers = pytest.importorskip("transformers", minversion="5")
    folder = shutil.copytree(tiny[name], tmp_path / "common")
    raw = NETWORKS[name]["config"]
    (folder / "config.json").write_text(json.dumps(family_of_raw(raw).common_names(raw)))
    reference = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False).eval()
    network = load_network(tiny[name])
    for text in TEXTS.values():
        ids, mask = torch.tensor([text]), torch.ones(1, len(text), dtype=torch.int64)
        with torch.no_grad():
            expected = reference(input_ids=ids, attention_mask=mask).last_hidden_state
            _, found = network(ids, mask)
        assert (found - expected).abs().max() < TRANSFORMERS_MAX_ABS


def test_a_file_of_half_precision_is_computed_in_float32(name, tiny, tmp_path):
    """M27."""
    halves = {tensor: values.astype(np.float16) for tensor, values in tensors_of(name).items()}
    folder = write_tiny(tmp_path / "half", name, tensors=halves, torch_dtype="float16")
    widened = {tensor: values.astype(np.float32) for tensor, values in halves.items()}
    single = write_tiny(tmp_path / "single", name, tensors=widened)
    found, expected = (network_runner(load_network(path))(TEXTS["C"]).embedding for path in (folder, single))
    assert np.array_equal(found, expected)


# --- mutations


def _patched_table(change):
    """Return a mutation of one tensor in the file that the network reads."""

    def mutate(patch, folder, name):
        tensors = tensors_of(name)
        change(tensors, folder)
        save_file(tensors, folder / "model.safetensors")

    return mutate


def _ending(tensors, end):
    return [values for name, values in tensors.items() if name.endswith(end)]


def _second_token_type(tensors, _folder):
    for table in _ending(tensors, "token_type_embeddings.weight"):
        table[0] *= -1


def _no_token_type(tensors, _folder):
    for table in _ending(tensors, "token_type_embeddings.weight"):
        table[:] = 0


def _gate_and_up_exchanged(tensors, _folder):
    for fused in _ending(tensors, "up_gate_proj.weight"):
        fused[:] = np.roll(fused, len(fused) // 2, axis=0)


def _config(**fields):
    """Return a mutation of the config."""

    def mutate(patch, folder, name):
        raw = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(raw | fields))

    return mutate


def _size(*names, value):
    """Return a mutation of the field of a size, which has one of two names."""

    def mutate(patch, folder, name):
        raw = json.loads((folder / "config.json").read_text())
        (field,) = raw.keys() & set(names)
        (folder / "config.json").write_text(json.dumps(raw | {field: value(raw[field])}))

    return mutate


def _tanh_gelu(patch, folder, name):
    exact = functional.gelu
    patch.setattr(functional, "gelu", lambda x: exact(x, approximate="tanh"))


def _first_for_mean(patch, folder, name):
    pooling = read_config(folder).pooling
    write_modules(folder, next(mode for mode in Pooling if mode is not pooling))


def _no_embedding_norm(patch, folder, name):
    encoder = text_encoder.TextEncoder
    original = encoder.forward

    def forward(self, ids, mask):
        self.emb_ln = torch.nn.Identity()
        return original(self, ids, mask)

    patch.setattr(encoder, "forward", forward)


def _query_and_key_exchanged(patch, folder, name):
    original = text_encoder.attention

    def attention(qkv, tokens, mask, cos, sin, heads):
        q, k, v = qkv.chunk(3, dim=1)
        return original(torch.cat([k, v, q], 1), tokens, mask, cos, sin, heads)

    patch.setattr(text_encoder, "attention", attention)


MUTATIONS = {
    "token type row left out": _patched_table(_no_token_type),
    "another token type row": _patched_table(_second_token_type),
    "number of heads": _size("num_attention_heads", "n_head", value=lambda heads: 2 * heads),
    "eps": _size("layer_norm_eps", "layer_norm_epsilon", value=lambda _: 1e-3),
    "tanh for erf": _tanh_gelu,
    "other pooling": _first_for_mean,
    "embedding norm left out": _no_embedding_norm,
    "queries, keys and values exchanged": _query_and_key_exchanged,
}


OF_GTE = {
    "gate and up exchanged": _patched_table(_gate_and_up_exchanged),
    "base of another model": _config(rope_theta=10000, rope_scaling=None),
    "base without its scaling": _config(rope_theta=20000, rope_scaling=None),
    "base with a scaling": _config(rope_theta=160000, rope_scaling={"type": "ntk", "factor": 8.0}),
    "base multiplied, frequencies not divided": _config(rope_theta=160000.5, rope_scaling=None),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mutation_is_detected(mutation, name, tiny, tmp_path, monkeypatch):
    """By the largest difference: cosines are blind to tanh GELU and to eps (M26)."""
    _is_detected(MUTATIONS[mutation], name, tiny, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", GTE)
@pytest.mark.parametrize("mutation", OF_GTE)
def test_a_mutation_of_gte_is_detected(mutation, name, tiny, tmp_path, monkeypatch):
    """M29, M30: by the largest difference of states; cosines of pooled vectors change by 4e-4 for a wrong base."""
    if name == "gte" and mutation == "base multiplied, frequencies not divided":
        pytest.skip("that is its own base")
    _is_detected(OF_GTE[mutation], name, tiny, tmp_path, monkeypatch)


def _is_detected(mutate, name, tiny, tmp_path, monkeypatch):
    oracle = Oracle(tiny[name])
    expected = {
        tuple(ids): result for ids, result in zip(TEXTS.values(), oracle.run_all(list(TEXTS.values())), strict=True)
    }
    oracle.close()
    folder = shutil.copytree(tiny[name], tmp_path / "mutated")
    mutate(monkeypatch, folder, name)
    network, worst = load_network(folder), 0.0
    for ids, result in expected.items():
        with torch.no_grad():
            embedding, states = network(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.int64))
        scale = float(np.abs(result.pooled).max() / np.abs(result.embedding).max())
        worst = max(
            worst,
            float(np.abs(states[0].numpy() - result.hidden_states[-1]).max()),
            scale * float(np.abs(embedding[0].numpy() - result.embedding).max()),
        )
    assert worst > MUTATION_FACTOR * REFERENCE.hidden_max_abs


@pytest.mark.parametrize("name", BERT)
@pytest.mark.parametrize("shift", [-1, 1, 2])
def test_a_position_offset_is_detected(name, shift, tiny):
    """M24: XLM-RoBERTa counts from pad_token_id + 1, BERT from 0; one row more or less moves states by more than 0.3."""
    tensors, expected = tensors_of(name), run(tiny[name], TEXTS["A"]).hidden_states[0]
    table = tensors["embeddings.position_embeddings.weight"]
    first = read_config(tiny[name]).first_position
    assert first == {"bert": 0, "xlm_roberta": 2}[name]
    words = tensors["embeddings.word_embeddings.weight"][TEXTS["A"]]
    rows = np.clip(np.arange(len(words)) + first + shift, 0, None)
    x = words + tensors["embeddings.token_type_embeddings.weight"][0] + table[rows]
    x = x - x.mean(1, keepdims=True)
    x = x / x.std(1, keepdims=True) * tensors["embeddings.LayerNorm.weight"] + tensors["embeddings.LayerNorm.bias"]
    assert np.abs(x - expected).max() > 0.3


# --- what is refused


@pytest.mark.parametrize("name", BERT)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "gelu_new"}, "hidden_act = 'gelu_new'"),
        ({"hidden_act": "gelu_pytorch_tanh"}, "approximate GELU by tanh"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"position_embedding_type": "relative_key_query"}, "relative positions"),
        ({"is_decoder": True}, "causal attention"),
        ({"add_cross_attention": True}, "states of an encoder"),
        ({"auto_map": {"AutoModel": "acme/code--m.Model"}}, "auto_map"),
        ({"lora_adaptations": ["retrieval.query"]}, "lora_adaptations = .*an unknown field"),
        ({"architectures": ["XLMRobertaForSequenceClassification"]}, "reranker"),
        ({"architectures": ["BertForMaskedLM"]}, "SPLADE"),
        ({"architectures": ["BertModel", "BertModel"]}, "architectures"),
        ({"num_attention_heads": 5}, "multiple of num_attention_heads"),
        ({"num_attention_heads": 64}, "odd"),
        ({"max_position_embeddings": 2}, "a text needs 3"),
        ({"layer_norm_eps": None}, "layer_norm_eps"),
        ({"quantization_config": {"bits": 4}}, "quantized tensors"),
        ({"model_type": "roberta"}, "model_type = 'roberta'.*implemented: bert, gte, new, nomic_bert, xlm-roberta"),
        ({"model_type": None}, "model_type = None"),
    ],
)
def test_unimplemented_configs_are_refused_by_field(name, change, message, tmp_path):
    folder = write_tiny(tmp_path / "other", name, **change)
    with pytest.raises(CheckpointError, match=message):
        locate(folder)


@pytest.mark.parametrize("name", GTE)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "gelu_new"}, "hidden_act = 'gelu_new'"),
        ({"layer_norm_type": "rms_norm"}, "RMSNorm"),
        ({"position_embedding_type": "absolute"}, "learned positions"),
        ({"pack_qkv": False}, "tensors of their own"),
        ({"logn_attention_scale": True}, "logarithm of the length"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 160000}}, "transformers' own class"),
        ({"rope_scaling": {"type": "linear", "factor": 8.0}}, "rope_scaling = "),
        ({"rope_scaling": {"type": "ntk", "factor": 8.0, "mixed_b": 0.4}}, "rope_scaling = "),
        ({"rope_scaling": {"type": "ntk", "factor": 0.5}}, "rope_scaling = "),
        ({"rope_scaling": {"type": "ntk", "factor": True}}, "rope_scaling = "),
        ({"architectures": ["NewForSequenceClassification"]}, "reranker"),
        ({"architectures": ["NewForMaskedLM"]}, "architectures"),
        ({"num_attention_heads": 5}, "multiple of num_attention_heads"),
        ({"attention_window": 128}, "an unknown field"),
    ],
)
def test_unimplemented_configs_of_gte_are_refused_by_field(name, change, message, tmp_path):
    folder = write_tiny(tmp_path / "other", name, **change)
    with pytest.raises(CheckpointError, match=message):
        locate(folder)


@pytest.mark.parametrize("prefix", ["", "new."])
def test_both_layouts_of_gte_are_read(prefix, tiny, tmp_path):
    """The prefix is found in the file; the head for sparse weights of tokens is ignored."""
    tensors = {prefix + tensor.removeprefix("new."): values for tensor, values in tensors_of("new").items()}
    head = {"classifier.weight": np.ones((1, 64), np.float32), "classifier.bias": np.ones(1, np.float32)}
    flags = {
        "unpad_inputs": "true",
        "use_memory_efficient_attention": "true",
        "architectures": ["NewForTokenClassification"],
    }
    folder = write_tiny(tmp_path / "other", "new", tensors=tensors | head, **flags)
    found, expected = (network_runner(load_network(path))(TEXTS["B"]).embedding for path in (folder, tiny["new"]))
    assert np.array_equal(found, expected)


def test_rotary_frequencies_are_those_of_the_published_models():
    """To the last bit, as torch computes them in float32; of the scaled ones the first is not 1."""
    published = {
        (20000.0, 8.0): ("0x1.dfc972p-1", "0x1.49eda8p-1", "0x1.c5c122p-2", "0x1.1dc892p-17"),
        (160000.0, 1.0): ("0x1p+0", "0x1.601474p-1", "0x1.e4383ep-2", "0x1.30f89ap-17"),
    }
    for (base, factor), expected in published.items():
        config = GteConfig(**SIZES, rotary_base=base, rotary_factor=factor, type_vocab_size=1)
        _, sin = rotary_table(config.head_dim, config.scaled_base, 2, config.divisor)
        wanted = np.array([float.fromhex(text) for text in expected])
        assert np.array_equal(sin[1, [0, 1, 2, -1]], np.sin(wanted).astype(np.float32))


def test_a_field_that_is_missing_is_not_guessed(tmp_path):
    folder = write_tiny(tmp_path / "other", "xlm_roberta")
    raw = NETWORKS["xlm_roberta"]["config"]
    for field in ("hidden_act", "layer_norm_eps", "pad_token_id", "type_vocab_size", "max_position_embeddings"):
        (folder / "config.json").write_text(json.dumps({key: value for key, value in raw.items() if key != field}))
        with pytest.raises(CheckpointError, match=field):
            locate(folder)


@pytest.mark.parametrize("name", BERT)
@pytest.mark.parametrize("version", [4, 5])
def test_configs_that_transformers_writes(name, version):
    """Every field of the library's own classes has a place."""
    transformers = pytest.importorskip("transformers", minversion="5")
    kind = {"bert": transformers.BertConfig, "xlm_roberta": transformers.XLMRobertaConfig}[name]
    raw = NETWORKS[name]["config"]
    written = kind(**{key: value for key, value in raw.items() if key != "model_type"}).to_dict()
    if version == 4:
        written = raw | {"output_past": True, "tie_word_embeddings": True}
    written_config, config = (family_of_raw(raw).read_config(fields, Pooling.MEAN, "") for fields in (written, raw))
    assert written_config == config


@pytest.mark.parametrize("name", BERT)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop("encoder.layer.1.attention.self.key.bias"),
            "missing: encoder.layer.1.attention.self.key.bias",
        ),
        (lambda t: t.update({"classifier.out_proj.weight": np.zeros((1, 4), np.float32)}), "classifier or reranker"),
        (lambda t: t.update({"cls.predictions.bias": np.zeros(4, np.float32)}), "SPLADE"),
        (lambda t: t.update({"linear.weight": np.zeros((4, 4), np.float32)}), "ColBERT"),
        (lambda t: t.update({"encoder.layer.0.lora_A.weight": np.zeros((4, 4), np.float32)}), "merge it"),
        (lambda t: t.update({"embeddings.position_ids": np.arange(32)[None][:, ::-1].copy()}), "expected 0, 1, 2"),
        (lambda t: t.update({"extra.weight": np.zeros(4, np.float32)}), "unexpected: extra.weight"),
        (
            lambda t: t.update({"embeddings.position_embeddings.weight": np.zeros((99, 64), np.float32)}),
            "position_embeddings.weight: expected",
        ),
        (lambda t: t["embeddings.token_type_embeddings.weight"].__setitem__((0, 0), np.inf), "NaN or infinity"),
    ],
)
def test_other_tensors_are_refused_by_name(name, change, message, tmp_path):
    tensors = tensors_of(name)
    change(tensors)
    folder = write_tiny(tmp_path / "other", name, tensors=tensors)
    with pytest.raises(CheckpointError, match=message):
        load_network(folder)


@pytest.mark.parametrize("name", BERT)
def test_pooler_and_position_ids_are_optional(name, tiny, tmp_path):
    """M12."""
    extra = {
        "pooler.dense.weight": np.ones((64, 64), np.float32),
        "pooler.dense.bias": np.ones(64, np.float32),
        "embeddings.position_ids": np.arange(34)[None],
    }
    folder = write_tiny(tmp_path / "other", name, tensors=tensors_of(name) | extra)
    found, expected = (network_runner(load_network(path))(TEXTS["B"]).embedding for path in (folder, tiny[name]))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("prefix", ["bert.", "0.auto_model.", "module."])
def test_names_behind_a_prefix_are_read(prefix, tiny, tmp_path):
    """M11: transformers would make every tensor random, with a line in a log."""
    tensors = {prefix + tensor: values for tensor, values in tensors_of("bert").items()}
    folder = write_tiny(tmp_path / "other", "bert", tensors=tensors)
    with open_checkpoint(folder, "np") as (_, weights):
        assert weights.prefix == prefix
    found, expected = (network_runner(load_network(path))(TEXTS["B"]).embedding for path in (folder, tiny["bert"]))
    assert np.array_equal(found, expected)


def test_a_token_beyond_the_table_is_refused(tiny, tmp_path):
    """M13: at once, and not at the first text that has it."""
    folder = shutil.copytree(tiny["bert"], tmp_path / "added")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([f"<entity {i}>" for i in range(129 - tokenizer.get_vocab_size())])
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="has 129 tokens, but the embedding table has 128 rows"):
        check_tokenizer(locate(folder))


def test_a_folder_that_does_not_say_how_it_pools_is_refused(tiny, tmp_path):
    """M07: sentence-transformers would take the mean of all tokens."""
    folder = shutil.copytree(tiny["bert"], tmp_path / "bare")
    shutil.rmtree(folder / "1_Pooling")
    with pytest.raises(CheckpointError, match="1_Pooling.config.json.*nothing says how"):
        locate(folder)


@pytest.mark.parametrize(
    ("title", "fields", "checked"),
    [
        ("BERT", bert_fields, set()),
        ("GTE", gte_fields, {gte_fields.ROPE_SCALING}),
    ],
)
def test_the_documentation_lists_every_field(title, fields, checked):
    text = (TESTS.parent / "docs" / "checkpoints.md").read_text("utf-8")

    def names(heading, column):
        section = text.partition(f"\n### {heading}\n")[2].partition("\n#")[0]
        cells = [line.split("|")[column] for line in section.splitlines() if line.startswith("|")]
        return set(re.findall(r"`([^`\s]+)`", " ".join(cells)))

    assert names(f"Read from a {title}", 1) == fields.READ
    assert names(f"Checked in a {title}", 1) == fields.IMPLEMENTED.keys() | {"architectures"} | checked
    assert names(f"Ignored in a {title}", 2) == fields.IGNORED - {"architectures"}


# --- the interface


def test_every_family_has_parameters_with_roles():
    moe = NomicMoeConfig.from_dict(PUBLISHED_CONFIG | {"projection": True})
    kinds = {one.role.kind for one in family_of(moe).parameters(moe)}
    for family in FAMILIES:
        assert family.model_types
        assert family.specs.is_dir()
    for network in NETWORKS.values():
        config = family_of_raw(network["config"]).read_config(network["config"], Pooling.MEAN, "")
        family = family_of(config)
        parameters = family.parameters(config)
        assert [role(one.name) for one in parameters] == [one.role for one in parameters]
        assert expected_tensors(config) == {name: tuple(shape) for name, shape in _in_order(network, config)}
        assert sum(np.prod(one.shape) for one in parameters) == sum(
            p.numel() for p in family.network(config).parameters()
        )
        kinds |= {one.role.kind for one in parameters}
    assert kinds == set(Kind)


# Without the pooler.
PUBLISHED_PARAMETERS = {
    "all-MiniLM-L6-v2": 22_565_376,
    "gte-multilingual-base": 305_368_320,
    "multilingual-e5-base": 277_453_056,
    "multilingual-e5-large": 558_840_832,
    "multilingual-e5-small": 117_505_920,
    "nomic-embed-text-v2-moe": 475_292_928,
    "snowflake-arctic-embed-l-v2.0": 566_705_152,
    "snowflake-arctic-embed-m-v2.0": 305_368_320,
}


def test_known_models_have_their_published_number_of_parameters():
    found = {file.name.removesuffix(".onnx"): config_of(file.read_bytes()) for file in FOLDER.iterdir()}
    assert {name: parameter_count(config) for name, config in found.items()} == PUBLISHED_PARAMETERS


def _in_order(network, config):
    shapes = {name.removeprefix("new."): shape for name, shape in network["tensors"].items()}
    return [(name, shapes[name]) for name in expected_tensors(config)]
