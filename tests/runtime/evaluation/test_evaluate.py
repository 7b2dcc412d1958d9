"""`moembed evaluate`, the command: tables, JSON and picture, interruption, missing extras, and a slice of real data."""

import json
import sys
from itertools import islice

import numpy as np
import pytest

from support.evaluation_sets import by_hand, measured, only, rows, write_beir
from support.folders import EVAL_DATA


def test_the_command(cli, beir, model, tmp_path):
    (beir.parent / "s.csv").write_text("a cat,a cat,5\na dog,the dog,3\nrain,tea,0\n")
    out, plot = tmp_path / "r.json", tmp_path / "r.png"
    code, printed, words = cli(
        "tiny", "s", "tiny", "--data", beir.parent, "--baseline", model.bundle.folder,
        "--dim", "384,192", "--precision", "float32,int8,binary,hamming", "--json", out, "--plot", plot,
    )  # fmt: skip
    assert code == 0, words
    lines = printed.splitlines()
    assert lines[0] == "| retrieval | dim | precision | nDCG@10 | Recall@100 | MRR@10 | nDCG@10 against baseline |"
    assert len([line for line in lines if line.startswith("| tiny |")]) == 8
    assert all(line.endswith("| +0.00 ± 0.00 % |") for line in lines if line.startswith("| tiny |"))
    assert all(line.endswith("| +0.00 points |") for line in lines if line.startswith("| s |"))
    record = json.loads(out.read_text())
    assert record["complete"] is True
    assert record["model"]["fingerprint"] == model.bundle.fingerprint == record["baseline"]["fingerprint"]
    tiny, s = record["sets"]
    assert (tiny["queries"], tiny["documents"], s["pairs"]) == (3, 5, 3)
    assert tiny["prompts"] == {"query": "query: ", "document": "passage: "}
    assert [(row["dim"], row["precision"]) for row in s["results"]][:5] == [
        (384, "float32"), (384, "int8"), (384, "binary"), (384, "hamming"), (192, "float32"),
    ]  # fmt: skip
    assert s["results"][0]["difference"] == {"figure": "Spearman", "value": 0.0, "unit": "points"}
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "moembed: tiny: 8 texts, 3 queries, 5 documents, 5 judgements\n" in words


def test_the_root_from_the_environment_and_a_group_mean(cli, tmp_path, monkeypatch):
    (tmp_path / "t").mkdir()
    for name in ("deu-eng", "fra-eng"):
        (tmp_path / "t" / f"{name}.tsv").write_text("Brot\tbread\nKatze\tcat\n")
    monkeypatch.setenv("MOEMBED_DATASETS", str(tmp_path))
    code, printed, _ = cli("t", "--dim", "64")
    assert code == 0
    assert "**t, mean of 2**" in printed.splitlines()[-1]


def test_long_texts_are_cut_and_counted(cli, beir, tmp_path):
    with (beir / "corpus.jsonl").open("a") as out:
        out.write(rows({"_id": "long", "text": "word " * 700}))
    code, _, words = cli(beir, "--json", tmp_path / "r.json")
    assert code == 0
    assert "1 texts cut to 512 tokens" in words
    assert json.loads((tmp_path / "r.json").read_text())["sets"][0]["cut"] == 1


def test_outputs_are_complete_or_untouched(cli, beir, tmp_path, monkeypatch):
    out, plot = tmp_path / "r.json", tmp_path / "r.png"
    for path in (out, plot):
        path.write_text("precious")
    from matplotlib.figure import Figure

    from moembed.evaluation import report

    def fail(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", fail)
    assert cli(beir, "--plot", plot)[0] == 130
    monkeypatch.setattr(report, "document", fail)
    assert cli(beir, "--json", out)[0] == 130
    assert [path.read_text() for path in (out, plot)] == ["precious"] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "r.json", "r.png"]
    code, _, err = cli(beir, "--json", tmp_path / "no" / "r.json")
    assert code == 2
    assert "no folder" in err


def test_an_interrupted_run_keeps_the_sets_that_are_done(cli, beir, tmp_path, monkeypatch):
    from moembed.evaluation import results

    write_beir(beir.parent / "second")
    once = iter([results.measure])

    def measure(*args, **options):
        return next(once, interrupt)(*args, **options)

    def interrupt(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(results, "measure", measure)
    code, _, _ = cli("tiny", "second", "--data", beir.parent, "--json", tmp_path / "r.json")
    record = json.loads((tmp_path / "r.json").read_text())
    assert (code, record["complete"], [s["name"] for s in record["sets"]]) == (130, False, ["tiny"])


def test_bad_arguments(cli, beir):
    for option, value, part in (("--dim", "wide", "widths such as"), ("--dim", "4096", "expected 1 to 384"),
                                ("--precision", "int3", "expected one of float32")):  # fmt: skip
        code, _, err = cli(beir, option, value)
        assert code == 2
        assert part in err


@pytest.mark.parametrize("package", ["ir_measures", "scipy", "matplotlib"])
def test_the_missing_extra(cli, beir, monkeypatch, tmp_path, package):
    for name in [name for name in sys.modules if name.startswith((package, "moembed.evaluation"))]:
        monkeypatch.delitem(sys.modules, name)
    import moembed as parent

    monkeypatch.delattr(parent, "evaluation", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    code, _, err = cli(beir, "--plot", tmp_path / "p.png")
    assert code == 2
    assert package in err
    assert 'pip install "moembed[eval]"' in err


# Real data, where it is there


@pytest.mark.skipif(not (EVAL_DATA / "xquad-en").is_dir(), reason=f"no real data in {EVAL_DATA} (MOEMBED_EVAL_DATA)")
def test_a_slice_of_real_data(tmp_path, model, monkeypatch):
    def read(name):
        return {row["_id"]: row for row in map(json.loads, (EVAL_DATA / "xquad-en" / name).read_text().splitlines())}

    queries = {name: row["text"] for name, row in islice(read("queries.jsonl").items(), 40)}
    judged = {name: {} for name in queries}
    for line in (EVAL_DATA / "xquad-en" / "qrels" / "test.tsv").read_text().splitlines()[1:]:
        query, name, score = line.split("\t")
        if query in judged:
            judged[query][name] = int(score)
    relevant = {name for scores in judged.values() for name in scores}
    corpus = read("corpus.jsonl")
    kept = [*relevant, *islice((name for name in corpus if name not in relevant), 40)]
    texts = {name: (corpus[name]["title"], corpus[name]["text"]) for name in corpus if name in kept}
    write_beir(tmp_path / "slice", texts, queries, judged)
    vectors, embed = {}, model.embed

    def remember(given, **options):
        given = list(given)
        for text, result in zip(given, embed(given, **options), strict=True):
            vectors[text] = result.vector
            yield result

    monkeypatch.setattr(model, "embed", remember)
    (figures,) = measured(only(["slice"], tmp_path), model).values()
    asked = np.stack([vectors[text] for text in queries.values()])
    scores = asked @ np.stack([vectors[f"{title} {text}".strip()] for title, text in texts.values()]).T
    ranked = {query: [list(texts)[i] for i in np.argsort(-row)] for query, row in zip(queries, scores, strict=True)}
    assert figures == pytest.approx(by_hand(judged, ranked), abs=1e-6)
    assert figures["nDCG@10"] > 0.8
