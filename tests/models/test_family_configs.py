"""`config.json` of every family: what is not implemented is refused by field, and nothing is guessed."""

import json
import re

import pytest

from moembed.errors import CheckpointError
from moembed.models.bert import fields as bert_fields
from moembed.models.families import family_of_raw
from moembed.models.gte import fields as gte_fields
from moembed.models.locate import locate
from moembed.models.nomic_bert import fields as nomic_fields
from moembed.models.pooling import Pooling
from support.folders import TESTS
from support.tiny_networks import BERT, GTE, NETWORKS, write_tiny


@pytest.mark.parametrize("name", BERT)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "gelu_new"}, "hidden_act = 'gelu_new'"),
        ({"hidden_act": "gelu_pytorch_tanh"}, "approximate GELU by tanh"),
        ({"hidden_act": "gelu_fast"}, "approximate GELU by tanh"),
        ({"hidden_act": "quick_gelu"}, "hidden_act = 'quick_gelu'"),
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
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 7777}}, "transformers' own class"),
        (
            {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 160000}},
            "transformers' own class",
        ),
        ({"rope_theta": None}, "rope_theta"),
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


@pytest.mark.parametrize(
    ("name", "pad", "first"),
    [("xlm_roberta", 1, 2), ("xlm_roberta", 3, 4), ("xlm_roberta", 0, 1), ("bert", 0, 0), ("bert", 1, 0)],
)
@pytest.mark.parametrize("stated", [None, 16, 34, 1024])
def test_the_first_position_and_the_limit(name, pad, first, stated, tmp_path):
    """M24, M15: positions start behind pad_token_id in XLM-RoBERTa alone, and the rows before them are no room for a text."""
    folder = write_tiny(tmp_path / "other", name, pad_token_id=pad, max_position_embeddings=34)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": stated}))
    found = locate(folder)
    assert (found.config.first_position, found.config.max_positions) == (first, 34 - first)
    assert found.spec.max_tokens == min(stated or 34, 34 - first)


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


@pytest.mark.parametrize(
    ("title", "fields", "checked"),
    [
        ("BERT", bert_fields, set()),
        ("GTE", gte_fields, {gte_fields.ROPE_SCALING}),
        ("NomicBert", nomic_fields, {*nomic_fields.SAME_AS, *nomic_fields.DERIVED, nomic_fields.POSITIONS}),
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
