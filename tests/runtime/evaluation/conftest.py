"""Fixtures of the evaluation tests."""

from functools import partial

import pytest

from support.evaluation_sets import evaluate, write_beir


@pytest.fixture
def beir(tmp_path):
    return write_beir(tmp_path / "data" / "tiny")


@pytest.fixture
def cli(capsys):
    return partial(evaluate, capsys)
