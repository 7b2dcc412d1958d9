"""Renewal of a bundle from its own integers: the same weights, today's operators, a new certificate, zeroed outputs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from moembed import Embedder
from moembed.bundle.bundle import Bundle
from moembed.errors import InputError
from moembed.evaluation.certify import certify_sets
from moembed.export.pipeline import export
from moembed.models.locate import locate
from moembed.quantize.pipeline import quantize
from moembed.train.recipe import load_recipe
from moembed.train.release import card, renew
from moembed.train.release.zeroed import zero_outputs, zero_outputs_of_checkpoint
from support.checkpoints import small_config, write_checkpoint

SETS = ("one.jsonl", "two.jsonl")
PAIRS = [("a cat", "the cat", 5), ("a dog", "a house", 1), ("rain", "snow", 3), ("one", "two", 2)]
TEXTS = ["query: where is it", "passage: here", "passage: " + "a longer text " * 9]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name in SETS:
        lines = [json.dumps({"sentence1": a, "sentence2": b, "score": s}) for a, b, s in PAIRS]
        (folder / name).write_text("\n".join(lines), "utf-8")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory, data):
    """A small INT8 bundle with a projection and figures on both sets."""
    folder = tmp_path_factory.mktemp("made")
    checkpoint = write_checkpoint(folder / "small", small_config(n_embd=64, n_layer=2, projection=True))
    fp32 = export(locate(checkpoint), folder / "fp32")
    int8 = quantize(fp32, folder / "int8")
    certify_sets(SETS, data, Embedder(int8), Embedder(fp32), log=lambda _: None)
    return int8.folder


@pytest.fixture
def certified(tmp_path, made):
    return Bundle.open(shutil.copytree(made, tmp_path / "int8"))


@pytest.fixture
def card_dir(tmp_path):
    folder = tmp_path / "card"
    folder.mkdir()
    (folder / card.CARD_FILE).write_text(
        "before\n\n| set | figure | value | INT8 |\n|---|---|---|---|\n| old | x | 1 | +0 |\n\nafter\n"
    )
    return folder


def _recipe(*outputs: int):
    recipe = load_recipe("default")
    return replace(recipe, projection=replace(recipe.projection, zeroed_outputs=outputs))


def _renew(bundle: Bundle, data: Path, tmp_path: Path, card_dir: Path, *outputs: int) -> Bundle:
    return renew.renew(
        bundle, _recipe(*outputs), data=data, work=tmp_path / "work", card_dir=card_dir, log=lambda _: None
    )


def test_weights_and_vectors_stay(certified, data, tmp_path, card_dir):
    before = Embedder(certified).encode(TEXTS, prompt="")
    weights = (certified.folder / "onnx/model_int8.onnx_data").read_bytes()
    renewed = _renew(certified, data, tmp_path, card_dir)
    assert Embedder(renewed).encode(TEXTS, prompt="").tobytes() == before.tobytes()
    assert (renewed.folder / "onnx/model_int8.onnx_data").read_bytes() == weights
    reference = Bundle.open(tmp_path / "work" / f"{certified.manifest.name}-fp32")
    certificate = renewed.manifest.certificate
    assert certificate.reference.sha256 == reference.fingerprint != certified.manifest.certificate.reference.sha256
    assert certificate.quality.keys() == set(SETS)
    assert renewed.manifest.source == certified.manifest.source
    text = (card_dir / card.CARD_FILE).read_text("utf-8")
    assert text.startswith("before\n\n| set |")
    assert text.endswith("\n\nafter\n")
    assert "| one.jsonl | Spearman |" in text
    assert "old" not in text


def test_zeroed_outputs_are_zero_and_the_others_stay(certified, data, tmp_path, card_dir):
    before = Embedder(certified).encode(TEXTS, prompt="")
    after = Embedder(_renew(certified, data, tmp_path, card_dir, 3, 40)).encode(TEXTS, prompt="")
    assert (after[:, [3, 40]] == 0).all()
    before[:, [3, 40]] = 0
    before /= np.linalg.norm(before, axis=1, keepdims=True)
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_an_interrupted_run_goes_on(certified, data, tmp_path, card_dir, monkeypatch):
    measured = []

    def interrupted(names, *arguments, **options):
        measured.append(list(names))
        certify_sets(names[:1], *arguments, **options)
        raise KeyboardInterrupt

    before = (certified.folder / "moembed.json").read_bytes()
    monkeypatch.setattr(renew, "certify_sets", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _renew(certified, data, tmp_path, card_dir)
    assert (certified.folder / "moembed.json").read_bytes() == before
    with pytest.raises(KeyboardInterrupt):
        _renew(certified, data, tmp_path, card_dir)
    assert measured == [list(SETS), list(SETS[1:])]
    found = Bundle.open(tmp_path / "work" / f"{certified.manifest.name}-int8")
    assert found.manifest.certificate.quality.keys() == set(SETS)


def test_a_checkpoint_is_shipped_without_its_zeroed_outputs(tmp_path):
    tensors = {"projection.weight": np.ones((4, 4), np.float16), "projection.bias": np.ones(4, np.float16)}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "recipe.json").write_text('{"sha256": "0", "seed": 4}')
    zero_outputs_of_checkpoint(tmp_path, [1])
    found = load_file(tmp_path / "model.safetensors")
    assert found["projection.weight"].sum(1).tolist() == [4, 0, 4, 4]
    assert found["projection.bias"].tolist() == [1, 0, 1, 1]
    report = json.loads((tmp_path / "recipe.json").read_text())
    assert report["seed"] == 4
    assert len(report["sha256"]) == 64


@pytest.mark.parametrize(("names", "outputs"), [(["projection.weight"], [4]), (["projection.weight"], [-1]), ([], [0])])
def test_outputs_that_are_not_there_are_refused(names, outputs):
    with pytest.raises(
        InputError, match=rf"zeroed_outputs has {outputs[0]}, but projection.weight has {4 * len(names)} outputs"
    ):
        zero_outputs({name: np.ones((4, 4), np.float32) for name in names}, outputs)
