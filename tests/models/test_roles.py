"""Roles of tensors: every name of a checkpoint and of its graphs has one, and every role has one name."""

import onnx
import pytest

from moembed.models.checkpoint import expected_tensors
from moembed.models.nomic_bert_moe.config import NomicMoeConfig
from moembed.models.roles import GATED, MOE, Kind, Role, role
from support.checkpoints import PUBLISHED_CONFIG


def test_every_tensor_of_a_checkpoint_has_its_own_role():
    config = NomicMoeConfig.from_dict(PUBLISHED_CONFIG | {"projection": True})
    names = list(expected_tensors(config))
    roles = [role(name) for name in names]
    assert [found.name for found in roles] == names
    assert {found.kind for found in roles} == set(Kind) - {Kind.POSITION_EMBEDDINGS, *GATED}
    assert {found.layer for found in roles if found.kind in MOE} == set(config.moe_layers)
    assert not any(found.expert is not None for found in roles)


def test_experts_of_a_graph(bundle, network):
    names = [i.name for i in onnx.load(bundle.graph, load_external_data=False).graph.initializer]
    found = {role(name) for name in names}
    experts = range(network.config.num_experts)
    for layer in network.config.moe_layers:
        assert {Role(kind, layer, i) for kind in (Kind.EXPERTS_W1, Kind.EXPERTS_W2) for i in experts} <= found
    assert all(one.name in names for one in found - {None})


@pytest.mark.parametrize(
    "name",
    [
        None,
        "",
        "val_12",
        "encoder.layers.1",
        "encoder.layers.x.norm1.weight",
        "encoder.layers.1.emb_ln.weight",
        "norm1.weight",
        "encoder.layers.1.norm1.weight.2",
        "encoder.layers.1.mlp.experts.mlp.w1.0.int8",
        "embeddings.word_embeddings.weight.int8",
        "model.encoder.layers.1.norm1.weight",
    ],
)
def test_other_names_have_none(name):
    assert role(name) is None
