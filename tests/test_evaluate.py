"""`moembed evaluate`: layouts, figures against hand computation, exact block-wise search, and errors that say where."""

import gzip
import json
import math
import os
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from moembed.cli import main
from moembed.errors import InputError
from moembed.quantize.evaluation import tasks as tasks_module
from moembed.quantize.evaluation.datasets import Dataset, find, published
from moembed.quantize.evaluation.folders import documents
from moembed.quantize.evaluation.metrics import correlation, ranked_figures
from moembed.quantize.evaluation.ranking import Ranking
from moembed.quantize.evaluation.report import difference
from moembed.quantize.evaluation.results import Result, means
from moembed.quantize.evaluation.tasks import Bitext, Reading, Retrieval, Similarity, prompt_of
from moembed.quantize.evaluation.variants import Variant, asking, stored, variants

TEXTS = {
    "d1": ("Bread", "Bake the bread for forty minutes."),
    "d2": ("", "Line 4 goes to the station."),
    "d3": ("Cats", "A cat sleeps sixteen hours a day."),
    "d4": ("", "Tomatoes need sun and water."),
    "d5": ("Rain", "It rains in April."),
}
QUERIES = {
    "q1": "How long does bread stay in the oven?",
    "q2": "Which tram to the station?",
    "q3": "How much do cats sleep?",
}
JUDGED = {"q1": {"d1": 2, "d4": 1}, "q2": {"d2": 1}, "q3": {"d3": 1, "d5": 0}}


def rows(*records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def write_beir(folder, texts=TEXTS, queries=QUERIES, judged=JUDGED):
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(rows(*({"_id": i, "title": t, "text": x} for i, (t, x) in texts.items())))
    (folder / "queries.jsonl").write_text(rows(*({"_id": i, "text": x} for i, x in queries.items())))
    lines = [f"{query}\t{name}\t{score}\n" for query, scores in judged.items() for name, score in scores.items()]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return folder


def write_miracl(root, language, corpus_root):
    asked, corpus = root / f"miracl-v1.0-{language}", corpus_root / f"miracl-corpus-v1.0-{language}"
    for folder in (asked / "topics", asked / "qrels", corpus):
        folder.mkdir(parents=True)
    topics, qrels = (asked / kind / f"{kind}.miracl-v1.0-{language}-dev.tsv" for kind in ("topics", "qrels"))
    topics.write_text("".join(f"{i}\t{x}\n" for i, x in QUERIES.items()))
    qrels.write_text("".join(f"{q}\tQ0\t{d}\t{s}\n" for q, scores in JUDGED.items() for d, s in scores.items()))
    (topics.parent / f"topics.miracl-v1.0-{language}-train.tsv").write_text("x\tother split\n")
    for number, part in enumerate((list(TEXTS.items())[:3], list(TEXTS.items())[3:])):
        with gzip.open(corpus / f"docs-{number}.jsonl.gz", "wt") as out:
            out.write(rows(*({"docid": i, "title": t, "text": x} for i, (t, x) in part)))


@pytest.fixture
def beir(tmp_path):
    return write_beir(tmp_path / "data" / "tiny")


@pytest.fixture
def cli(capsys):
    def run(*argv):
        code = main(["evaluate", *map(str, argv)])
        return code, *capsys.readouterr()

    return run


def only(names, root, **options) -> Retrieval | Similarity | Bitext:
    (dataset,) = find(names, root, **options)
    (task,) = dataset.tasks()
    return task


def measured(task, embedder, *chosen):
    task.check()
    return task.measure(Reading(embedder, lambda _: None), chosen or (Variant(embedder.dim, "float32"),))


def by_hand(judged, ranked, depth=100):
    """nDCG@10, recall and MRR@10, straight from their definitions."""
    totals = np.zeros(3)
    for query, scores in judged.items():
        found = ranked.get(query, [])
        gains = [scores.get(name, 0) for name in found[:10]]
        ideal = sorted((score for score in scores.values() if score > 0), reverse=True)[:10]
        dcg, best = (sum(g / math.log2(rank + 2) for rank, g in enumerate(row)) for row in (gains, ideal))
        relevant = {name for name, score in scores.items() if score > 0}
        first = next((1 / (rank + 1) for rank, name in enumerate(found[:10]) if name in relevant), 0.0)
        totals += (dcg / best if best else 0, len(relevant & set(found[:depth])) / max(len(relevant), 1), first)
    return dict(zip(("nDCG@10", "Recall@100", "MRR@10"), totals / len(judged), strict=True))


# Figures


def test_ranked_figures_by_hand():
    rng = np.random.default_rng(5)
    names = [f"n{i}" for i in range(150)]
    judged = {f"q{i}": {n: int(rng.integers(0, 3)) for n in rng.choice(names, 12)} for i in range(20)}
    ranked = {query: list(rng.permutation(names))[:100] for query in judged}
    del ranked["q3"]
    ranked["q4"] = []
    assert ranked_figures(judged, ranked) == pytest.approx(by_hand(judged, ranked), abs=1e-6)
    one = ranked_figures({"q": {"a": 2, "b": 1}}, {"q": ["x", "b", "a"]})
    ideal = 2 + 1 / math.log2(3)
    assert one["nDCG@10"] == pytest.approx((1 / math.log2(3) + 2 / 2) / ideal)
    assert (one["Recall@100"], one["MRR@10"]) == (1, 0.5)


def test_correlation_by_hand():
    scores, similarities = [1.0, 2.0, 3.0, 4.0], np.array([0.1, 0.3, 0.2, 0.9], np.float32)
    assert correlation(scores, similarities)["Spearman"] == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert correlation(scores, np.ones(4, np.float32)) == {"Spearman": 0.0}


# Search


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
@pytest.mark.parametrize("ties", [False, True])
def test_blocks_find_what_brute_force_finds(block, ties, monkeypatch):
    rng = np.random.default_rng(3)
    corpus = rng.standard_normal((500, 16)).astype(np.float32)
    queries = rng.standard_normal((9, 16)).astype(np.float32)
    if ties:
        corpus, queries = np.sign(corpus[:, :8]), np.sign(queries[:, :8])
        corpus[100:200] = corpus[:100]
    monkeypatch.setattr("moembed.quantize.evaluation.ranking._ROWS", 4)
    ranking = Ranking(queries, 20)
    for first in range(0, 500, block):
        ranking.add(corpus[first : first + block], first)
    scores = (queries.astype(np.float64) @ corpus.T.astype(np.float64)).astype(np.float32)
    expected = [sorted(range(500), key=lambda i: (-row[i], i))[:20] for row in scores]
    assert ranking.best() == expected
    assert ranking.positions().tolist() == sorted({i for row in expected for i in row})


def test_a_small_corpus_and_barred_documents():
    corpus = np.eye(3, dtype=np.float32)
    ranking = Ranking(corpus, 5)
    ranking.add(corpus, 0, ([0, 2], [0, 1]))
    assert ranking.best() == [[1, 2], [1, 0, 2], [2, 0]]


def test_small_blocks_measure_the_same(beir, model, monkeypatch):
    chosen = variants([384, 64], ["float32", "int8", "hamming"], 384)
    whole = measured(only(["tiny"], beir.parent), model, *chosen)
    monkeypatch.setattr(tasks_module, "_BLOCK", 2)
    assert measured(only(["tiny"], beir.parent), model, *chosen) == whole


# Variants


def test_variants_are_what_encode_gives(model):
    from moembed import dequantize_embeddings

    texts = ["one text", "another one", "ein dritter"]
    full = model.encode_document(texts)
    for dim in (384, 64):
        assert np.array_equal(stored(full, Variant(dim, "float32")), model.encode_document(texts, truncate_dim=dim))
        for precision in ("float16", "int8", "uint8", "binary", "ubinary"):
            codes = model.encode_document(texts, truncate_dim=dim, precision=precision)
            assert np.array_equal(stored(full, Variant(dim, precision)), dequantize_embeddings(codes, precision))
            assert np.array_equal(asking(full, Variant(dim, precision)), stored(full, Variant(dim, "float32")))
    bits = stored(full, Variant(64, "hamming"))
    assert np.array_equal(bits, asking(full, Variant(64, "hamming")))
    distances = (np.sign(bits[0]) != np.sign(bits[1])).sum()
    assert bits[0] @ bits[1] == pytest.approx(1 - 2 * distances / 64, abs=1e-6)


@pytest.mark.parametrize(
    ("dims", "precisions", "part"),
    [([385], ["int8"], "dim = 385; expected 1 to 384"), ([0], ["int8"], "dim = 0"), ([8], ["int4"], "'int4'; expected"),
     ([384, 20], ["float32", "hamming"], "20 is not a multiple of 8")],
)  # fmt: skip
def test_impossible_variants(dims, precisions, part):
    with pytest.raises(InputError, match=part):
        variants(dims, precisions, 384)


# Layouts


def test_beir_against_brute_force(beir, model):
    task = only(["tiny"], beir.parent)
    assert task.check() == {"texts": 8, "queries": 3, "documents": 5, "absent": 0}
    corpus = model.encode_document([f"{title} {text}".strip() for title, text in TEXTS.values()])
    scores = model.encode_query(list(QUERIES.values())) @ corpus.T
    ranked = {query: [list(TEXTS)[i] for i in np.argsort(-row)] for query, row in zip(QUERIES, scores, strict=True)}
    (figures,) = measured(task, model).values()
    assert figures == pytest.approx(by_hand(JUDGED, ranked), abs=1e-6)


def test_queries_without_judgements_are_not_asked(beir):
    with (beir / "queries.jsonl").open("a") as out:
        out.write(rows({"_id": "q9", "text": "never"}))
    assert only(["tiny"], beir.parent).check()["queries"] == 3


@pytest.mark.parametrize("cloned", [False, True])
def test_miracl(tmp_path, model, beir, cloned):
    root = tmp_path / "m"
    write_miracl(*((root / "miracl", "sw", root / "miracl-corpus") if cloned else (root, "sw", root)))
    task = only(["miracl-sw"], root)
    assert [path.name for path in task.corpus] == ["docs-0.jsonl.gz", "docs-1.jsonl.gz"]
    assert task.check()["documents"] == 5
    assert measured(task, model) == measured(only(["tiny"], beir.parent), model)


def test_corpus_files_are_read_in_the_order_of_their_numbers(tmp_path):
    write_beir(tmp_path / "x")
    (tmp_path / "x" / "corpus.jsonl").unlink()
    for number in (10, 2):
        (tmp_path / "x" / f"docs-{number}.jsonl").write_text(rows({"docid": f"d{number}", "text": "x"}))
    assert [document.id for document in documents(only(["x"], tmp_path).corpus)] == ["d2", "d10"]


def test_a_query_is_no_answer_to_itself_in_beir(tmp_path, model):
    texts = {"q1": ("", "Bread is baked."), "d1": ("", "Bread is baked for long."), "d2": ("", "Nothing")}
    queries, judged = {"q1": "Bread is baked."}, {"q1": {"d1": 1}}
    write_beir(tmp_path / "quora", texts, queries, judged)
    write_beir(tmp_path / "other", texts, queries, judged)
    assert only(["quora"], tmp_path).same_id_is_query
    (own,) = measured(only(["quora"], tmp_path), model).values()
    (other,) = measured(only(["other"], tmp_path), model).values()
    assert (own["MRR@10"], other["MRR@10"]) == (1, 0.5)


def test_across_languages(tmp_path, model):
    german = {"d1": ("", "Das Brot backt vierzig Minuten."), "d2": ("", "Linie 4"), "d3": ("", "Die Katze schläft"),
              "d4": ("", "Tomaten"), "d5": ("", "Regen")}  # fmt: skip
    write_beir(tmp_path / "en")
    write_beir(tmp_path / "de", german, dict.fromkeys(QUERIES, "Brot?"))
    task = only(["en:de"], tmp_path)
    assert task.queries.parent.name == "en"
    assert task.corpus[0].parent.name == "de"
    assert measured(task, model)
    (tmp_path / "de" / "corpus.jsonl").write_text(rows({"_id": "d1", "text": "Brot"}))
    with pytest.raises(InputError, match=r"en/qrels/test.tsv: 3 of 4 relevant documents are not in .*de, such as 'd2'"):
        only(["en:de"], tmp_path).check()
    assert only(["en:de"], tmp_path, allow_absent=True).check()["absent"] == 3


STS = [("a cat", "a cat", 5.0), ("a dog, small", 'the "dog"', 3.5), ("rain", "tea", 0.0)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.jsonl", rows(*({"sentence1": a, "sentence2": b, "score": s} for a, b, s in STS))),
        ("s.tsv", "".join(f"{a}\t{b}\t{s}\n" for a, b, s in STS)),
        ("s.tsv", "score\tid\tsentence2\tsentence1\n" + "".join(f"{s}\t7\t{b}\t{a}\n" for a, b, s in STS)),
        ("s.csv", 'a cat,a cat,5\n"a dog, small","the ""dog""",3.5\nrain,tea,0\n'),
        ("s.csv", 'Sentence1,Sentence2,Score\r\na cat,a cat,5\r\n"a dog, small","the ""dog""",3.5\r\nrain,tea,0\r\n'),
    ],
)
def test_sts_files(tmp_path, model, name, text):
    (tmp_path / name).write_text(text)
    task = only(["s"], tmp_path)
    assert (task.left, task.right, task.scores) == tuple(zip(*STS, strict=True))
    (figures,) = measured(task, model).values()
    assert figures == {"Spearman": pytest.approx(1.0)}


def test_bitext_and_a_folder_of_files(tmp_path, model):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "deu-eng.tsv").write_text('Brot\t"bread\nKatze\tcat\n')
    with gzip.open(tmp_path / "t" / "fra-eng.tsv.gz", "wt") as out:
        out.write("pain\tbread\nchat\tcat\neau\twater\n")
    (tmp_path / "t" / "README.md").write_text("words")
    (dataset,) = find(["t"], tmp_path)
    assert [(task.name, task.check()["pairs"]) for task in dataset.tasks()] == [("t/deu-eng", 2), ("t/fra-eng", 3)]
    task = only(["t/fra-eng"], tmp_path)
    assert task.foreign == ("pain", "chat", "eau")
    left, right = (model.encode_query(list(side)) for side in (task.foreign, task.english))
    there, back = ((np.argmax(x @ y.T, axis=1) == np.arange(3)).mean() for x, y in ((left, right), (right, left)))
    (figures,) = measured(task, model).values()
    assert figures == pytest.approx({"accuracy@1": (there + back) / 2, "to English": there, "from English": back})


def test_prompts(model, monkeypatch):
    assert prompt_of(model, Similarity.prompts["sentence"]) == "query: "
    assert prompt_of(model, Retrieval.prompts["document"]) == "passage: "
    monkeypatch.setattr(model, "prompts", {"query": "q: ", "PairClassification": "pair: "})
    assert prompt_of(model, Similarity.prompts["sentence"]) == "pair: "
    assert prompt_of(model, Bitext.prompts["sentence"]) == "q: "
    monkeypatch.setattr(model, "prompts", {})
    assert prompt_of(model, Bitext.prompts["sentence"]) == ""


def test_every_text_gets_the_prompt_of_its_side(beir, model, monkeypatch):
    seen, embed = {}, model.embed

    def remember(given, **options):
        given = list(given)
        seen.update(dict.fromkeys(given, options["prompt"]))
        return embed(given, **options)

    monkeypatch.setattr(model, "embed", remember)
    measured(only(["tiny"], beir.parent), model)
    sides = {"query: ": list(QUERIES.values()), "passage: ": [f"{t} {x}".strip() for t, x in TEXTS.values()]}
    assert seen == {text: prompt for prompt, texts in sides.items() for text in texts}


# Errors


@pytest.mark.parametrize(
    ("file", "text", "part"),
    [
        ("qrels/test.tsv", None, r"no test.tsv in .*qrels"),
        ("queries.jsonl", None, r"no queries.jsonl in .*tiny \(found corpus.jsonl, qrels\)"),
        ("corpus.jsonl", None, r"no corpus.jsonl and no docs-\*.jsonl.gz in .*tiny"),
        ("corpus.jsonl", "", r"corpus.jsonl: the corpus is empty"),
        ("corpus.jsonl", rows({"_id": "d1", "text": "x"}) + "{oops\n", r"corpus.jsonl:2: not JSON"),
        ("corpus.jsonl", rows({"_id": "d1", "text": "x"}, [1]), r"corpus.jsonl:2: expected a JSON object, found list"),
        ("corpus.jsonl", rows({"_id": "d1", "body": "x"}), r"corpus.jsonl:1: expected a string in field 'text', found only"),
        ("corpus.jsonl", '{"_id": "d1", "text": "\\ud800"}\n', r"corpus.jsonl:1: field 'text' is not valid Unicode"),
        ("corpus.jsonl", rows(*({"_id": f"d{i % 6}", "text": "x"} for i in range(1, 9))),
         r"corpus.jsonl:7: document id 'd1' occurs twice, first in .*corpus.jsonl:1"),
        ("queries.jsonl", rows({"_id": "q1", "text": "x"}, {"_id": "q1", "text": "y"}), r"queries.jsonl:2: .*'q1' occurs twice"),
        ("queries.jsonl", rows({"_id": "q1", "text": "x"}), r"test.tsv: 2 of 3 queries are not in .*queries.jsonl.*'q2'"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td77\t1\n", r"1 of 1 relevant documents are not in .*'d77'"),
        ("qrels/test.tsv", "q1\td1\tgood\n", r"test.tsv:1: score 'good' is not an integer"),
        ("qrels/test.tsv", "q1 d1\n", r"test.tsv:1: expected query-id, corpus-id and score"),
        ("qrels/test.tsv", "q1\td1\t1\nq1\td1\t0\n", r"test.tsv:2: document 'd1' is judged twice"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\n", r"test.tsv holds no judgements"),
    ],
)  # fmt: skip
def test_broken_retrieval_sets(cli, beir, file, text, part):
    (beir / file).unlink()
    if text is not None:
        (beir / file).write_text(text)
    with pytest.raises(InputError, match=part):
        only(["tiny"], beir.parent).check()
    code, out, err = cli("tiny", "--data", beir.parent)
    assert (code, out) == (2, "")
    assert "moembed: error: " in err


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("s.jsonl", rows({"sentence1": "a", "score": 1}), r"s.jsonl:1: expected a string in field 'sentence2'"),
        ("s.jsonl", rows({"sentence1": "a", "sentence2": "b"}), r"s.jsonl:1: expected a number in field 'score'"),
        ("s.jsonl", rows({"sentence1": "a", "sentence2": "b", "score": 1}), r"s.jsonl holds 1 pairs"),
        ("s.csv", "a,b,1\nc,d,1\n", r"s.csv: every score is 1.0"),
        ("s.csv", "a,b,1\nc,d,nan\n", r"s.csv:2: score 'nan' is not a number"),
        ("s.tsv", "a\tb\nc\n", r"s.tsv:2: expected 2 columns, found 1"),
        ("s.tsv", "a\tb\tc\td\te\n", r"s.tsv:1: expected a header .* found 5 columns"),
        ("s.tsv", b"a\tb\n\xe4\tc\n", r"s.tsv:2: not UTF-8 at byte 0"),
        ("s.tsv.gz", b"a\tb\n", r"s.tsv.gz cannot be read"),
    ],
)
def test_broken_pair_files(tmp_path, name, text, part):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=part):
        only(["s"], tmp_path)


def test_missing_datasets_are_all_listed(cli, beir, monkeypatch):
    monkeypatch.delenv("MOEMBED_DATA", raising=False)
    code, _, err = cli("beir", "tiny", "--data", beir.parent)
    assert code == 2
    assert err.count("no such folder or file: looked for ") == 14 + 12, "cqadupstack has twelve parts"
    assert f"scifact: no such folder or file: looked for {beir.parent / 'scifact'}" in err
    assert "tiny:" not in err
    _, _, err = cli("miracl-16")
    assert str(Path("miracl") / "miracl-v1.0-sw") in err
    assert "--data FOLDER or $MOEMBED_DATA, and neither is set" in err
    assert cli("tiny:s.tsv", "--data", beir.parent)[0] == 2


def test_the_published_groups():
    groups = published()["groups"]
    assert [len(groups[name]) for name in ("beir", "cqadupstack", "miracl", "miracl-16")] == [15, 12, 18, 16]
    assert set(groups["miracl"]) - set(groups["miracl-16"]) == {"miracl-de", "miracl-yo"}
    assert set(published()["sets"]) <= set(groups["beir"])


def test_means_count_a_group_in_a_group_once():
    def result(name, value):
        table = {Variant(8, "int8"): {"nDCG@10": value}}
        return Result(name, "retrieval", {}, {}, 0, 0.0, table, table)

    def task(name):
        return Dataset(name, Retrieval(name, Path(), Path(), ()))

    inner = Dataset("inner", members=(task("b"), task("c")))
    results = {name: result(name, value) for name, value in (("a", 1), ("b", 2), ("c", 6))}
    found = list(means([Dataset("outer", members=(task("a"), inner))], results))
    assert [(mean.name, mean.figures[Variant(8, "int8")]["nDCG@10"]) for mean in found] == [
        ("inner", 4),
        ("outer", 2.5),
    ]


def test_differences():
    assert difference("retrieval", 0.49, 0.5) == (pytest.approx(-2), "%")
    assert difference("similarity", 0.81, 0.8) == (pytest.approx(1), "points")
    assert difference("retrieval", 0.1, 0.0) == (0.0, "%")


# The command


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
    assert all(line.endswith("| +0.00 % |") for line in lines if line.startswith("| tiny |"))
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
    assert "moembed: tiny: 8 texts, 3 queries, 5 documents\n" in words


def test_the_root_from_the_environment_and_a_group_mean(cli, tmp_path, monkeypatch):
    (tmp_path / "t").mkdir()
    for name in ("deu-eng", "fra-eng"):
        (tmp_path / "t" / f"{name}.tsv").write_text("Brot\tbread\nKatze\tcat\n")
    monkeypatch.setenv("MOEMBED_DATA", str(tmp_path))
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

    from moembed.quantize.evaluation import report

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
    from moembed.quantize.evaluation import results

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
    for name in [name for name in sys.modules if name.startswith((package, "moembed.quantize.evaluation"))]:
        monkeypatch.delitem(sys.modules, name)
    import moembed.quantize as parent

    monkeypatch.delattr(parent, "evaluation", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    code, _, err = cli(beir, "--plot", tmp_path / "p.png")
    assert code == 2
    assert package in err
    assert 'pip install "moembed[eval]"' in err


# Real data, where it is there

EVAL_DATA = Path(os.environ.get("MOEMBED_EVAL_DATA") or Path(__file__).parents[2] / "shared" / "data" / "eval")


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
