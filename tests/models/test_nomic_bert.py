"""nomic-embed-text-v1 and -v1.5: which files they are, the LayerNorm of v1.5, lengths, and fields of transformers' own class."""

import json

import numpy as np
import pytest

from moembed.errors import CheckpointError
from moembed.models import spec as spec_module
from moembed.models.checkpoint import expected_tensors, parameter_count
from moembed.models.families import family_of_raw
from moembed.models.locate import locate
from moembed.models.nomic_bert.config import NomicBertConfig
from moembed.models.nomic_bert.fields import IGNORED, IMPLEMENTED, LAYER_NORM_SHA256, POSITIONS, READ, SAME_AS
from moembed.models.pooling import Pooling
from moembed.models.rotary import rotary_table
from moembed.models.spec import known_specs
from moembed.precision import shortened
from support.tiny_networks import NETWORKS, NOMIC, TEXTS, results, write_tiny
from support.tolerances import PUBLISHED_MAX_ABS

TINY = NETWORKS["nomic_dense"]["config"]
# Fields of the published config.json, and those of transformers' own class that one revision of v1.5 adds.
PUBLISHED = TINY | {
    "n_embd": 768,
    "n_head": 12,
    "n_inner": 3072,
    "n_layer": 12,
    "n_positions": 8192,
    "max_trained_positions": 2048,
    "vocab_size": 30528,
}
OF_TRANSFORMERS = {
    "hidden_act": "silu",
    "hidden_size": 768,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 2048,
    "rope_parameters": {"rope_theta": 1000.0, "rope_type": "default"},
    "head_dim": 64,
}
SPECS = {spec.name: spec for spec in known_specs()}
V1_5 = SPECS["nomic-embed-text-v1.5"]


@pytest.mark.parametrize(
    "more", [{}, OF_TRANSFORMERS, {"max_position_embeddings": 8192}], ids=["old", "both", "longer"]
)
def test_the_published_config_gives_the_published_network(more):
    config = NomicBertConfig.from_dict(PUBLISHED | more)
    assert config == NomicBertConfig(
        vocab_size=30528,
        hidden_size=768,
        num_layers=12,
        num_heads=12,
        ffn_size=3072,
        layer_norm_eps=1e-12,
        max_positions=8192,
        dtype="float32",
        rotary_base=1000.0,
        type_vocab_size=2,
        trained_positions=2048,
    )
    assert len(expected_tensors(config)) == 112
    assert parameter_count(config) == 136_731_648
    assert config.most_tokens == 2048


def test_unreachable_rows_of_the_vocabulary_are_padding():
    assert NomicBertConfig.from_dict(PUBLISHED | {"vocab_size": 30522}).vocab_size == 30528


def test_rotary_frequencies_are_those_of_the_published_models():
    """To the last bit, as torch computes them in float32."""
    config = NomicBertConfig.from_dict(PUBLISHED)
    _, sin = rotary_table(config.head_dim, config.rotary_base, 2)
    wanted = [float.fromhex(text) for text in ("0x1p+0", "0x1.9c975ap-1", "0x1.4c7bcp-1", "0x1.454deep-10")]
    assert np.array_equal(sin[1, [0, 1, 2, -1]], np.sin(wanted).astype(np.float32))


# --- the LayerNorm of v1.5


def test_the_digest_of_the_published_config_decides_about_the_layer_norm():
    assert V1_5.sha256["config.json"] in LAYER_NORM_SHA256
    assert (V1_5.pooled_layer_norm, SPECS["nomic-embed-text-v1"].pooled_layer_norm) == (True, False)
    for sha256 in LAYER_NORM_SHA256:
        assert NomicBertConfig.from_dict(PUBLISHED, sha256=sha256).pooled_layer_norm
        stated = NomicBertConfig.from_dict(PUBLISHED | {"pooled_layer_norm": False}, sha256=sha256)
        assert not stated.pooled_layer_norm
    assert not NomicBertConfig.from_dict(PUBLISHED, sha256="0" * 64).pooled_layer_norm
    assert NomicBertConfig.from_dict(PUBLISHED | {"pooled_layer_norm": True}).pooled_layer_norm


@pytest.mark.parametrize("name", NOMIC)
def test_weights_of_a_known_model_need_its_layer_norm(name, tmp_path, monkeypatch):
    """The published weights beside a config that was saved again: its digest says nothing any more."""
    folder = write_tiny(tmp_path / "saved", name)
    digest = {"model.safetensors": locate(folder).weights_sha256}
    known = spec_module.ModelSpec(
        name="v1.5", max_tokens=8, dims=(64,), prompts={}, prompt_required=False, pooled_layer_norm=True, sha256=digest
    )
    monkeypatch.setattr(spec_module, "known_specs", lambda: (known,))
    if name == "nomic_layer_norm":
        assert locate(folder).spec.pooled_layer_norm
    else:
        with pytest.raises(CheckpointError, match=r'add "pooled_layer_norm": true'):
            locate(folder)


@pytest.mark.parametrize("dim", [64, 32])
def test_the_layer_norm_is_over_all_dimensions_and_before_the_cut(dim, tiny):
    """M35: the runtime's cut of what the network gives is the published vector of that width."""
    (result,) = results(tiny["nomic_layer_norm"], TEXTS["A"])
    found = shortened(result.embedding[None].astype(np.float32), dim, normalize=True)[0]
    published = np.array(NETWORKS["nomic_dense"]["layer_norm_then_unit_A"][str(dim)])
    assert np.abs(found - published).max() < PUBLISHED_MAX_ABS
    (plain,) = results(tiny["nomic_dense"], TEXTS["A"])
    assert np.abs(found - shortened(plain.embedding[None], dim, normalize=True)[0]).max() > 1e-3


# --- lengths


@pytest.mark.parametrize(
    ("stated", "limit"), [(None, 16), (8, 8), (16, 16), (17, 16), (8192, 16)], ids=lambda value: str(value)
)
def test_no_text_is_longer_than_those_of_the_training(stated, limit, tmp_path):
    """M28: sentence-transformers' files of the published models say 8192."""
    folder = write_tiny(tmp_path / "limits", "nomic_dense")
    if stated is not None:
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": stated}))
    assert locate(folder).spec.max_tokens == limit


def test_without_a_length_of_the_training_the_positions_count():
    raw = {name: value for name, value in TINY.items() if name != "max_trained_positions"}
    assert NomicBertConfig.from_dict(raw).most_tokens == 32


# --- fields


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation_function": "geglu"}, "activation_function = 'geglu'"),
        ({"activation_function": "gelu"}, "nomic-embed-text-v2-moe, which has num_experts"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"qkv_proj_bias": True}, "attention with biases"),
        ({"mlp_fc1_bias": True}, "mlp_fc1_bias"),
        ({"mlp_fc2_bias": True}, "mlp_fc2_bias"),
        ({"moe_every_n_layers": 2}, "num_experts is missing"),
        ({"rotary_scaling_factor": 2}, "dynamic-NTK"),
        ({"rotary_emb_fraction": 0.5}, "partly rotated"),
        ({"rotary_emb_interleaved": True}, "interleaved"),
        ({"rotary_emb_scale_base": 512}, "XPos"),
        ({"prenorm": True}, "before instead of after"),
        ({"causal": True}, "causal"),
        ({"parallel_block": True}, "side by side"),
        ({"parallel_block_tied_norm": True}, "shared by a parallel block"),
        ({"use_rms_norm": True}, "RMSNorm"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scaled by layer"),
        ({"architectures": ["NomicBertForSequenceClassification"]}, "reranker"),
        ({"architectures": ["NomicBertForPreTraining"]}, "language model"),
        ({"hidden_size": 768}, "n_embd is 64"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_epsilon is 1e-12"),
        ({"max_position_embeddings": 512}, "max_trained_positions is 16 and n_positions 32"),
        ({"rope_theta": 7777}, "rotary_emb_base is 1000"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 7777}}, "of rotary_emb_base = 1000"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1000, "factor": 2}}, "implemented: default"),
        ({"n_head": 5}, "n_embd = 64 is not a multiple of n_head = 5"),
        ({"n_head": 64}, "odd"),
        ({"type_vocab_size": 0}, "type_vocab_size"),
        ({"window_attention": 128}, "an unknown field"),
    ],
)
def test_unimplemented_configs_are_refused_by_field(change, message, tmp_path):
    folder = write_tiny(tmp_path / "other", "nomic_dense", **change)
    with pytest.raises(CheckpointError, match=message):
        locate(folder)


@pytest.mark.parametrize("field", ["prenorm", "qkv_proj_bias", "rotary_emb_base", "n_embd", "activation_function"])
def test_a_missing_field_is_not_guessed(field):
    """M29: also if transformers' own field beside it says the same."""
    raw = {name: value for name, value in (PUBLISHED | OF_TRANSFORMERS).items() if name != field}
    with pytest.raises(CheckpointError, match=field):
        NomicBertConfig.from_dict(raw)


def test_what_transformers_saves_is_the_same_checkpoint(tmp_path):
    """Its own class keeps the fields of the file and adds its own; tensors get their published names again."""
    transformers = pytest.importorskip("transformers", minversion="5")
    folder = write_tiny(tmp_path / "first", "nomic_dense")
    family = family_of_raw(TINY)
    (folder / "config.json").write_text(json.dumps(family.common_names(TINY)))
    saved = write_tiny(tmp_path / "saved", "nomic_dense")
    transformers.AutoModel.from_pretrained(folder).save_pretrained(saved)
    written = json.loads((saved / "config.json").read_text())
    assert written["max_position_embeddings"] == 16
    assert family.read_config(written, Pooling.MEAN, "") == family.read_config(TINY, Pooling.MEAN, "")
    (found,), (expected,) = (results(path, TEXTS["C"]) for path in (saved, folder))
    assert np.array_equal(found.embedding, expected.embedding)


def test_every_field_has_one_place():
    places = [READ, IMPLEMENTED.keys(), SAME_AS.keys(), IGNORED - {"architectures"}, {POSITIONS}]
    assert len(set().union(*places)) == sum(map(len, places))
