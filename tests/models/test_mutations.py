"""Mutations of the tiny networks: each changes the results by more than a correct export may."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch.nn import functional

from moembed.convert.conversion import convert
from moembed.models import text_encoder
from moembed.models.checkpoint import load_network
from moembed.models.families import read_config
from moembed.models.locate import locate
from moembed.models.oracle import Oracle
from moembed.models.pooling import Pooling
from moembed.quantize.recipe import tolerance_of
from moembed.verify.parity import compare, graph_runner, oracle_runner
from support.tiny_networks import BERT, GTE, NOMIC, TEXTS, results, tensors_of, write_modules, write_tiny
from support.tolerances import MUTATION_FACTOR, REFERENCE


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


def _activation(name, other):
    """Return a mutation of a function of `torch.nn.functional`."""

    def mutate(patch, folder, _name):
        patch.setattr(functional, name, other)

    return mutate


_gelu = functional.gelu


def _tanh_gelu(x):
    return _gelu(x, approximate="tanh")


def _gate_and_up_in_separate_tensors_exchanged(tensors, _folder):
    for layer in range(2):
        names = [f"encoder.layers.{layer}.mlp.{name}.weight" for name in ("fc11", "fc12")]
        tensors.update(zip(names, [tensors[name] for name in reversed(names)], strict=True))


def _without_head(patch, folder, name):
    patch.setattr(text_encoder.TextEncoder, "head", lambda _self, pooled: pooled)


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
    "other pooling": _first_for_mean,
    "embedding norm left out": _no_embedding_norm,
    "queries, keys and values exchanged": _query_and_key_exchanged,
}


TANH_FOR_ERF = _activation("gelu", _tanh_gelu)
OF_GTE = {
    "gate and up exchanged": _patched_table(_gate_and_up_exchanged),
    "base of another model": _config(rope_theta=10000, rope_scaling=None),
    "base without its scaling": _config(rope_theta=20000, rope_scaling=None),
    "base with a scaling": _config(rope_theta=160000, rope_scaling={"type": "ntk", "factor": 8.0}),
    "base multiplied, frequencies not divided": _config(rope_theta=160000.5, rope_scaling=None),
}


OF_NOMIC = {
    "gate and up exchanged": _patched_table(_gate_and_up_in_separate_tensors_exchanged),
    "base of another model": _config(rotary_emb_base=10000),
    "GELU for SiLU": _activation("silu", _gelu),
    "quick GELU for SiLU": _activation("silu", lambda x: x * torch.sigmoid(1.702 * x)),
}
OF_HEAD = {"nomic_dense": _config(pooled_layer_norm=True), "nomic_layer_norm": _without_head}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mutation_is_detected(mutation, name, tiny, tmp_path, monkeypatch):
    """By the largest difference: cosines are blind to eps."""
    _is_detected(MUTATIONS[mutation], name, tiny, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", [*BERT, *GTE])
def test_tanh_for_erf_is_detected(name, tiny, tmp_path, monkeypatch):
    """M26: cosines are blind to it."""
    _is_detected(TANH_FOR_ERF, name, tiny, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", GTE)
@pytest.mark.parametrize("mutation", OF_GTE)
def test_a_mutation_of_gte_is_detected(mutation, name, tiny, tmp_path, monkeypatch):
    """M29, M30: by the largest difference of states; cosines of pooled vectors change by 4e-4 for a wrong base."""
    if name == "gte" and mutation == "base multiplied, frequencies not divided":
        pytest.skip("that is its own base")
    _is_detected(OF_GTE[mutation], name, tiny, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", NOMIC)
@pytest.mark.parametrize("mutation", OF_NOMIC)
def test_a_mutation_of_nomic_bert_is_detected(mutation, name, tiny, tmp_path, monkeypatch):
    """M29, M30."""
    _is_detected(OF_NOMIC[mutation], name, tiny, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("name", "change"), [("gte", _gate_and_up_exchanged), ("nomic_dense", _gate_and_up_in_separate_tensors_exchanged)]
)
def test_gate_and_up_exchanged_in_an_int8_bundle_is_detected(name, change, tiny, tmp_path):
    """M30: it is further away than the recipe allows."""
    tensors = tensors_of(name)
    change(tensors, None)
    wrong = convert(locate(write_tiny(tmp_path / "exchanged", name, tensors=tensors)), tmp_path / "int8")
    oracle = Oracle(tiny[name])
    report = compare("numpy", oracle_runner(oracle), graph_runner(wrong.graph), TEXTS.values(), tolerance_of("int8"))
    oracle.close()
    assert not report.passed


@pytest.mark.parametrize("name", OF_HEAD)
def test_a_wrong_head_is_detected(name, tiny, tmp_path, monkeypatch):
    """M35: the LayerNorm behind the pooling added, and left out."""
    _is_detected(OF_HEAD[name], name, tiny, tmp_path, monkeypatch)


def _is_detected(mutate, name, tiny, tmp_path, monkeypatch):
    expected = {
        tuple(ids): result for ids, result in zip(TEXTS.values(), results(tiny[name], *TEXTS.values()), strict=True)
    }
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
    tensors, expected = tensors_of(name), results(tiny[name], TEXTS["A"])[0].hidden_states[0]
    table = tensors["embeddings.position_embeddings.weight"]
    first = read_config(tiny[name]).first_position
    assert first == {"bert": 0, "xlm_roberta": 2}[name]
    words = tensors["embeddings.word_embeddings.weight"][TEXTS["A"]]
    rows = np.clip(np.arange(len(words)) + first + shift, 0, None)
    x = words + tensors["embeddings.token_type_embeddings.weight"][0] + table[rows]
    x = x - x.mean(1, keepdims=True)
    x = x / x.std(1, keepdims=True) * tensors["embeddings.LayerNorm.weight"] + tensors["embeddings.LayerNorm.bias"]
    assert np.abs(x - expected).max() > 0.3
