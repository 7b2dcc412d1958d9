"""Other loaders and the small files of a bundle: no remote code is requested, and sizes are read correctly."""

import json
import shutil
from pathlib import Path

import pytest

from moembed.bundle.bundle import read_manifest
from moembed.errors import CheckpointError
from moembed.models.families import family_of_raw
from moembed.models.interop_files import copy_interop_file
from moembed.models.locate import OPTIONAL_FILES
from moembed.models.nomic_bert_moe.config import NomicMoeConfig
from moembed.pull.opening import DEFAULT_FOLDER
from support.checkpoints import PUBLISHED_CONFIG, small_config

CODE = ("auto_map", "custom_pipelines", "custom_generate", "trust_remote_code")
REMOTE = {"AutoTokenizer": ["acme/code--tokenization.Tokenizer", None], "AutoConfig": "acme/code--configuration.Config"}


def copied(tmp_path: Path, name: str, content: object) -> bytes:
    source, target = tmp_path / "source.json", tmp_path / "target.json"
    source.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    copy_interop_file(source, target, name=name)
    return target.read_bytes()


@pytest.fixture(params=["built-in", "exported", "quantized"])
def folder(request) -> Path:
    """A bundle; the last two of a checkpoint whose config.json has the published `auto_map`."""
    if request.param == "built-in":
        return DEFAULT_FOLDER
    return request.getfixturevalue({"exported": "bundle", "quantized": "int8"}[request.param]).folder


def test_no_file_of_a_bundle_names_code(folder):
    assert "auto_map" in small_config(), "otherwise this test could not fail"
    for path in folder.rglob("*.json"):
        text = path.read_text("utf-8")
        assert not [word for word in CODE if f'"{word}"' in text], path


def test_config_of_a_bundle_has_the_sizes_under_both_names(folder):
    raw = json.loads((folder / "config.json").read_text("utf-8"))
    assert raw["hidden_size"] == raw["n_embd"] == read_manifest(folder).hidden_size
    NomicMoeConfig.from_dict(raw)


def test_transformers_reads_the_right_numbers(folder):
    transformers = pytest.importorskip("transformers", minversion="5")
    raw = json.loads((folder / "config.json").read_text("utf-8"))
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    assert type(config).__name__ == "NomicBertConfig"
    assert config.hidden_size == read_manifest(folder).hidden_size
    assert (config.num_hidden_layers, config.num_attention_heads) == (raw["n_layer"], raw["n_head"])
    assert (config.intermediate_size, config.max_position_embeddings) == (raw["n_inner"], raw["n_positions"])
    assert (config.layer_norm_eps, config.hidden_act) == (raw["layer_norm_epsilon"], "gelu")
    assert config.head_dim == raw["n_embd"] // raw["n_head"]
    assert config.rope_parameters["rope_theta"] == raw["rotary_emb_base"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    assert tokenizer("hello")["input_ids"][0] == tokenizer.bos_token_id


@pytest.mark.parametrize("name", OPTIONAL_FILES)
@pytest.mark.parametrize("field", CODE)
def test_code_is_dropped_from_every_file_at_any_depth(field, name, tmp_path):
    inner = {"keep": 1, "model_args": {field: REMOTE, "dtype": "float32"}, field: REMOTE}
    found = json.loads(copied(tmp_path, name, [inner] if name == "modules.json" else inner))
    expected = {"keep": 1, "model_args": {"dtype": "float32"}}
    assert found == ([expected] if name == "modules.json" else expected)


def test_modules_get_the_classes_of_sentence_transformers(tmp_path):
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "acme_code.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    found = json.loads(copied(tmp_path, "modules.json", modules))
    assert [module["type"] for module in found] == [
        "sentence_transformers.models.Transformer",
        "sentence_transformers.models.Pooling",
        "sentence_transformers.models.Normalize",
    ]


def test_a_file_that_is_safe_keeps_its_bytes(tmp_path):
    text = '{ "model_max_length":512,\n "bos_token" : "é" }'
    assert copied(tmp_path, "tokenizer_config.json", text) == text.encode()
    shutil.copyfile(DEFAULT_FOLDER / "config.json", tmp_path / "config.json")
    assert (
        copied(tmp_path, "config.json", (tmp_path / "config.json").read_text("utf-8"))
        == (DEFAULT_FOLDER / "config.json").read_bytes()
    )


def test_contradicting_sizes_are_corrected():
    """transformers 5 writes its defaults for the fields that it did not find."""
    found = family_of_raw(PUBLISHED_CONFIG).common_names(
        PUBLISHED_CONFIG | {"n_embd": 384, "hidden_size": 768, "max_position_embeddings": 512}
    )
    assert (found["hidden_size"], found["max_position_embeddings"]) == (384, 2048)


@pytest.mark.parametrize("content", ["{", "[]", "7"])
def test_malformed_json_is_refused(content, tmp_path):
    with pytest.raises(CheckpointError, match=r"source\.json"):
        copied(tmp_path, "tokenizer_config.json", content)
