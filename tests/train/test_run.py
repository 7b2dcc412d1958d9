"""Recipes, and whole training runs on little text: complete, interrupted, and initialized from a model."""

import functools
import itertools
import json
import re
import shutil
from importlib import resources

import pytest
import torch

from moembed.bundle.bundle import Bundle
from moembed.cli import main
from moembed.errors import InputError
from moembed.export.pipeline import export
from moembed.models.checkpoint import load_network
from moembed.models.locate import locate
from moembed.pull.opening import DEFAULT_FOLDER
from moembed.quantize.pipeline import quantize
from moembed.train.convert import rotary, warm_start
from moembed.train.recipe import load_recipe
from moembed.train.steps import contrastive, distillation
from moembed.train.steps.trainer import Trainer
from moembed.verify.probes import probe_texts
from support.evaluation_sets import write_beir
from support.teachers import HIDDEN, write_teacher

CHECKPOINTS = ("conversion", "distillation", "projection", "contrastive")
PROMPTS = {"query": "query: ", "passage": "passage: "}


# --- recipes


def test_the_default_recipe_is_whole():
    recipe = load_recipe("default")
    assert recipe.student.dims[0] == max(recipe.student.dims)
    assert list(recipe.conversion.ridge_strengths) == sorted(recipe.conversion.ridge_strengths)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("language_alpha = 0.6", "", r"data: missing \['language_alpha'\]"),
        ("language_alpha = 0.6", "language_alpha = 0.6\nluck = 1", r"data: .*unknown \['luck'\]"),
        ("num_experts = 8", "num_experts = true", "student.num_experts = True; expected an integer"),
        ("dims = [384, 256, 128]", 'dims = ["wide"]', r"student.dims\[0\] = 'wide'; expected an integer"),
        ('passage = "passage: "', "", r"prompts: missing \['passage'\]"),
        ("[projection]", "[rotate]", r"missing \['projection'\], unknown \['rotate'\]"),
        ("language_alpha = 0.6", "language_alpha =", "is not valid TOML"),
    ],
)
def test_bad_recipes_are_refused(tmp_path, old, new, message):
    text = _default_recipe()
    assert old in text
    (tmp_path / "r.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        load_recipe(str(tmp_path / "r.toml"))


def test_an_unknown_recipe_is_named():
    with pytest.raises(InputError, match="recipe nothing: .*; name a recipe of the package or a .toml file"):
        load_recipe("nothing")


# --- a whole run


@pytest.fixture(scope="module")
def ingredients(tmp_path_factory):
    """Texts, pairs, a teacher, and a recipe of few steps."""
    folder = tmp_path_factory.mktemp("ingredients")
    write_teacher(folder / "teacher.bin")
    words = [word for text in probe_texts() for word in text.split()]
    lines = [
        {
            "l": "xx",
            "t": " ".join(itertools.islice(itertools.cycle(words), n % 7, n % 7 + 5 + n % 23)) + f" {n}",
            "k": "qd"[n % 2],
        }
        for n in range(240)
    ]
    (folder / "text.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    (folder / "pairs.jsonl").write_text(
        "".join(
            json.dumps({"q": line["t"].split(" ", 2)[2], "d": line["t"] + " and more"}) + "\n" for line in lines[:80]
        ),
        "utf-8",
    )
    text = _default_recipe()
    for old, new in (
        ("vocabulary_size = 51200", "vocabulary_size = 6000"),
        ("num_experts = 8", "num_experts = 3"),
        ("moe_every = 6", "moe_every = 2"),
        ("dims = [384, 256, 128]", "dims = [64, 32]"),
        ("validation_share = 0.02", "validation_share = 0.2"),
        ("save_every = 50", "save_every = 4"),
        ("save_every = 10", "save_every = 2"),
        ("steps = 200", "steps = 20"),
        ("batch_size = 1024", "batch_size = 64"),
        ("train_pairs = 14336", "train_pairs = 60"),
        ("trained_layers = 4", "trained_layers = 1"),
        ("batch_pairs = 256", "batch_pairs = 16"),
        ("epochs = 1", "epochs = 2"),
        ("consistency_rank = 20", "consistency_rank = 60"),
    ):
        assert old in text
        text = text.replace(old, new, 1)
    text = "\n".join(
        {
            "tokens": "tokens = 3000",
            "warmup_steps": "warmup_steps = 10",
            "batch_tokens": "batch_tokens = 512",
            "validation_tokens": "validation_tokens = 800",
        }.get(line.split(" = ")[0], line)
        for line in text.splitlines()
    )
    (folder / "small.toml").write_text(text)
    return folder


def _train(ingredients, out, init_from=None, paired=None):
    paired = init_from is None if paired is None else paired
    return main(
        [
            "train",
            str(ingredients / "text.jsonl"),
            *(["--init-from", str(init_from)] if init_from else []),
            *(["--pairs", str(ingredients / "pairs.jsonl")] if paired else []),
            *("-o", str(out), "--recipe", str(ingredients / "small.toml")),
            *("--teacher", str(ingredients / "teacher.bin"), "--threads", "1"),
        ]
    )


def _with_tokens(recipe, count):
    """Return the recipe with this number of tokens for distillation."""
    changed = re.sub(r"(?<=\[distillation\]\n)((?:#.*\n)*)tokens = \d+", rf"\1tokens = {count}", recipe)
    assert changed != recipe
    return changed


def _sha256(folder):
    return json.loads((folder / "recipe.json").read_text("utf-8"))["sha256"]


@pytest.fixture(scope="module")
def made(ingredients, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    assert _train(ingredients, out) == 0
    return out


def test_a_run_makes_checkpoints_that_load(made):
    for name in CHECKPOINTS:
        checkpoint = locate(made / name)
        network = load_network(checkpoint.folder)
        assert checkpoint.spec.prompts == PROMPTS
        assert checkpoint.spec.dims == (64, 32)
        assert checkpoint.weights_sha256 == _sha256(made / name)
        assert network.config.moe_layers == (1,)
        assert network.config.hidden_size == HIDDEN


def test_the_projection_is_orthogonal_and_no_step_moves_it(made):
    projections = [load_network(made / name).projection for name in CHECKPOINTS]
    assert [projection.bias.abs().max().item() for projection in projections] == [0, 0, 0, 0]
    converted, distilled, fitted, contrasted = (projection.weight for projection in projections)
    torch.testing.assert_close(converted, torch.eye(HIDDEN))
    assert torch.equal(fitted, contrasted)
    for one, other in ((converted, distilled), (distilled, fitted)):
        assert not torch.allclose(one, other, atol=0.1)
        torch.testing.assert_close(other @ other.T, converted, rtol=0, atol=0.005)  # in float16
    report = json.loads((made / "distillation" / "recipe.json").read_text("utf-8"))["distillation"]
    assert {"cosine", "neighbour_overlap", "neighbour_overlap_32"} <= report[-1].keys()


def test_fitting_the_projection_to_pairs_raises_recall(made):
    before, after = json.loads((made / "projection" / "recipe.json").read_text("utf-8"))["projection"]
    assert before.keys() == after.keys() >= {"recall_at_1", "recall_at_1_32"}
    assert after["recall_at_1"] == pytest.approx(
        before["recall_at_1"], abs=0.07
    )  # unchanged at full width, except for rounding
    assert after["recall_at_1_32"] >= before["recall_at_1_32"]


def test_distillation_raises_the_cosine_to_the_teacher(made):
    report = json.loads((made / "distillation" / "recipe.json").read_text("utf-8"))["distillation"]
    assert report[-1]["cosine"] > report[0]["cosine"]


def test_contrastive_training_moves_the_last_layers_only(made):
    before, after = (load_network(made / name).state_dict() for name in ("projection", "contrastive"))
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    last = load_network(made / "projection").config.num_layers - 1
    assert moved
    assert all(name.startswith(f"encoder.layers.{last}.") for name in moved)


@pytest.mark.long
def test_an_interrupted_run_ends_with_the_same_bytes(ingredients, made, tmp_path, monkeypatch):
    out = tmp_path / "out"
    for owner, method, calls in (
        (rotary.AttentionTuner, "step", 7),
        (distillation.Distillation, "_step", 6),
        (contrastive.ContrastiveTraining, "_step", 3),
    ):
        left = iter(range(calls))
        genuine = getattr(owner, method)

        def failing(*args, genuine=genuine, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return genuine(*args)

        monkeypatch.setattr(owner, method, failing)
        assert _train(ingredients, out) == 130
        monkeypatch.setattr(owner, method, genuine)
    assert _train(ingredients, out) == 0
    for name in CHECKPOINTS:
        assert _sha256(out / name) == _sha256(made / name)


def test_a_finished_run_is_not_repeated(ingredients, made, tmp_path, monkeypatch):
    out = shutil.copytree(made, tmp_path / "out")
    monkeypatch.setattr(rotary.AttentionTuner, "step", None)
    monkeypatch.setattr(Trainer, "_step", None)
    assert _train(ingredients, out) == 0
    for name in CHECKPOINTS:
        assert _sha256(out / name) == _sha256(made / name)


@pytest.mark.long
def test_a_checkpoint_is_shipped(ingredients, made, tmp_path, capsys):
    write_beir(tmp_path / "data" / "tiny")
    bundle, cards = tmp_path / "bundle", tmp_path / "cards"
    command = ["ship", made / "contrastive", ingredients / "text.jsonl", "--data", tmp_path / "data", "--sets", "tiny"]
    command += ["--work", tmp_path / "work", "--bundle", bundle, "--card", cards]
    assert main([str(argument) for argument in command]) == 0
    assert capsys.readouterr().out == f"{bundle}\n"
    manifest = Bundle.open(bundle).manifest
    assert manifest.recipe == "int8-table4"
    assert manifest.source.weights_sha256 == _sha256(made / "contrastive")
    card = (cards / "CARD.md").read_text("utf-8")
    assert f"| tiny | nDCG@10 | {100 * manifest.certificate.quality['tiny'].value:.2f} |" in card
    assert "| contrastive | " in card


# --- a run initialized from a model


@pytest.fixture(scope="module")
def larger(ingredients, tmp_path_factory):
    """The ingredients with a recipe of more pieces and few steps."""
    folder = shutil.copytree(ingredients, tmp_path_factory.mktemp("larger") / "ingredients")
    recipe = folder / "small.toml"
    text = recipe.read_text().replace("vocabulary_size = 6000", "vocabulary_size = 6400")
    recipe.write_text(_with_tokens(text, 600))
    return folder


@pytest.fixture(scope="module")
def quantized(made, tmp_path_factory):
    """Function that returns the folder of the INT8 bundle of the run's distilled checkpoint, by a recipe's name."""
    folder = tmp_path_factory.mktemp("bundles")
    full = export(locate(made / "distillation"), folder / "fp32")
    return functools.cache(lambda name: quantize(full, folder / name, recipe=name).folder)


int8_is_long = pytest.param("int8", marks=pytest.mark.long)


@pytest.mark.parametrize("kind", [pytest.param("checkpoint", marks=pytest.mark.long), int8_is_long, "int8-table4"])
def test_a_run_is_initialized_from_a_model(larger, made, quantized, tmp_path, kind):
    source = made / "distillation" if kind == "checkpoint" else quantized(kind)
    assert _train(larger, tmp_path / "out", source) == 0
    report = json.loads((tmp_path / "out" / "distillation" / "recipe.json").read_text("utf-8"))
    assert set(report["init_from"]) == {path.name for path in warm_start.model_files(source)}
    before = json.loads((made / "distillation" / "recipe.json").read_text("utf-8"))["distillation"]
    # It starts where the other run ended, not where that one started.
    assert report["distillation"][0]["cosine"] == pytest.approx(before[-1]["cosine"], abs=0.001)
    assert before[0]["cosine"] < before[-1]["cosine"] - 0.002
    assert load_network(tmp_path / "out" / "distillation").config.vocab_size == 6400


@pytest.mark.long
def test_a_run_with_pairs_alone(ingredients, made, tmp_path, capsys):
    folder = shutil.copytree(ingredients, tmp_path / "ingredients")
    recipe = folder / "small.toml"
    recipe.write_text(_with_tokens(recipe.read_text(), 0).replace("steps = 20", "steps = 0"))
    assert _train(folder, tmp_path / "none", made / "projection") == 2
    assert "nothing to do" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    assert _train(folder, tmp_path / "out", made / "projection", paired=True) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"state", "projection", "contrastive"}
    before, after = (load_network(path / "projection") for path in (made, tmp_path / "out"))
    # No step was taken, so the projection is the initial one except for the order of components within a width.
    one, other = (network.projection.weight[:32] for network in (before, after))
    torch.testing.assert_close(one.T @ one, other.T @ other, rtol=0, atol=0.005)
    assert torch.equal(before.embeddings.word_embeddings.weight, after.embeddings.word_embeddings.weight)


@pytest.mark.parametrize("recipe", [int8_is_long, "int8-table4"])
def test_an_int8_bundle_is_dequantized_to_its_checkpoint(made, quantized, recipe):
    table = {"int8": 0.02, "int8-table4": 0.11}[recipe]
    genuine, decoded = warm_start.read_model(made / "distillation"), warm_start.read_model(quantized(recipe))
    assert genuine.pieces == decoded.pieces
    assert genuine.parameters.keys() == decoded.parameters.keys()
    for name, value in genuine.parameters.items():
        error = (decoded.parameters[name] - value).norm() / value.norm().clamp(min=1e-9)
        assert error < (table if name == warm_start.TABLE else 0.02), name


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("nothing", "no readable tokenizer.json"),
        ("no weights", "holds neither model.safetensors nor"),
        ("another", "does not have the recipe's sizes"),
        ("shuffled", "was not made from this teacher"),
    ],
)
def test_unusable_initial_models_are_refused(larger, made, tmp_path, capsys, broken, message):
    source = tmp_path / "initial"
    source.mkdir()
    if broken == "another":
        source = DEFAULT_FOLDER
    elif broken != "nothing":
        shutil.copytree(made / "distillation", source, dirs_exist_ok=True)
    if broken == "no weights":
        (source / "model.safetensors").unlink()
    if broken == "shuffled":
        tokenizer = json.loads((source / "tokenizer.json").read_text("utf-8"))
        tokenizer["model"]["vocab"][4:-1] = tokenizer["model"]["vocab"][-2:3:-1]
        (source / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    assert _train(larger, tmp_path / "out", source) == 2
    assert message in capsys.readouterr().err


# --- refused inputs


def test_too_few_texts_are_refused(ingredients, tmp_path, capsys):
    other = tmp_path / "ingredients"
    shutil.copytree(ingredients, other)
    (other / "text.jsonl").write_text('{"l": "en", "t": "the only one", "k": "d"}\n')
    assert _train(other, tmp_path / "out") == 2
    assert "too few texts" in capsys.readouterr().err


def test_another_recipe_in_the_same_folder_is_refused(ingredients, made, tmp_path, capsys):
    out = shutil.copytree(made, tmp_path / "out")
    recipe = ingredients / "small.toml"
    other = tmp_path / "ingredients"
    shutil.copytree(ingredients, other)
    (other / "small.toml").write_text(re.sub(r"(?m)^seed = ", "seed = 1", recipe.read_text()))
    assert _train(other, out) == 2
    assert "another recipe" in capsys.readouterr().err


def _default_recipe():
    return (resources.files("moembed.train") / "recipes" / "default.toml").read_text("utf-8")
