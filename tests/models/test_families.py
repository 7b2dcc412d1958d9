"""Every family on tiny networks: published results, oracle, torch network, transformers' own class, and the interface."""

import json
import shutil

import ml_dtypes
import numpy as np
import pytest
import torch

from moembed.export.templates import FOLDER, config_of
from moembed.models.checkpoint import expected_tensors, load_network, parameter_count
from moembed.models.families import FAMILIES, family_of, family_of_raw
from moembed.models.gte.config import GteConfig
from moembed.models.nomic_bert_moe.config import NomicMoeConfig
from moembed.models.oracle import Oracle
from moembed.models.pooling import Pooling
from moembed.models.roles import Kind, role
from moembed.models.rotary import rotary_table
from moembed.verify.parity import compare, network_runner, oracle_runner
from support.checkpoints import PUBLISHED_CONFIG
from support.tiny_networks import BERT, NETWORKS, TEXTS, results, tensors_of, write_modules, write_tiny
from support.tolerances import PUBLISHED_MAX_ABS, REFERENCE, TRANSFORMERS_MAX_ABS

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


# --- what is computed


def test_the_oracle_gives_the_published_results(name, tiny):
    published = NETWORKS[name]
    for text, vector in published["sentence_embedding"].items():
        (found,) = results(tiny[name], TEXTS[text])
        assert np.abs(found.embedding - vector).max() < PUBLISHED_MAX_ABS
    (found,) = results(tiny[name], TEXTS["A"])
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


@pytest.mark.parametrize("name", BERT)
@pytest.mark.parametrize("pad", [0, 1, 3])
def test_the_id_of_padding_in_a_text_is_a_token_like_others(name, pad, tmp_path):
    """M20, M24: texts may spell `<pad>`; transformers would count no position for it in XLM-RoBERTa."""
    other, text = 77, [2, 9, pad, 8, pad, 7, 3]
    tensors = tensors_of(name)
    tensors["embeddings.word_embeddings.weight"][other] = tensors["embeddings.word_embeddings.weight"][pad]
    folder = write_tiny(tmp_path / "padded", name, tensors=tensors, pad_token_id=pad)
    replaced = [other if token == pad else token for token in text]
    oracle = results(folder, text, replaced)
    network = [network_runner(load_network(folder))(ids) for ids in (text, replaced)]
    for one, same in (oracle, network):
        assert np.array_equal(one.hidden_states[-1], same.hidden_states[-1])
    assert np.abs(oracle[0].embedding - network[0].embedding).max() < TRANSFORMERS_MAX_ABS


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


@pytest.mark.parametrize(("dtype", "stated"), [(np.float16, "float16"), (ml_dtypes.bfloat16, "bfloat16")])
def test_a_file_of_half_precision_is_computed_in_float32(name, dtype, stated, tmp_path):
    """M27."""
    halves = {tensor: values.astype(dtype) for tensor, values in tensors_of(name).items()}
    folder = write_tiny(tmp_path / "half", name, tensors=halves, torch_dtype=stated)
    widened = {tensor: values.astype(np.float32) for tensor, values in halves.items()}
    single = write_tiny(tmp_path / "single", name, tensors=widened)
    found, expected = (network_runner(load_network(path))(TEXTS["C"]).embedding for path in (folder, single))
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
    "nomic-embed-text-v1": 136_731_648,
    "nomic-embed-text-v1.5": 136_731_648,
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
