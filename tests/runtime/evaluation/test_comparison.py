"""Several models in `moembed evaluate`: one table, differences from the first model, speed in turns, refused options."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from moembed import Embedder
from moembed.evaluation import comparison, comparison_report, speed
from moembed.evaluation.comparison import Compared, Row, compare_task, group_rows
from moembed.evaluation.datasets import Dataset, find, published
from moembed.evaluation.embedding_cache import CachedEmbedder
from moembed.evaluation.metrics import standard_error
from moembed.evaluation.tasks import Similarity
from moembed.evaluation.variants import Variant
from moembed.models.published import PublishedFigure
from moembed.models.spec import known_specs, published_figures

PROMPTS = {"query": "query: ", "document": "passage: "}


@pytest.fixture
def pairs(beir):
    (beir.parent / "s.csv").write_text("a cat,a cat,5\na dog,the dog,3\nrain,tea,0\n")
    return beir.parent


@pytest.fixture
def other(int8):
    """Folder of a second model."""
    return int8.folder


def _cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_table_of_two_models(cli, pairs, model, other, tmp_path):
    out, plot = tmp_path / "r.json", tmp_path / "r.png"
    code, printed, words = cli(
        "tiny", "s", "--data", pairs, "--model", model.bundle.folder, "--model", other, "--json", out, "--plot", plot
    )
    assert code == 0, words
    table = {cells[0]: cells[1:] for cells in map(_cells, printed.splitlines())}
    assert table[""] == ["e5-small-moe", Embedder.from_pretrained(other).bundle.manifest.name]
    assert table["limit, tokens"][0] == "512"
    assert table["compared at"][0] == "384, float32"
    assert table["texts that were cut"][0] == "0"
    assert table["queries that ties decide"] == ["0", "0"]
    assert table["threads"] == [str(model.threads)] * 2
    assert table["prompts"][0] == "query `query: `; document `passage: `; sentence `query: `"
    record = json.loads(out.read_text())
    assert record["complete"] is True
    first, second = record["models"]
    assert first["fingerprint"] == model.bundle.fingerprint != second["fingerprint"]
    assert first["parameters"]["active"] < first["parameters"]["total"]
    assert table["size on disk, MB"][0] == f"{first['size'] / 1e6:.0f}"
    tiny, s = record["sets"]
    assert table["nDCG@10, tiny"][0] == f"{100 * tiny['values'][0]:.2f}"
    change, error = tiny["differences"][1], tiny["standard_errors"][1]
    assert table["nDCG@10, tiny"][1] == f"{100 * tiny['values'][1]:.2f} ({100 * change:+.2f} ± {100 * error:.2f})"
    assert s["standard_errors"] == [None, None]
    assert "±" not in table["Spearman, s"][1]
    assert all(float(cell.replace(",", "")) > 0 for cell in table["texts per second"])
    assert len(record["speed"]) == 2
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_figures_are_those_of_a_model_alone(pairs, model, other, cli, tmp_path):
    alone, both = tmp_path / "alone.json", tmp_path / "both.json"
    options = ("tiny", "--data", pairs, "--dim", "32", "--precision", "int8")
    assert cli(*options, "--model", other, "--baseline", model.bundle.folder, "--json", alone)[0] == 0
    assert cli(*options, "--model", model.bundle.folder, "--model", other, "--json", both)[0] == 0
    (single,) = json.loads(alone.read_text())["sets"][0]["results"]
    compared = json.loads(both.read_text())["sets"][0]
    assert compared["values"] == [single["baseline"]["nDCG@10"], single["nDCG@10"]]


def test_the_error_is_that_of_paired_differences(pairs, model, other):
    (dataset,) = find(["tiny"], pairs)
    models = [
        Compared("a", model, Variant(384, "float32")),
        Compared("b", second := Embedder.from_pretrained(other), Variant(second.dim, "float32")),
    ]
    row = compare_task(models, dataset.task, dataset.task.check(), show=False)
    each = [
        dataset.task.measure(CachedEmbedder(one.embedder, lambda _: None), [one.variant])[one.variant].each
        for one in models
    ]
    assert row.errors == [0.0, standard_error(each[1], each[0])]


def _row(name, values, errors):
    none = [0] * len(values)
    return Row(name, "retrieval", 1, values, errors, none, none, [PROMPTS for _ in values], as_published=True)


def test_a_group_is_the_mean_of_its_sets():
    task = SimpleNamespace(kind="retrieval")
    group = Dataset("g", members=(Dataset("x", task=task), Dataset("y", task=task)))
    rows = {"x": _row("x", [0.5, 0.7], [0.0, 0.03]), "y": _row("y", [0.7, 0.5], [0.0, 0.04])}
    (mean,) = group_rows([group], rows)
    assert (mean.name, mean.sets) == ("g", 2)
    np.testing.assert_allclose(mean.values, [0.6, 0.6])
    np.testing.assert_allclose(mean.errors, [0, 0.025])
    assert not list(group_rows([group], {"x": rows["x"]}))


def test_speed_is_measured_without_the_cache(model, monkeypatch):
    seen = []
    embed = type(model).encode
    monkeypatch.setattr(
        type(model), "encode", lambda self, texts, **options: seen.append(texts) or embed(self, texts, **options)
    )
    (found,) = speed.measure_speed([model], ["a", "b"], ["c", "d", "e"])
    assert seen.count("a") == speed.ROUNDS + 1
    assert seen.count(["c", "d", "e"]) == speed.ROUNDS
    tokens = sum(len(model.tokens(text, prompt="passage: ")) for text in "cde") / 3
    assert found.tokens_per_second == pytest.approx(found.texts_per_second * tokens)
    assert found.query_ms > 0


def _published_cells(model, monkeypatch, row):
    figure = PublishedFigure(set="x", figure="nDCG@10", dim=384, value=52.86, prompts=PROMPTS, source="a card")
    monkeypatch.setattr(comparison_report, "published_figures", lambda repo, weights: (figure,))
    models = [Compared("a", model, Variant(384, "float32")), Compared("b", model, Variant(256, "float32"))]
    table = comparison_report.markdown(models, [speed.Speed(2, 1.0, 2.0, 3.0)] * 2, [row], [])
    return _cells(table.splitlines()[-1])


def test_published_figures_stand_beside(model, monkeypatch):
    assert _published_cells(model, monkeypatch, _row("x", [0.5, 0.5], [0.0, 0.0])) == [
        "nDCG@10, x, published",
        "52.86",
        "",
    ]


@pytest.mark.parametrize(
    "change", [{"as_published": False}, {"prompts": [{"query": "", "document": ""}] * 2}], ids=["version", "prompts"]
)
def test_published_figures_of_something_else_do_not(model, monkeypatch, change):
    """M40, M41: of another version of the set, or with other prompts."""
    row = replace(_row("x", [0.5, 0.5], [0.0, 0.0]), **change)
    assert _published_cells(model, monkeypatch, row)[0] == "nDCG@10, x"


def test_the_version_of_a_set_is_told_by_its_counts(beir, model, monkeypatch):
    """M41: one document less is another set."""
    (dataset,) = find(["tiny"], beir.parent)
    models, counts = [Compared("a", model, Variant(384, "float32"))], dataset.task.check()
    version = tuple(counts[part] for part in ("documents", "queries", "judgements"))
    assert version == (5, 3, 5)
    known = published()
    for versions, expected in (({"tiny": version}, True), ({"tiny": (6, 3, 5)}, False), ({}, False)):
        monkeypatch.setattr(comparison, "published", lambda versions=versions: replace(known, versions=versions))
        assert compare_task(models, dataset.task, counts, show=False).as_published is expected


@pytest.mark.parametrize("pairs", [3, 4])
def test_the_version_of_a_file_of_pairs_is_told_by_their_number(pairs, model, monkeypatch):
    known = published()
    monkeypatch.setattr(comparison, "published", lambda: replace(known, versions={"sts": (3,)}))
    texts = tuple(f"a text {number}" for number in range(pairs))
    task = Similarity("sts", texts, texts[::-1], tuple(map(float, range(pairs))))
    row = compare_task([Compared("a", model, Variant(384, "float32"))], task, task.check(), show=False)
    assert row.as_published is (pairs == 3)


def test_a_published_figure_of_pairs_stands_beside(model, monkeypatch):
    """STS12 of gte-multilingual-base, which has no prompts; the models with a prompt for STS were measured without it."""
    known = published_figures("Alibaba-NLP/gte-multilingual-base", "")
    monkeypatch.setattr(comparison_report, "published_figures", lambda repo, weights: known)
    models = [Compared("a", model, Variant(768, "float32"))]
    for prompt, cell in (("", "77.51"), ("query: ", None)):
        row = replace(_row("sts12", [0.5], [None]), kind="similarity", prompts=[{"sentence": prompt}])
        lines = comparison_report.markdown(models, [speed.Speed(2, 1.0, 2.0, 3.0)], [row], []).splitlines()
        assert [_cells(line)[1] for line in lines if "Spearman, sts12, published" in line] == ([cell] if cell else [])
    assert published().versions["sts12"] == (750 + 750 + 459 + 750 + 399,)


def test_every_published_figure_has_its_prompts_and_a_known_version():
    groups, versions = published().groups, published().versions
    for spec in known_specs():
        for figure in spec.published:
            members = groups.get(figure.set, (figure.set,))
            leaves = [leaf for member in members for leaf in groups.get(member, (member,))]
            if figure.figure == "Spearman":
                assert all(len(versions[leaf]) == 1 for leaf in leaves)
                (name, *_) = [name for name in Similarity.prompts["sentence"] if name in spec.prompts] or [""]
                assert figure.prompts == {"sentence": spec.prompts.get(name, "")}, spec.name
                continue
            assert figure.prompts.keys() == {"query", "document"}
            assert all(len(versions[leaf]) == 3 for leaf in leaves)
            for side, name in (("query", "query"), ("document", "passage")):
                assert figure.prompts[side] == spec.prompts.get(name, ""), spec.name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--baseline", "x"], "--baseline is for one model, found 2 times --model"),
        (["--certify"], "--certify is for one model"),
        (["--revision", "main"], "--revision is for one model"),
        (["--precision", "float32,int8"], "several models are compared at one precision"),
        (["--dim", "384,64"], "expected one width"),
        (["--dim", "9999"], "has vectors of 48 dimensions"),
        (["--dim", "0"], "dim = 0; expected 1 to"),
        (["--precision", "int7"], "--precision 'int7'"),
    ],
)
def test_options_of_one_model_are_refused(cli, pairs, model, other, options, message):
    code, printed, words = cli("s", "--data", pairs, "--model", model.bundle.folder, "--model", other, *options)
    assert code == 2
    assert not printed
    assert message in words


def test_bundles_of_one_model_are_told_by_their_recipes(cli, pairs, bundle, int8):
    code, printed, _ = cli("s", "--data", pairs, "--model", bundle.folder, "--model", int8.folder)
    assert code == 0
    name = int8.manifest.name
    assert _cells(printed.splitlines()[0]) == ["", f"{name} fp32", f"{name} int8"]


def test_a_model_that_is_given_twice_is_refused(cli, pairs, model):
    folder = model.bundle.folder
    code, _, words = cli("s", "--data", pairs, "--model", folder, "--model", folder)
    assert code == 2
    assert "the model e5-small-moe int8-table4 is given twice" in words
