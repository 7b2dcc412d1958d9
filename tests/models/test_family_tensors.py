"""Tensors of every family: names, shapes and prefixes of a file, and what is optional in it."""

import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from moembed.errors import CheckpointError
from moembed.export.contents import check_tokenizer, described_tensors
from moembed.models.checkpoint import load_network, open_checkpoint
from moembed.models.locate import locate
from moembed.verify.parity import network_runner
from support.tiny_networks import BERT, GTE, TEXTS, tensors_of, write_tiny


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


@pytest.mark.parametrize("name", BERT)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop("encoder.layer.1.attention.self.key.bias"),
            "missing: encoder.layer.1.attention.self.key.bias",
        ),
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


# Tensor of another kind of model -> what it is.
FOREIGN = {
    "classifier.dense.weight": "a classifier or reranker",
    "score.weight": "a classifier or reranker",
    "cls.predictions.bias": "SPLADE",
    "lm_head.bias": "SPLADE",
    "linear.weight": "ColBERT, which makes a vector of every token",
    "encoder.layer.0.lora_A.weight": "merge it",
}


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize("tensor", FOREIGN)
def test_another_kind_of_model_is_recognized_by_its_tensors(name, tensor, prefix, tmp_path):
    """M08, M09, M10: `architectures` may say nothing, and the network may stand in a module of its own."""
    tensors = {prefix + key: values for key, values in tensors_of(name).items()}
    tensors[tensor] = np.zeros((4, 4), np.float32)
    folder = write_tiny(tmp_path / "other", name, tensors=tensors, architectures=None)
    with pytest.raises(CheckpointError, match=f"{tensor}: this is .*{FOREIGN[tensor]}"):
        load_network(folder)


def test_another_kind_of_model_is_recognized_in_the_first_family(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "other")
    tensors = load_file(folder / "model.safetensors") | {"classifier.weight": np.zeros((1, 48), np.float32)}
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="classifier.weight: this is a classifier or reranker"):
        load_network(folder)


@pytest.mark.parametrize("name", GTE)
def test_a_reranker_with_the_head_of_an_encoder_is_recognized(name, tmp_path):
    """M08: gte-multilingual-base has a tensor of the same name, and no pooler."""
    pooler = f"{'new.' if name == 'new' else ''}pooler.dense"
    head = {
        "classifier.weight": np.ones((1, 64), np.float32),
        "classifier.bias": np.ones(1, np.float32),
        f"{pooler}.weight": np.ones((64, 64), np.float32),
        f"{pooler}.bias": np.ones(64, np.float32),
    }
    folder = write_tiny(tmp_path / "other", name, tensors=tensors_of(name) | head, architectures=None)
    with pytest.raises(CheckpointError, match="this is a reranker, which scores pairs of texts"):
        load_network(folder)


@pytest.mark.parametrize("prefix", ["bert.", "0.auto_model.", "module.", "trunk.", "a.b-1.c."])
def test_names_behind_a_prefix_are_read(name, prefix, tiny, tmp_path):
    """M11: transformers would make every tensor random, with a line in a log."""
    tensors = {prefix + tensor: values for tensor, values in tensors_of(name).items()}
    folder = write_tiny(tmp_path / "other", name, tensors=tensors)
    with open_checkpoint(folder, "np") as (_, weights):
        assert weights.prefix == prefix + ("new." if name == "new" else "")
        assert described_tensors(weights).endswith(f"named behind {weights.prefix!r}")
    found, expected = (network_runner(load_network(path))(TEXTS["B"]).embedding for path in (folder, tiny[name]))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("prefix", ["bert.", "trunk."])
def test_names_of_which_half_have_a_prefix_are_told_in_one_line(prefix, tmp_path):
    """M11: not a list of what is missing and another of what is unexpected; also of tensors that may be there."""
    own = tensors_of("bert") | {"pooler.dense.bias": np.ones(64, np.float32)}
    names = sorted(own)
    tensors = {(prefix if i % 2 else "") + name: own[name] for i, name in enumerate(names)}
    folder = write_tiny(tmp_path / "other", "bert", tensors=tensors)
    with pytest.raises(CheckpointError) as error:
        load_network(folder)
    (line,) = str(error.value).splitlines()[1:]
    assert line.strip().startswith(f"{len(names) // 2} tensors have names behind {prefix!r}, and others have not")


def test_names_of_old_checkpoints_are_told_in_one_line(tmp_path):
    """M11: `gamma` and `beta`, as TensorFlow names them."""
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = tensors_of("bert")
    for current, former in old.items():
        tensors = {name.replace(current, former): values for name, values in tensors.items()}
    folder = write_tiny(tmp_path / "other", "bert", tensors=tensors)
    with pytest.raises(CheckpointError) as error:
        load_network(folder)
    (line,) = str(error.value).splitlines()[1:]
    assert "10 tensors have names of old checkpoints" in line
    assert "LayerNorm.beta for embeddings.LayerNorm.bias" in line


def test_a_token_beyond_the_table_is_refused(tiny, tmp_path):
    """M13: at once, and not at the first text that has it."""
    folder = shutil.copytree(tiny["bert"], tmp_path / "added")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([f"<entity {i}>" for i in range(129 - tokenizer.get_vocab_size())])
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="has 129 tokens, but the embedding table has 128 rows"):
        check_tokenizer(locate(folder))
