"""Files in place of the weights: the error names what was found and what to do."""

import re
import shutil

import pytest

from moembed.errors import CheckpointError, SourceError
from moembed.models.checkpoint import load_network
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
