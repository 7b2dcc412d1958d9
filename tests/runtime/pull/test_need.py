"""What is checked before the weights are sent."""

import pytest

from moembed.errors import MissingExtraError, OutputError
from moembed.models.checkpoint import parameter_count
from moembed.models.nomic_bert_moe.config import NomicMoeConfig
from moembed.pull import need
from moembed.store import room
from support.checkpoints import PUBLISHED_CONFIG, small_config


def test_the_published_size_needs_less_than_the_stated_memory():
    """N41"""
    parameters = parameter_count(NomicMoeConfig.from_dict(PUBLISHED_CONFIG))
    assert 470e6 < parameters < 480e6
    assert need.memory_bytes(parameters) < 1.5e9
    assert need.bundle_bytes(parameters, "int8") < 0.4 * 4 * parameters
    assert need.bundle_bytes(parameters, "int8-wide") > need.bundle_bytes(parameters, "int8") + 4 * parameters - 1


def test_a_network_without_a_template_needs_torch(monkeypatch):
    config = NomicMoeConfig.from_dict(small_config())
    need.check_graph(config)
    monkeypatch.setattr(need, "find_spec", lambda _name: None)
    need.check_graph(NomicMoeConfig.from_dict(PUBLISHED_CONFIG))
    with pytest.raises(
        MissingExtraError, match=r"of a size that moembed has no template of needs torch.*moembed\[export\]"
    ):
        need.check_graph(config)


def test_too_little_memory_is_told_with_the_model(monkeypatch, tmp_path):
    """N41: a container of 1 GB on a large host."""
    monkeypatch.setattr(room, "available_memory", lambda: (900_000_000, 10**9))
    with pytest.raises(OutputError, match=r"Converting acme/ft needs 1\.49 GB of memory, and the control group"):
        need.check_need("acme/ft", 475_000_000, {tmp_path: 1})
