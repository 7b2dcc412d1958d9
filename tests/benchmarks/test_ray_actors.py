"""The table of actors: rates from the blocks of each, and that the page has it."""

import pytest

pytest.importorskip("ray")

import ray_actors


def test_an_actor_has_the_time_from_its_first_block_to_its_last():
    blocks = [
        {"pid": 1, "begin": 0.0, "end": 1.0, "tokens": 100},
        {"pid": 2, "begin": 3.0, "end": 4.0, "tokens": 300},
        {"pid": 1, "begin": 1.5, "end": 2.0, "tokens": 100},
    ]
    assert ray_actors.rates(blocks) == [100.0, 300.0]


def test_the_table_compares_actors():
    lines = ray_actors.rows_of({1: (1000.0, 7), 2: (1800.0, 14)}, "What.").splitlines()
    assert lines[-2:] == ["| 1 | 1,000 | 1,000 | 1.00 | 7 |", "| 2 | 1,800 | 900 | 0.90 | 14 |"]


def test_the_page_has_the_table():
    shown = ray_actors.TABLE.shown()
    assert shown == "" or "| actors | tokens/s |" in shown
