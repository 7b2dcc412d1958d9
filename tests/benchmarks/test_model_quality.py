"""The command that writes the table of several models."""

import model_quality
from blocks import Block

from support.evaluation_sets import write_beir


def run(monkeypatch, *argv):
    monkeypatch.setattr("sys.argv", ["model_quality", *map(str, argv)])
    return model_quality.main()


def test_the_table_is_printed_and_written_with_the_machine(int8, bundle, tmp_path, monkeypatch, capsys):
    write_beir(tmp_path / "tiny")
    page = tmp_path / "page.md"
    page.write_text("<!-- models: x -->\nold\n<!-- end of models -->\nafter\n")
    monkeypatch.setattr(model_quality, "BLOCK", Block(page, "models", "x"))
    argv = ("tiny", "--data", tmp_path, "--model", int8.folder, "--model", bundle.folder)
    assert run(monkeypatch, *argv) == 0
    printed = capsys.readouterr().out
    assert "| nDCG@10, tiny |" in printed
    assert "old" in page.read_text(), "nothing is written that --publish did not ask for"
    assert run(monkeypatch, *argv, "--publish") == 0
    text = page.read_text()
    assert "old" not in text
    assert "| nDCG@10, tiny |" in text
    assert text.startswith("<!-- models: x -->\nSpeed: ")
    assert text.endswith("<!-- end of models -->\nafter\n")


def test_a_failed_command_writes_nothing(int8, tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("<!-- models: x -->\nold\n<!-- end of models -->\n")
    monkeypatch.setattr(model_quality, "BLOCK", Block(page, "models", "x"))
    assert run(monkeypatch, tmp_path / "none", "--model", int8.folder, "--publish") != 0
    assert "old" in page.read_text()


def test_the_page_has_the_table():
    assert "| nDCG@10, cranfield-en |" in model_quality.BLOCK.shown()
