"""The table of ways to embed in Spark: its form, and that the page has it."""

import pytest

pytest.importorskip("pyspark")

import spark_udfs


def test_the_median_counts():
    rounds = {"a way": [(9.0, 30, 3), (1.0, 30, 3), (2.04, 30, 3)]}
    lines = spark_udfs.table(1000, rounds, "A processor, kernels `avx2`").splitlines()
    assert lines[0].startswith("A processor, kernels `avx2`. 1,000 rows")
    assert "median of 3 rounds" in lines[0]
    assert lines[-1] == "| a way | 2.0 | 30 | 3 |"


def test_the_page_has_the_table():
    shown = spark_udfs.TABLE.shown()
    assert "| predict_batch_udf |" in shown
    assert ", kernels `" in shown.splitlines()[0]
