"""The Python of docs/scale.md runs, on a Ray and a Spark of this machine."""

import sys

import pyarrow.parquet as pq
import pytest

from support.folders import ROOT
from support.pages import pages

pytestmark = pytest.mark.engines
ray = pytest.importorskip("ray")
pytest.importorskip("pyspark")


def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)  # as an activated environment gives it
    (page,) = (page for page in pages() if page.path == ROOT / "docs" / "scale.md")
    names: dict[str, object] = {}
    try:
        for block in page.blocks("python"):
            exec(compile(block.code, page.name, "exec"), names)
    finally:
        ray.shutdown()
        if "spark" in names:
            names["spark"].stop()
    for name in ("vectors", "spark-vectors"):
        rows = {
            row["id"]: row for file in (tmp_path / name).glob("*.parquet") for row in pq.read_table(file).to_pylist()
        }
        assert len(rows[1]["embedding"]) == 384
        assert rows[2]["embedding"] is None
