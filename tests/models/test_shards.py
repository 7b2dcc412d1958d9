"""Weights in several files and other dtypes: the same network, or an error that names the file."""

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file, save_file

from moembed.errors import CheckpointError, SourceError
from moembed.models.checkpoint import load_network, open_checkpoint, stored_dtypes
from moembed.models.locate import locate
from moembed.models.oracle import Oracle
from moembed.models.weights import INDEX_FILE, WEIGHTS_FILE, find_weights
from support.checkpoints import published_spec, small_config, write_checkpoint


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small checkpoint in one file."""
    return write_checkpoint(tmp_path_factory.mktemp("whole") / "small", small_config(n_layer=2))


def in_shards(whole, folder, tensors=None, size="1MB"):
    """The checkpoint in shards, split by the library that transformers 5 splits with."""
    shutil.copytree(whole, folder)
    tensors = tensors or load_file(whole / WEIGHTS_FILE)
    (folder / WEIGHTS_FILE).unlink()
    save_torch_state_dict(tensors, folder, max_shard_size=size)
    return folder


@pytest.fixture(scope="module")
def shards(whole, tmp_path_factory):
    """The same in shards; not to be changed."""
    folder = in_shards(whole, tmp_path_factory.mktemp("shards") / "sharded")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1
    return folder


@pytest.fixture
def altered(shards, tmp_path):
    return shutil.copytree(shards, tmp_path / "altered")


def same(a, b):
    one, other = load_network(a).state_dict(), load_network(b).state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_shards_are_the_same_network(whole, shards):
    assert same(whole, shards)
    one, other = Oracle(whole), Oracle(shards)
    assert np.array_equal(one.run([0, 5, 6, 2]).embedding, other.run([0, 5, 6, 2]).embedding)
    one.close()
    other.close()


def test_the_digest_of_shards_is_that_of_their_list(shards):
    found = locate(shards)
    paths = sorted(shards.glob("model-*.safetensors"))
    # What `sha256sum model-*-of-*.safetensors` prints, in the order of the names.
    listed = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in paths)
    assert found.weights_sha256 == hashlib.sha256(listed.encode()).hexdigest()
    assert found.weights_size == sum(path.stat().st_size for path in paths)


def test_one_file_wins_over_shards(whole, altered):
    shutil.copyfile(whole / WEIGHTS_FILE, altered / WEIGHTS_FILE)
    assert locate(altered).weights_sha256 == locate(whole).weights_sha256
    assert find_weights(altered).index is None


def first(folder):
    return min(folder.glob("model-*.safetensors"))


def last(folder):
    return max(folder.glob("model-*.safetensors"))


def edit_index(folder, change):
    raw = json.loads((folder / INDEX_FILE).read_text())
    change(raw["weight_map"])
    (folder / INDEX_FILE).write_text(json.dumps(raw))


def move(tensor, file):
    return lambda folder: edit_index(folder, lambda files: files.__setitem__(tensor, file(folder).name))


def add_twice(folder):
    tensors = load_file(first(folder))
    tensors["emb_ln.bias"] = torch.zeros(48)
    save_file(tensors, first(folder))


def cut(folder):
    last(folder).write_bytes(last(folder).read_bytes()[:1000])


def named(name):
    return lambda folder: edit_index(folder, lambda files: files.__setitem__("emb_ln.bias", name))


WORDS = "embeddings.word_embeddings.weight"
DAMAGE = {
    "missing": (
        lambda folder: last(folder).unlink(),
        r"lacks model-\d+-of-\d+.safetensors, which model.safetensors.index",
    ),
    "cut": (cut, "not a readable safetensors file"),
    "moved": (
        move("emb_ln.bias", first),
        r"places emb_ln.bias in model-\S+, but it is in model-.*different checkpoints",
    ),
    "moved away": (move(WORDS, last), f"places {WORDS} in model-.*, but it is in none of its files"),
    "in two": (add_twice, "emb_ln.bias is in both model-.* and model-"),
    "unlisted": (
        lambda folder: edit_index(folder, lambda files: files.pop("emb_ln.bias")),
        "places emb_ln.bias in none of its files, but it is in model-",
    ),
    "not there": (named("model-00009.safetensors"), "lacks model-00009.safetensors"),
    "parent": (named("../small/model.safetensors"), "expected the name of a .safetensors file beside the index"),
    "absolute": (named("/etc/passwd"), "expected the name of"),
    "backslash": (named("..\\x.safetensors"), "expected the name of"),
    "pickle": (named("pytorch_model.bin"), "expected the name of"),
    "number": (named(5), "is 5; expected the name of"),
    "no JSON": (lambda folder: (folder / INDEX_FILE).write_bytes(b"\xff" * 10**5), "not a readable index"),
    "a list": (lambda folder: (folder / INDEX_FILE).write_text("[]"), "weight_map is not an object"),
    "no map": (lambda folder: (folder / INDEX_FILE).write_text("{}"), "weight_map is not an object"),
    "empty": (lambda folder: (folder / INDEX_FILE).write_text('{"weight_map": {}}'), "weight_map is not an object"),
    "deep": (lambda folder: (folder / INDEX_FILE).write_text("[" * 10**5), "not a readable index"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_shards_are_refused(altered, kind):
    damage, message = DAMAGE[kind]
    damage(altered)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_network(locate(altered).folder)
    assert len(str(caught.value)) < 1000


def test_shards_by_hub_name(hub, shards):
    commit = hub.add("acme/sharded", shards)
    found = locate("acme/sharded")
    assert (found.spec.repo, found.spec.revision, found.weights_sha256) == (
        "acme/sharded",
        commit,
        locate(shards).weights_sha256,
    )
    asked = {request.path for request in hub.requests + hub.stored if request.method == "GET" and request.status == 200}
    assert asked >= {path.name for path in shards.glob("model*")}
    assert same(found.folder, shards)
    hub.stop()
    assert locate("acme/sharded", local_files_only=True) == found


def test_shards_that_an_index_names_elsewhere_are_not_fetched(hub, altered):
    named("../../secrets.safetensors")(altered)
    hub.add("acme/hostile", altered)
    with pytest.raises(CheckpointError, match="expected the name of"):
        locate("acme/hostile")
    assert not any("secrets" in request.path for request in hub.requests)


def test_a_hub_name_with_one_file_and_shards_gives_the_one_file(hub, whole, altered):
    shutil.copyfile(whole / WEIGHTS_FILE, altered / WEIGHTS_FILE)
    hub.add("acme/both", altered)
    assert locate("acme/both").weights_sha256 == locate(whole).weights_sha256
    assert not any(request.path.startswith("model-") for request in hub.requests)


def test_a_shard_that_the_hub_lacks_is_named(hub, altered):
    lost = last(altered)
    lost.unlink()
    hub.add("acme/lost", altered)
    with pytest.raises(SourceError, match=f"holds no {lost.name}"):
        locate("acme/lost")


def test_the_pinned_model_has_one_file_whose_digest_is_known(hub, shards, monkeypatch):
    """Shards under the published name do not bypass the digest."""
    published = replace(published_spec(), sha256={WEIGHTS_FILE: published_spec().sha256[WEIGHTS_FILE]})
    monkeypatch.setattr("moembed.models.locate.known_specs", lambda: (published,))
    hub.add(published.repo, shards, commit=published.revision)
    with pytest.raises(SourceError, match=f"holds no {WEIGHTS_FILE}"):
        locate(published.repo)


# --- dtypes


def cast(tensors, *dtypes):
    return {name: tensor.to(dtypes[i % len(dtypes)]) for i, (name, tensor) in enumerate(sorted(tensors.items()))}


@pytest.mark.parametrize("stated", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    "stored", [(torch.float16,), (torch.bfloat16,), (torch.float32, torch.bfloat16, torch.float16)], ids=str
)
def test_tensors_of_other_dtypes_than_the_config_says(whole, tmp_path, stated, stored):
    folder = shutil.copytree(whole, tmp_path / "cast")
    tensors = cast(load_file(whole / WEIGHTS_FILE), *stored)
    save_file(tensors, folder / WEIGHTS_FILE)
    (folder / "config.json").write_text(json.dumps(small_config(n_layer=2, torch_dtype=stated)))
    network = load_network(folder).state_dict()
    for name, tensor in tensors.items():
        assert network[name].dtype == torch.float32
        assert torch.equal(network[name], tensor.float()), "float32 holds every value of the others"
    counts = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())
    with open_checkpoint(folder, "np") as (_, weights):
        assert stored_dtypes(weights) == ", ".join(f"{count} {dtype}" for dtype, count in sorted(counts.items()))


def test_the_oracle_reads_every_dtype_as_the_network_does(whole, tmp_path):
    folder = in_shards(whole, tmp_path / "s", cast(load_file(whole / WEIGHTS_FILE), torch.bfloat16, torch.float16))
    wide = shutil.copytree(whole, tmp_path / "wide")
    save_file(
        {name: value.contiguous() for name, value in load_network(folder).state_dict().items()}, wide / WEIGHTS_FILE
    )
    one, other = Oracle(folder), Oracle(wide)
    assert np.array_equal(one.run([0, 5, 6, 2]).embedding, other.run([0, 5, 6, 2]).embedding)
    one.close()
    other.close()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.float64, torch.uint8])
def test_tensors_of_quantized_dtypes_are_refused_by_name(whole, tmp_path, dtype):
    folder = shutil.copytree(whole, tmp_path / "cast")
    tensors = load_file(whole / WEIGHTS_FILE)
    tensors["encoder.layers.0.mlp.fc1.weight"] = tensors["encoder.layers.0.mlp.fc1.weight"].to(dtype)
    save_file(tensors, folder / WEIGHTS_FILE)
    with pytest.raises(
        CheckpointError, match=r"layers.0.mlp.fc1.weight: its dtype is \w+, expected one of F32, F16, BF16"
    ):
        load_network(folder)


def dtypes_in(bundle):
    import onnx

    properties = onnx.load(bundle.graph, load_external_data=False).metadata_props
    return {entry.key: entry.value for entry in properties}["moembed.weights_dtypes"]


def test_a_bundle_records_the_dtypes_of_its_checkpoint(bundle):
    assert dtypes_in(bundle) == "52 float32"


@pytest.mark.long
def test_shards_in_half_precision_become_a_bundle(whole, tmp_path):
    from moembed.export.pipeline import export

    folder = in_shards(whole, tmp_path / "s", cast(load_file(whole / WEIGHTS_FILE), torch.bfloat16))
    messages = []
    bundle = export(locate(folder), tmp_path / "bundle", log=messages.append)
    assert any("(tensors: 28 bfloat16)" in line for line in messages)
    assert dtypes_in(bundle) == "28 bfloat16"
    source, reference = bundle.manifest.source, bundle.manifest.certificate.reference
    assert source.weights_sha256 == reference.sha256 == locate(folder).weights_sha256
    assert reference.size == locate(folder).weights_size


# --- other files
