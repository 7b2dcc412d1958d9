"""The torch network against the numpy oracle, and mutations that the comparison must detect."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from moembed.models import text_encoder
from moembed.models.checkpoint import load_network
from moembed.models.nomic_bert_moe import network as network_module
from moembed.models.ops import experts as experts_op
from moembed.models.oracle import Oracle
from moembed.verify.parity import compare, network_runner, oracle_runner
from moembed.verify.tolerances import FP32
from support.checkpoints import small_config, write_checkpoint
from support.tolerances import MUTATION_FACTOR, REFERENCE

TEXTS = [[0, 5, 17, 300, 4711, 9, 2], [0, 2], [0, *range(100, 160), 2]]


@pytest.fixture(scope="module")
def oracle(checkpoint):
    oracle = Oracle(checkpoint)
    yield oracle_runner(oracle)
    oracle.close()


def test_torch_agrees_with_the_oracle(network, oracle):
    report = compare("numpy", oracle, network_runner(network), TEXTS, REFERENCE)
    assert report.passed, report.problems
    assert report.routing.keys() == {1, 3}
    assert all(layer.tokens == sum(map(len, TEXTS)) for layer in report.routing.values())


@pytest.mark.parametrize(
    "changes",
    [
        {"n_layer": 5, "moe_every_n_layers": 3, "num_experts": 3, "moe_top_k": 3},
        {"n_layer": 2, "num_experts": 2, "moe_top_k": 1, "ffn_div": 2, "rotary_emb_base": 1e9},
        {"n_layer": 2, "n_embd": 30, "n_head": 5, "n_inner": 34, "layer_norm_epsilon": 1e-12, "torch_dtype": "float16"},
    ],
)
def test_other_configs_agree_too(tmp_path, changes):
    folder = write_checkpoint(tmp_path / "other", small_config(**changes), seed=3)
    oracle = Oracle(folder)
    report = compare("numpy", oracle_runner(oracle), network_runner(load_network(folder)), TEXTS, REFERENCE)
    oracle.close()
    assert report.passed, report.problems


def test_padding_and_batching_change_nothing(network):
    ids = torch.full((3, 70), 1)
    mask = torch.zeros(3, 70, dtype=torch.int64)
    for row, text in enumerate(TEXTS):
        ids[row, : len(text)], mask[row, : len(text)] = torch.tensor(text), 1
    embeddings, states = network(ids, mask)
    for row, text in enumerate(TEXTS):
        alone, alone_states = network(torch.tensor([text]), torch.ones(1, len(text), dtype=torch.int64))
        assert torch.allclose(embeddings[row], alone[0], atol=1e-6)
        assert torch.allclose(states[row, : len(text)], alone_states[0], atol=1e-5)
        assert not states[row, len(text) :].any(), "pad positions are zero"


def test_a_text_without_tokens_is_zero_not_nan(network):
    embeddings, _ = network(torch.ones(2, 4, dtype=torch.int64), torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0]]))
    assert torch.isfinite(embeddings).all()
    assert not embeddings[1].any()


# Errors of real implementations of this model, each of which passes a loose test of cosines.


def _renormalized_top2(patch):
    def router(x, weight, top_k):
        weights, expert_indices = torch.topk(torch.softmax(x @ weight.T, -1), top_k)
        return weights / weights.sum(-1, keepdim=True), expert_indices

    patch.setattr(network_module, "router", router)


def _softmax_after_top_k(patch):
    def router(x, weight, top_k):
        logits, expert_indices = torch.topk(x @ weight.T, top_k)
        return torch.softmax(logits, -1), expert_indices

    patch.setattr(network_module, "router", router)


def _bias_inside_the_expert_loop(patch):
    def experts(x, weights, expert_indices, w1, w2, bias, count):
        return experts_op(x, weights, expert_indices, w1, w2, bias, count) - bias + weights.sum(-1, keepdim=True) * bias

    patch.setattr(network_module, "experts", experts)


def _missing_shared_bias(patch):
    patch.setattr(network_module, "experts", lambda x, w, c, w1, w2, bias, e: experts_op(x, w, c, w1, w2, 0 * bias, e))


def _w2_viewed_transposed(patch):
    def experts(x, weights, expert_indices, w1, w2, bias, count):
        transposed = w2.view(count, x.shape[1], -1).transpose(1, 2).reshape(w2.shape)
        return experts_op(x, weights, expert_indices, w1, transposed, bias, count)

    patch.setattr(network_module, "experts", experts)


def _tanh_gelu(patch):
    exact = functional.gelu
    patch.setattr(functional, "gelu", lambda x: exact(x, approximate="tanh"))


def _interleaved_rotary(patch):
    original = text_encoder.attention

    def attention(qkv, tokens, mask, cos, sin, heads):
        hidden = qkv.shape[1] // 3
        order = torch.cat([torch.arange(0, hidden // heads, 2), torch.arange(1, hidden // heads, 2)])
        interleaved = qkv[:, : 2 * hidden].view(len(qkv), 2 * heads, -1)[:, :, order].reshape(len(qkv), -1)
        return original(torch.cat([interleaved, qkv[:, 2 * hidden :]], 1), tokens, mask, cos, sin, heads)

    patch.setattr(text_encoder, "attention", attention)


MUTATIONS = {
    "renormalized top-2": _renormalized_top2,
    "softmax after top-k": _softmax_after_top_k,
    "bias inside the expert loop": _bias_inside_the_expert_loop,
    "missing shared bias": _missing_shared_bias,
    "w2 viewed [experts, hidden, ffn]": _w2_viewed_transposed,
    "tanh GELU": _tanh_gelu,
    "interleaved rotary": _interleaved_rotary,
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_detected(name, network, oracle, monkeypatch):
    MUTATIONS[name](monkeypatch)
    report = compare("numpy", oracle, network_runner(network), TEXTS, FP32)
    assert not report.passed
    assert report.hidden_max_abs > MUTATION_FACTOR * FP32.hidden_max_abs


def test_the_w2_view_is_the_upstream_one(network):
    """`[E*F, H]` is viewed `[E, F, H]` and used untransposed; the same bytes viewed `[E, H, F]` give another result."""
    layer = network.encoder.layers[1].mlp.experts
    ffn, hidden = network.config.expert_ffn_size, network.config.hidden_size
    x = torch.randn(1, hidden, generator=torch.Generator().manual_seed(0))
    w1, w2 = layer.mlp.w1.numpy(), layer.mlp.w2.numpy()
    rows = slice(2 * ffn, 3 * ffn)  # expert 2, by hand
    inner = functional.gelu(x @ torch.tensor(w1[rows]).T).numpy()
    by_hand = inner @ w2[rows] + layer.bias.numpy()
    assert np.allclose(layer(x, torch.ones(1, 1), torch.tensor([[2]])).numpy(), by_hand, atol=1e-5)
    wrong = inner @ w2.reshape(-1, hidden, ffn)[2].T + layer.bias.numpy()
    assert np.abs(wrong - by_hand).max() > 0.1
