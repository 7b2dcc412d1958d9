"""Configs as transformers saves them: every field is implemented, ignored for a reason, or refused."""

import json
import re

import pytest

from moembed.errors import CheckpointError
from moembed.models.config_fields import IGNORED, IGNORED_NAMES
from moembed.models.nomic_bert.fields import DERIVED
from moembed.models.nomic_bert_moe.config import NomicMoeConfig
from moembed.models.nomic_bert_moe.fields import IMPLEMENTED, READ, SAME_AS
from support.checkpoints import PUBLISHED_CONFIG, small_config
from support.folders import TESTS

DOCS = TESTS.parent / "docs" / "checkpoints.md"
WRITTEN = [json.loads(line) for line in (TESTS / "data" / "transformers_configs.jsonl").read_text().splitlines()]
NATIVE = "the library's own nomic_bert"

# --- config.json


def of(written):
    return f"{written['transformers']} {written['case']}"


@pytest.mark.parametrize("written", [w for w in WRITTEN if w["case"] != NATIVE], ids=of)
def test_configs_that_transformers_writes(written):
    published = NomicMoeConfig.from_dict(PUBLISHED_CONFIG)
    read = NomicMoeConfig.from_dict(written["config"])
    assert read.dtype == ("bfloat16" if "bfloat16" in written["case"] else "float32")
    assert {**vars(read), "dtype": "float32"} == vars(published)


def test_the_configs_hold_the_reported_fields():
    fields = {name: value for written in WRITTEN for name, value in written["config"].items()}
    assert {"id2label", "label2id", "problem_type", "dtype", "torch_dtype", "rope_parameters", "top_k"} <= fields.keys()
    assert any(written["config"].get("_attn_implementation_autoset") is True for written in WRITTEN)
    assert {written["transformers"].rpartition(".")[0] for written in WRITTEN} >= {"4.47", "4.57", "5.24"}


def test_transformers_own_class_is_another_network():
    """transformers 5 has its own dense nomic_bert: a config that it loads and saves gets contradicting fields."""
    (written,) = (w for w in WRITTEN if w["case"] == NATIVE)
    with pytest.raises(CheckpointError, match="trust_remote_code=True and save it again") as caught:
        NomicMoeConfig.from_dict(written["config"])
    for message in (
        "layer_norm_eps = 1e-12: layer_norm_epsilon is 1e-05",
        "hidden_act = 'silu'",
        "rope_parameters = {",
    ):
        assert message in str(caught.value)


def test_every_field_has_one_place():
    places = [READ, IMPLEMENTED.keys(), SAME_AS.keys(), DERIVED, IGNORED_NAMES]
    assert len(set().union(*places)) == sum(map(len, places)) == sum(len(p) for p in places[:4]) + len(IGNORED_NAMES)
    assert len(IGNORED_NAMES) == sum(len(names.split()) for names in IGNORED.values())
    assert {name for written in WRITTEN for name in written["config"]} <= set().union(*places)
    assert set(SAME_AS.values()) <= READ | IMPLEMENTED.keys()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("is_decoder", True, "causal attention"),
        ("add_cross_attention", True, "states of an encoder"),
        ("pruned_heads", {"0": [1]}, "heads removed"),
        ("rope_scaling", {"type": "linear", "factor": 2.0}, "scaled rotary"),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 10000}, "rope_parameters = .*implemented: default"),
        ("rope_parameters", {"rope_type": "default", "rope_theta": 10000, "factor": 2.0}, "rope_parameters"),
        ("rope_parameters", {"rope_theta": 10000, "partial_rotary_factor": 0.5}, "rope_parameters"),
        ("rope_parameters", "default", "rope_parameters"),
        ("rope_theta", 1000.0, "rotary_emb_base is 10000"),
        ("quantization_config", {"load_in_8bit": True}, "quantized tensors: export the checkpoint"),
        ("per_layer_config", {"0": {"n_inner": 8}}, "different sizes"),
        ("hidden_size", 768, "n_embd is 48"),
        ("num_hidden_layers", 12, "n_layer is 4"),
        ("head_dim", 64, "n_embd / n_head is 12"),
        ("attention_window", 128, "an unknown field, which may change the network; remove it if it does not"),
        ("attention_window", 0, "an unknown field"),
        ("attention_window", "", "an unknown field"),
    ],
)
def test_fields_that_change_the_network(field, value, message):
    with pytest.raises(CheckpointError, match=message):
        NomicMoeConfig.from_dict(small_config(**{field: value}))


@pytest.mark.parametrize(
    "fields",
    [
        {"hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 4, "head_dim": 12, "intermediate_size": 80},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}},
        {"rope_parameters": None, "pruned_heads": {}, "is_decoder": None, "rope_scaling": None},
        {"attention_window": None, "another_flag": False},
        {"_attn_implementation_autoset": True, "gradient_checkpointing": True, "unsloth_version": "2025.1"},
    ],
)
def test_fields_that_change_nothing(fields):
    assert NomicMoeConfig.from_dict(small_config(**fields)) == NomicMoeConfig.from_dict(small_config())


def test_the_documentation_lists_every_field():
    text = DOCS.read_text("utf-8")

    def names(heading):
        section = text.partition(f"\n### {heading}\n")[2].partition("\n#")[0]
        return set(
            re.findall(r"`([^`\s]+)`", "\n".join(line.split("|")[1] for line in section.splitlines() if "|" in line))
        )

    assert names("Read") == READ
    assert names("Checked") == IMPLEMENTED.keys() | SAME_AS.keys() | DERIVED
    ignored = text.partition("\n### Ignored\n")[2].partition("\n#")[0]
    listed = {}
    for line in ignored.splitlines():
        if line.startswith("| ") and "`" in line:
            _, group, fields, _ = line.split("|")
            listed[group.strip()] = set(re.findall(r"`([^`]+)`", fields))
    assert listed == {group: set(fields.split()) for group, fields in IGNORED.items()}


# --- shards
