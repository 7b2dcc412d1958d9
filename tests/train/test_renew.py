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
from moembed.train.recipe import load_recipe
from moembed.train.release import card, renew
from moembed.train.release.whitening import is_whitened, whiten, whiten_checkpoint

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
def made(tmp_path_factory, data, projected_bundles):
    """A small INT8 bundle with a projection and figures on both sets."""
    fp32, int8 = map(projected_bundles, ("fp32", "int8"))
    own = Bundle.open(shutil.copytree(int8.folder, tmp_path_factory.mktemp("made") / "int8"))
    certify_sets(SETS, data, Embedder(own), Embedder(fp32), log=lambda _: None)
    return own.folder


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


@pytest.fixture(scope="module")
def training_texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    words = "a cat and the dog see rain or snow in one house of two".split()
    rng = np.random.default_rng(0)
    lines = [
        json.dumps({"l": "en", "t": " ".join(rng.choice(words, 8)) + f" {number}", "k": "qd"[number % 2]})
        for number in range(300)
    ]
    path.write_text("\n".join(lines), "utf-8")
    return path


def _recipe(*outputs: int, whitening: float = 0.0):
    recipe = load_recipe("default")
    return replace(recipe, projection=replace(recipe.projection, zeroed_outputs=outputs, whitening=whitening))


def _renew(bundle: Bundle, data: Path, tmp_path: Path, card_dir: Path, *outputs: int, **options) -> Bundle:
    recipe, work = _recipe(*outputs, whitening=options.pop("whitening", 0.0)), tmp_path / "work"
    return renew.renew(bundle, recipe, data=data, work=work, card_dir=card_dir, log=lambda _: None, **options)


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


def _spread(embedder: Embedder, texts: Path, kept: list[int]) -> float:
    """Ratio of the largest variance to the mean one, over directions of the pooled outputs."""
    rows = [json.loads(line)["t"] for line in texts.read_text("utf-8").splitlines()]
    pooled = np.stack([states.mean(0) for states in embedder.token_embeddings(rows, prompt="")])[:, kept]
    variances = np.linalg.eigvalsh(np.cov(pooled, rowvar=False))
    return variances[-1] / variances.mean()


def test_outputs_are_zeroed_and_whitened_once(certified, data, tmp_path, card_dir, training_texts, monkeypatch):
    kept = [number for number in range(64) if number not in (3, 40)]
    before = Embedder(certified)
    spread, scale = _spread(before, training_texts, kept), before.int8_scale()
    renewed = _renew(certified, data, tmp_path, card_dir, 3, 40, whitening=0.5, texts=[training_texts])
    after = Embedder(renewed)
    vectors = after.encode(TEXTS, prompt="")
    assert (vectors[:, [3, 40]] == 0).all()
    assert _spread(after, training_texts, kept) < spread**0.75
    assert after.int8_scale() != scale
    reference = Embedder(Bundle.open(tmp_path / "work" / f"{renewed.manifest.name}-fp32")).encode(TEXTS, prompt="")
    assert (vectors * reference).sum(1).min() > 0.99
    graph = (renewed.folder / "onnx/model_int8.onnx").read_bytes()
    measured = []
    monkeypatch.setattr(renew, "certify_sets", lambda names, *_, **__: measured.append(list(names)))
    again = _renew(renewed, data, tmp_path / "again", card_dir, 3, 40, whitening=0.5)  # it needs no texts
    assert measured == [[]]  # the vectors keep their bytes, so the figures hold
    assert again.manifest.certificate.quality.keys() == set(SETS)
    assert (again.folder / "onnx/model_int8.onnx").read_bytes() == graph
    assert Embedder(again).encode(TEXTS, prompt="").tobytes() == vectors.tobytes()


def test_whitening_needs_texts(certified, data, tmp_path, card_dir):
    before = (certified.folder / "moembed.json").read_bytes()
    with pytest.raises(InputError, match=r"not whitened yet: pass training texts with --texts"):
        _renew(certified, data, tmp_path, card_dir, 3, whitening=0.5)
    assert (certified.folder / "moembed.json").read_bytes() == before


def test_full_whitening_makes_all_directions_alike():
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((4000, 6)) * [9, 5, 3, 2, 1, 1]
    weight, bias = rng.standard_normal((6, 6)).astype(np.float32), np.ones(6, np.float32)
    recipe = _recipe(2, whitening=1.0).projection
    found, shift = whiten(weight, bias, recipe, np.cov(inputs @ weight.T, rowvar=False))
    outputs = np.cov(inputs @ found.T, rowvar=False)
    assert not found[2].any()
    assert shift[2] == 0
    kept = [0, 1, 3, 4, 5]
    expected = np.trace(np.cov(inputs @ weight.T, rowvar=False)[np.ix_(kept, kept)]) / 5
    np.testing.assert_allclose(outputs[np.ix_(kept, kept)], expected * np.eye(5), atol=expected * 1e-3)


def test_without_whitening_the_other_outputs_stay():
    weight, bias = np.arange(9, dtype=np.float32).reshape(3, 3), np.ones(3, np.float32)
    found, shift = whiten(weight, bias, _recipe(1).projection, np.diag([1.0, 2, 3]))
    np.testing.assert_allclose(found, weight * [[1], [0], [1]], atol=1e-6)
    np.testing.assert_allclose(shift, [1, 0, 1], atol=1e-6)


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
    whiten_checkpoint(tmp_path, _recipe(1).projection, np.eye(4))
    found = load_file(tmp_path / "model.safetensors")
    assert found["projection.weight"].dtype == np.float16
    assert found["projection.weight"].sum(1).tolist() == [4, 0, 4, 4]
    assert found["projection.bias"].tolist() == [1, 0, 1, 1]
    report = json.loads((tmp_path / "recipe.json").read_text())
    assert report["seed"] == 4
    assert len(report["sha256"]) == 64


@pytest.mark.parametrize("output", [4, -1])
def test_outputs_that_are_not_there_are_refused(output):
    weight, bias = np.ones((4, 4), np.float32), np.ones(4, np.float32)
    with pytest.raises(InputError, match=rf"zeroed_outputs has {output}, but projection.weight has 4 outputs"):
        whiten(weight, bias, _recipe(output).projection, np.eye(4))


def test_a_model_without_a_projection_is_refused(tmp_path):
    save_file({"x": np.ones(1, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"zeroed_outputs = \[0\], but the model has no projection.weight"):
        whiten_checkpoint(tmp_path, _recipe(0).projection, np.eye(4))


def test_whitening_without_zeroed_outputs_is_refused():
    with pytest.raises(InputError, match="whitening without zeroed_outputs"):
        is_whitened(np.ones((4, 4), np.float32), np.ones(4, np.float32), _recipe(whitening=0.5).projection)
