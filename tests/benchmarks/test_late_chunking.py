"""The measurement of late chunking: scores by the best window, joined texts and their spans, and what the page shows."""

import late_chunking
import numpy as np
import pytest
from late_chunking import JOINED, WINDOWS, Keeper, Retrieval, joined, ndcg

from support.evaluation_sets import TEXTS, write_beir

NAMES = ["a", "b", "c"]
OWN = Retrieval(NAMES, NAMES, {"q": "q", "r": "r"}, {"q": {"b": 1}, "r": {"c": 1}})


def test_a_document_has_the_score_of_its_best_window():
    vectors = np.array([[0.9, 0], [0.1, 0], [1.0, 0], [0, 0.5], [0, 0.4], [0, 0]], np.float32)
    owners = np.array([0, 1, 1, 1, 2, 2])
    found = ndcg(np.eye(2, dtype=np.float32), vectors, owners, OWN)
    # q: b, a, c. r: b, c, a.
    assert found.tolist() == pytest.approx([1.0, 1 / np.log2(3)])


def test_spans_are_the_parts_of_joined_texts():
    texts = [f"text {row} " * row for row in range(1, 13)]
    together, spans = joined(texts)
    assert [len(spans[text]) for text in together] == [5, 5, 2]
    parts = [text[start:end] for text in together for start, end in spans[text]]
    assert parts == texts


def test_results_are_kept_by_what_they_depend_on(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return {"late": np.array([0.5, 0.25])}

    for model, about in (("m", "a"), ("m", "a"), ("m", "b"), ("n", "a")):
        assert Keeper(tmp_path / "w", model).kept(make, about)["late"].tolist() == [0.5, 0.25]
    assert len(calls) == 3
    Keeper(None, "m").kept(make, "a")
    assert len(calls) == 4


def test_the_command_prints_both_tables(tmp_path, monkeypatch, capsys):
    write_beir(tmp_path / "tiny")
    argv = ["late_chunking", "--data", str(tmp_path), "--windows", "tiny", "--joined", "tiny"]
    monkeypatch.setattr("sys.argv", argv)
    late_chunking.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| tiny")]
    assert len(rows) == len(late_chunking.WINDOW_TOKENS) + 1
    first, last = rows[0].strip("| ").split(" | "), rows[-1].strip("| ").split(" | ")
    assert first[1:5] == [str(len(TEXTS)), "3", "64", str(len(TEXTS))], "short texts are one window each"
    assert last[1:4] == ["5", "1", "3"]
    for row in (first, last):
        assert all(0 <= float(cell) <= 1 for cell in row if cell.startswith("0."))


def test_the_page_has_the_tables():
    for block in (WINDOWS, JOINED):
        assert block.shown() == "" or "| late - alone |" in block.shown()
