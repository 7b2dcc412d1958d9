"""The model card and the shipping of a checkpoint: figures from the certificate, expert loads, and refused inputs."""

import itertools
import json
import math
import re
from dataclasses import asdict
from importlib import resources

import numpy as np
import pytest

from moembed import Embedder
from moembed.bundle.bundle import Bundle
from moembed.cli import main
from moembed.errors import InputError
from moembed.pull.opening import DEFAULT_FOLDER
from moembed.train.recipe import load_recipe
from moembed.train.release import card
from moembed.verify.probes import probe_texts
from support.folders import ROOT


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """A checkpoint's `recipe.json` that belongs to the built-in bundle, and texts in two and a half languages."""
    folder = tmp_path_factory.mktemp("card")
    (folder / "made").mkdir()
    made = {
        "recipe": asdict(load_recipe("default")),
        "texts": {"t.jsonl": "ab" * 32},
        "init_from": {"model.safetensors": "cd" * 32},
        "distillation": [{"step": 0, "cosine": 0.5}, {"step": 9, "cosine": 0.75}],
        "sha256": Bundle.open(DEFAULT_FOLDER).manifest.source.weights_sha256,
    }
    (folder / "made" / "recipe.json").write_text(json.dumps(made))
    texts = itertools.cycle(probe_texts())
    lines = [{"l": language, "t": next(texts), "k": "qd"[n % 2]} for language in ("aa", "bb") for n in range(4)]
    lines.append({"l": "cc", "t": "a single one", "k": "q"})
    (folder / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return folder


def test_expert_loads_are_counted_by_language(material):
    embedder = Embedder.from_pretrained()
    found = card.expert_loads(embedder, [material / "t.jsonl"], 3)
    assert list(found) == ["aa", "bb"]
    rows = [json.loads(line) for line in (material / "t.jsonl").read_text("utf-8").splitlines()]
    kinds = {"q": "query", "d": "passage"}
    for language, load in found.items():
        own = [row for row in rows if row["l"] == language][:3]
        routings = [embedder.routing(row["t"], prompt_name=kinds[row["k"]]) for row in own]
        assert load.tolist() == sum(routing.load for routing in routings).tolist()
        assert load.sum(1).tolist() == [2 * sum(len(routing.tokens) for routing in routings)] * len(load)


def test_entropy():
    assert card.entropy(np.array([5, 5, 5, 5])) == pytest.approx(2)
    assert card.entropy(np.array([7, 0])) == 0
    assert card.entropy(np.array([1, 3])) == pytest.approx(-(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75)))


def test_the_card_has_the_figures_of_the_certificate(material, tmp_path):
    assert main(["card", *_arguments(material), "-o", str(tmp_path), "--texts", "3"]) == 0
    text = (tmp_path / card.CARD_FILE).read_text("utf-8")
    quality = Bundle.open(DEFAULT_FOLDER).manifest.certificate.quality
    rows = {row[0]: row[2] for row in re.findall(r"^\| (\S+) \| (\S+) \| ([\d.]+) \| \S+ \|$", text, re.MULTILINE)}
    assert rows == {name: f"{100 * one.value:.2f}" for name, one in quality.items()}
    mean = sum(one.value for name, one in quality.items() if name.startswith("stsb-multi/")) / 11
    assert f"| mean of 11 sets of stsb-multi | Spearman | {100 * mean:.2f} | |" in text
    alone = [one.value for name, one in quality.items() if name.startswith("xquad-") and ":" not in name]
    assert f"| mean of {len(alone)} sets of xquad | nDCG@10 | {100 * sum(alone) / len(alone):.2f} | |" in text
    assert "| distillation | 9 | cosine 0.5 -> 0.75 |" in text
    assert f"| `t.jsonl` | `{'ab' * 32}` |\n| initial model, `model.safetensors` | `{'cd' * 32}` |" in text
    assert "not** that model" in text
    assert (tmp_path / card.PLOT_FILE).read_bytes().startswith(b"\x89PNG")


def test_a_card_of_another_checkpoint_is_refused(material, tmp_path, capsys):
    report = json.loads((material / "made" / "recipe.json").read_text("utf-8"))
    (tmp_path / "recipe.json").write_text(json.dumps(report | {"sha256": "0"}))
    texts, out = material / "t.jsonl", tmp_path / "out"
    assert main(["card", str(DEFAULT_FOLDER), str(tmp_path), str(texts), "-o", str(out)]) == 2
    assert "the sha256 of the weights differ" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("line", "message"), [('{"l": "en", "t": "x", "k": "z"}', 't.jsonl:1: expected "l"'), ("", "no language has")]
)
def test_texts_that_cannot_be_counted_are_refused(tmp_path, line, message):
    (tmp_path / "t.jsonl").write_text(line)
    with pytest.raises(InputError, match=message):
        card.expert_loads(Embedder.from_pretrained(), [tmp_path / "t.jsonl"], 1)


@pytest.mark.parametrize(
    "report", ["[]", '{"sha256": "0", "texts": {}}', '{"recipe": {"name": "old"}, "sha256": "0", "texts": {}}']
)
def test_a_report_of_another_version_is_refused(tmp_path, report):
    (tmp_path / "recipe.json").write_text(report)
    with pytest.raises(InputError, match="name a checkpoint written by this version"):
        card.read_report(tmp_path)


def test_the_shipped_card_has_the_words_of_the_template():
    template = resources.files("moembed.train.release").joinpath("card.md").read_text("utf-8")
    shipped = (ROOT / "models" / card.CARD_FILE).read_text("utf-8").splitlines()
    words = [line for line in template.splitlines() if "{" not in line]
    assert len(words) > 50
    assert [line for line in words if line not in shipped] == []


# --- shipping


def _ship(material, checkpoint, tmp_path):
    return main(
        [
            *("ship", str(checkpoint), str(material / "t.jsonl"), "--data", str(tmp_path), "--sets", "nothing"),
            *("--work", str(tmp_path / "work"), "--bundle", str(tmp_path / "bundle")),
            *("--card", str(tmp_path / "card_dir")),
        ]
    )


def test_nothing_is_replaced_when_a_step_fails(material, tmp_path, capsys):
    (tmp_path / "bundle").mkdir()
    assert _ship(material, material / "made", tmp_path) == 2
    assert "nothing was replaced" in capsys.readouterr().err
    assert not list((tmp_path / "bundle").iterdir())
    assert not (tmp_path / "card_dir").exists()


def test_a_checkpoint_without_a_training_report_is_refused(material, tmp_path, capsys):
    assert _ship(material, tmp_path, tmp_path) == 2
    assert "name a checkpoint written by this version of `moembed train`" in capsys.readouterr().err


def _arguments(material):
    return [str(DEFAULT_FOLDER), str(material / "made"), str(material / "t.jsonl")]
