"""The table of the built-in model in docs/benchmarks.md: what was measured, rendered, and about the bundle that is built in."""

import json

import pytest
import table as generator
from blocks import Block

TABLE = {
    "bundle": {
        "recipe": "int8",
        "size": 53_600_000,
        "embedding_mean_cosine": 0.99958,
        "neighbour_overlap": 0.9725,
        "quality": {
            "a": {"figure": "nDCG@10", "value": 0.5, "baseline": 0.51},
            "b": {"figure": "Spearman", "value": 0.8, "baseline": 0.8},
            "c": {"figure": "nDCG@10", "value": 0.704, "baseline": 0.7},
        },
    },
    "reference": {"recipe": "fp32", "size": 203_700_000},
    "machine": {"cpu": "A processor", "threads": 2, "onnxruntime": "1.31.1", "rounds": 25},
    "milliseconds": {
        "1x16": {"bundle": 2.0, "reference": 4.1},
        "1x128": {"bundle": 10.0, "reference": 31.0},
        "8x128": {"bundle": 50.0, "reference": 100.0},
    },
}


def test_the_page_shows_what_was_measured_of_the_built_in_bundle(model):
    shown = generator.BLOCK.shown()
    if not generator.RESULT.exists():
        assert shown == "", "a table without table.json: run tests/benchmarks/table.py"
        pytest.skip("not measured yet: python tests/benchmarks/table.py FP32_BUNDLE")
    table = json.loads(generator.RESULT.read_text("utf-8"))
    again = "run tests/benchmarks/table.py again"
    assert shown == generator.render(table), f"the page was edited by hand: {again}"
    assert table["bundle"] == generator.identity(model.bundle), f"another bundle, or certificate, was measured: {again}"


def test_rendering():
    lines = generator.render(TABLE).splitlines()
    assert lines[0] == "A processor, 2 threads, onnxruntime 1.31.1, medians of 25 interleaved rounds."
    assert lines[2] == "| built-in model | int8 | fp32 | |"
    assert lines[4:] == [
        "| size, MB | 53.6 | 203.7 | 3.8 times smaller |",
        "| one text of 16 tokens, ms | 2.0 | 4.1 | 2.0 times as fast |",
        "| one text of 128 tokens, ms | 10.0 | 31.0 | 3.1 times as fast |",
        "| 8 texts of 128 tokens, tokens/s | 20,480 | 10,240 | 2.0 times as fast |",
        "| mean cosine to fp32 | 0.9996 | 1 |  |",
        "| of a text's 10 nearest, the same | 97.2% | 100% |  |",
        "| nDCG@10 x 100, mean of 2 sets | 60.20 | 60.50 | -1.00 to +0.40 points |",
        "| Spearman x 100, mean of 1 sets | 80.00 | 80.00 | +0.00 to +0.00 points |",
    ]


def test_times_are_kept_for_a_bundle_of_the_same_recipe(model, tmp_path, monkeypatch):
    monkeypatch.setattr(generator, "RESULT", path := tmp_path / "table.json")
    path.write_text(json.dumps(TABLE | {"bundle": TABLE["bundle"] | {"recipe": model.bundle.manifest.recipe}}), "utf-8")
    kept = generator.kept(model.bundle)
    assert kept["milliseconds"] == TABLE["milliseconds"]
    assert kept["bundle"] == generator.identity(model.bundle)
    path.write_text(json.dumps(TABLE), "utf-8")
    with pytest.raises(
        SystemExit, match="the measured bundle has the recipe int8, this one int8-table4: measure again"
    ):
        generator.kept(model.bundle)


def test_the_block_is_replaced_and_nothing_else(tmp_path):
    page = tmp_path / "page.md"
    text = "before\n<!-- x: run me -->\n{}<!-- end of x -->\nafter\n"
    page.write_text(text.format("old\n"), "utf-8")
    block = Block(page, "x", "run me")
    assert block.shown() == "old\n"
    block.write("new\n")
    assert page.read_text("utf-8") == text.format("new\n")
    with pytest.raises(ValueError, match="substring not found"):
        Block(page, "y", "run me").write("new")
