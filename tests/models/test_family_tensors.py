"""Tensors of every family: names, shapes and prefixes of a file, and what is optional in it."""

import shutil

import numpy as np
import pytest
from tokenizers import Tokenizer

from moembed.errors import CheckpointError
from moembed.export.contents import check_tokenizer
from moembed.models.checkpoint import load_network, open_checkpoint
from moembed.models.locate import locate
from moembed.verify.parity import network_runner
from support.tiny_networks import BERT, TEXTS, tensors_of, write_tiny


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
        (lambda t: t.update({"classifier.out_proj.weight": np.zeros((1, 4), np.float32)}), "classifier or reranker"),
        (lambda t: t.update({"cls.predictions.bias": np.zeros(4, np.float32)}), "SPLADE"),
        (lambda t: t.update({"linear.weight": np.zeros((4, 4), np.float32)}), "ColBERT"),
        (lambda t: t.update({"encoder.layer.0.lora_A.weight": np.zeros((4, 4), np.float32)}), "merge it"),
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


@pytest.mark.parametrize("prefix", ["bert.", "0.auto_model.", "module."])
def test_names_behind_a_prefix_are_read(prefix, tiny, tmp_path):
    """M11: transformers would make every tensor random, with a line in a log."""
    tensors = {prefix + tensor: values for tensor, values in tensors_of("bert").items()}
    folder = write_tiny(tmp_path / "other", "bert", tensors=tensors)
    with open_checkpoint(folder, "np") as (_, weights):
        assert weights.prefix == prefix
    found, expected = (network_runner(load_network(path))(TEXTS["B"]).embedding for path in (folder, tiny["bert"]))
    assert np.array_equal(found, expected)


def test_a_token_beyond_the_table_is_refused(tiny, tmp_path):
    """M13: at once, and not at the first text that has it."""
    folder = shutil.copytree(tiny["bert"], tmp_path / "added")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([f"<entity {i}>" for i in range(129 - tokenizer.get_vocab_size())])
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="has 129 tokens, but the embedding table has 128 rows"):
        check_tokenizer(locate(folder))
