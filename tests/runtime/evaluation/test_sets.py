"""What `moembed evaluate` reads: BEIR, MIRACL, STS and bitext layouts, prompts of every side, and errors that say where."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from moembed.errors import InputError
from moembed.evaluation.datasets import find, published
from moembed.evaluation.embedding_cache import prompt_of
from moembed.evaluation.folders import documents
from moembed.evaluation.tasks import Bitext, Retrieval, Similarity
from support.evaluation_sets import (
    JUDGED,
    QUERIES,
    TEXTS,
    by_hand,
    measured,
    only,
    rows,
    write_beir,
    write_miracl,
)


def test_beir_against_brute_force(beir, model):
    task = only(["tiny"], beir.parent)
    assert task.check() == {"texts": 8, "queries": 3, "documents": 5, "judgements": 5, "absent": 0}
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


@pytest.mark.parametrize(
    ("name", "expected"), [("arguana", True), ("quora", True), ("fiqa", False), ("scifact", False)]
)
def test_equal_ids_mean_the_query_itself_in_two_sets(tmp_path, name, expected):
    """M42: elsewhere both are numbers, and dropping such documents changes figures."""
    write_beir(tmp_path / name)
    assert only([name], tmp_path).same_id_is_query is expected


@pytest.mark.parametrize("title", ["absent", None, "", "   "])
def test_a_document_without_a_title_is_its_text_alone(tmp_path, title):
    """M45."""
    folder = write_beir(tmp_path / "x")
    record = {"_id": "d1", "text": "body"} | ({} if title == "absent" else {"title": title})
    (folder / "corpus.jsonl").write_text(rows(record, {"_id": "d2", "title": "body", "text": "body and more"}))
    assert [one.text for one in documents(only(["x"], tmp_path).corpus)] == ["body", "body body and more"]


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
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\n", r"test.tsv has no judgements"),
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
        ("s.jsonl", rows({"sentence1": "a", "sentence2": "b", "score": 1}), r"s.jsonl has 1 pairs"),
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
    monkeypatch.delenv("MOEMBED_DATASETS", raising=False)
    code, _, err = cli("beir", "tiny", "--data", beir.parent)
    assert code == 2
    assert err.count("no such folder or file: looked for ") == 14 + 12, "cqadupstack has twelve parts"
    assert f"scifact: no such folder or file: looked for {beir.parent / 'scifact'}" in err
    assert "tiny:" not in err
    _, _, err = cli("miracl-16")
    assert str(Path("miracl") / "miracl-v1.0-sw") in err
    assert "--data FOLDER or $MOEMBED_DATASETS, and neither is set" in err
    assert cli("tiny:s.tsv", "--data", beir.parent)[0] == 2


def test_the_published_groups():
    groups = published().groups
    assert [len(groups[name]) for name in ("beir", "cqadupstack", "miracl", "miracl-16")] == [15, 12, 18, 16]
    assert set(groups["miracl"]) - set(groups["miracl-16"]) == {"miracl-de", "miracl-yo"}
    assert set(published().sets) <= set(groups["beir"])
