"""Files in place of the weights: the error names what was found and what to do."""

import re
import shutil

import pytest
import torch
from safetensors.numpy import load_file, save_file

from moembed.bundle.bundle import Bundle
from moembed.errors import BundleError, CheckpointError, SourceError
from moembed.export.contents import described_tensors
from moembed.models.checkpoint import load_network, open_checkpoint
from moembed.models.locate import locate
from moembed.models.weights import WEIGHTS_FILE

OTHER = {
    "pytorch_model.bin": "a pickle, which is never loaded.*safe_serialization=True",
    "pytorch_model-00001-of-00002.bin": "a pickle",
    "pytorch_model.bin.index.json": "a pickle",
    "model.Q8_0.gguf": "a GGUF, which cannot be exported because it lacks the expert bias",
    "adapter_config.json": r"an adapter \(PEFT\).*merge_and_unload",
    "tf_model.h5": "weights of TensorFlow.*from_tf=True",
    "flax_model.msgpack": "weights of Flax.*from_flax=True",
    "onnx/model.onnx": "an ONNX graph, which cannot be made a bundle",
    "model.onnx": "an ONNX graph",
    "moembed.json": "the manifest of a bundle: it is already exported",
    "model-00001-of-00002.safetensors": "a shard without its model.safetensors.index.json",
    "model.fp16.safetensors": "a safetensors file of another name.*rename it",
    "checkpoint-500/model.safetensors": "a checkpoint in a subfolder: export that folder",
    "0_Transformer/model.safetensors.index.json": "a checkpoint in a subfolder",
    "last.ckpt": "a pickle",
}


@pytest.fixture
def without(checkpoint, tmp_path):
    """A folder with another file in place of the weights."""

    def make(name):
        folder = shutil.copytree(checkpoint, tmp_path / "other", ignore=lambda *_: [WEIGHTS_FILE])
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"{}")
        return folder

    return make


@pytest.mark.parametrize("name", OTHER)
def test_a_file_in_place_of_the_weights_is_named(without, name):
    folder = without(name)
    for read in (locate, load_network):
        with pytest.raises(CheckpointError, match=f"lacks {WEIGHTS_FILE}.*Found {re.escape(name)}: {OTHER[name]}"):
            read(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.Q8_0.gguf", "onnx/model.onnx"])
def test_a_file_in_place_of_the_weights_is_named_for_a_hub_name(hub, without, name):
    hub.add("acme/other", without(name))
    with pytest.raises(SourceError, match=f"holds no {WEIGHTS_FILE}. Found {re.escape(name)}: {OTHER[name]}"):
        locate("acme/other")


def test_a_repository_of_an_adapter_has_no_config(hub, tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    hub.add("acme/adapter", tmp_path)
    with pytest.raises(SourceError, match=r"holds no config.json. Found adapter_config.json: an adapter \(PEFT\)"):
        locate("acme/adapter")
    with pytest.raises(
        CheckpointError, match=r"lacks config.json, tokenizer.json, model.safetensors.*Found adapter_config"
    ):
        locate(tmp_path)


def test_a_missing_tokenizer_is_not_explained_by_the_weights(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "x", ignore=lambda *_: ["tokenizer.json"])
    with pytest.raises(CheckpointError, match=r"lacks tokenizer.json; a checkpoint has [^F]*$"):
        locate(folder)


def test_an_adapter_beside_weights_is_refused(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "x")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(
        CheckpointError, match="transformers would apply the adapter to them: merge it, or move it away"
    ):
        locate(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_git_lfs_pointer(name, checkpoint, tmp_path):
    """N47: a clone without Git LFS has a text in place of a large file."""
    folder = shutil.copytree(checkpoint, tmp_path / "clone")
    (folder / name).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1901141\n")
    with pytest.raises(CheckpointError, match=f"{name}.*It is a Git LFS pointer.*run git lfs pull"):
        load_network(locate(folder).folder)


def test_a_git_lfs_pointer_in_a_bundle(int8, tmp_path):
    folder = shutil.copytree(int8.folder, tmp_path / "clone")
    (folder / int8.manifest.graph).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(BundleError, match="It is a Git LFS pointer"):
        Bundle.open(folder)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_names_behind_a_prefix_of_a_wrapper(prefix, checkpoint, tmp_path):
    """N45: the prefix that all names share is taken off, and said."""
    folder = shutil.copytree(checkpoint, tmp_path / "wrapped")
    tensors = load_file(folder / "model.safetensors")
    save_file({prefix + name: tensor for name, tensor in tensors.items()}, folder / "model.safetensors")
    found, expected = load_network(folder).state_dict(), load_network(checkpoint).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    for path, said in ((folder, f", named behind {prefix!r}"), (checkpoint, "")):
        with open_checkpoint(path, "np") as (_, weights):
            assert described_tensors(weights) == f"{len(tensors)} float32{said}"


def test_names_behind_a_prefix_that_is_not_common(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "mixed")
    tensors = load_file(folder / "model.safetensors")
    renamed = {("" if name == "emb_ln.bias" else "module.") + name: tensor for name, tensor in tensors.items()}
    save_file(renamed, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as error:
        load_network(folder)
    (line,) = str(error.value).splitlines()[1:]
    assert line.strip() == (
        f"{len(tensors) - 1} tensors have names behind 'module.', and others have not: save the network inside this wrapper"
    )
