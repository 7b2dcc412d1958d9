"""Engines that are not installed: an error that names the extra, before anything is computed."""

import sys

import pytest

from moembed.cli import main
from moembed.errors import MissingExtraError
from moembed.integrations.ray import embed_dataset
from moembed.integrations.spark import embed_udf


def test_ray(monkeypatch, tmp_path, capsys):
    for name in ("ray", "ray.data"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r'pip install "moembed\[ray\]"'):
        embed_dataset(None, actors=1)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.txt").write_text("a\n")
    assert main(["embed", "-i", "d.txt", "-o", "out/", "--engine", "ray"]) == 2
    err = capsys.readouterr().err
    assert 'pip install "moembed[ray]"' in err
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("out/rows-*"))


def test_spark(monkeypatch):
    for name in ("pyspark", "pyspark.sql"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r'pip install "moembed\[spark\]"'):
        embed_udf()
