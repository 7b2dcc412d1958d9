"""Vectors of a run: each is checked before it is written, and a text that occurs twice is computed once."""

import numpy as np
import pyarrow.parquet as pq

from moembed.errors import BundleError
from moembed.inference.session import Session
from support.corpora import rejects, write_jsonl


def test_vectors_are_checked_before_they_are_written(run, model, here, monkeypatch):
    """Faults of one text of 64: the others are written, and nothing takes its place."""
    texts = [f"text {number}" for number in range(64)]
    write_jsonl(here / "d.jsonl", [{"text": text} for text in texts])
    (bad,) = model.tokenizer.encode([texts[40]], prefix="")
    real = Session.run

    def faulty(kind):
        def session_run(self, output, ids, mask):
            result = real(self, output, ids, mask)
            hit = [row for row in range(len(ids)) if ids[row, : len(bad)].tolist() == bad.tolist()]
            if hit and kind == "exception":
                raise BundleError("injected")
            for row in hit:
                result[row] = {"nan": np.nan, "zeros": 0.0, "norm": result[row] * 1.01, "exception": 0}[kind]
            return result

        return session_run

    expected = model.encode(texts, prompt="", truncate_dim=8)
    for kind in ("nan", "zeros", "norm", "exception"):
        with monkeypatch.context() as patch:
            patch.setattr(Session, "run", faulty(kind))
            run("d.jsonl", kind, on_error="skip", shard_rows=100)
        table = pq.read_table(kind)
        assert table["index"].to_pylist() == [n for n in range(64) if n != 40]
        assert np.array_equal(np.array(table["embedding"].to_pylist(), np.float32), np.delete(expected, 40, 0))
        (reject,) = rejects(here / kind)
        assert reject["index"] == 40
        assert any(word in reject["reason"] for word in ("length", "injected"))


def test_a_text_that_occurs_twice_is_computed_once(run, here, monkeypatch):
    write_jsonl(here / "d.jsonl", [{"text": f"text {number % 5}"} for number in range(50)])
    real, rows = Session.run, []
    monkeypatch.setattr(
        Session, "run", lambda self, output, ids, mask: rows.append(len(ids)) or real(self, output, ids, mask)
    )
    run("d.jsonl", shard_rows=100)
    assert sum(rows) == 5
    assert len(pq.read_table("out")) == 50
