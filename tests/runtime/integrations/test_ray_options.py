"""Options of `--engine ray` that are refused before Ray starts."""

import pytest

from moembed.cli import main


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "out/", "--ray-address", "10.0.0.1:6379"], "--ray-address is for --engine ray"),
        (["-o", "out/", "--engine", "ray", "--provider", "cuda"], "--engine ray computes on CPUs"),
        (["-o", "out/", "--engine", "ray", "--workers", "0"], "--workers 0; expected a positive integer"),
        (["-o", "out/", "--engine", "ray", "--threads", "0"], "--threads 0; expected an integer"),
        (["-o", "out.jsonl", "--engine", "ray"], "--engine is for runs into a folder"),
        (["-o", "out.jsonl", "--ray-address", "x"], "--ray-address is for runs into a folder"),
    ],
)
def test_refused(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.jsonl").write_text('{"text": "a"}\n')
    assert main(["embed", "-i", "texts.jsonl", *options]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert [path.name for path in tmp_path.iterdir()] == ["texts.jsonl"]
