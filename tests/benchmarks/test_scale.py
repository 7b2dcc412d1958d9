"""The tables of docs/scale.md: the arithmetic, and that they are those of the last measurement."""

import json

import pytest
import scale

RESULT = {
    "cpu": "A processor",
    "cpus": 2,
    "kernels": "avx2",
    "dim": 384,
    "cells": {
        tokens: {
            "1": {"rate": 10_000.0, "share": 0.996, "tokens": 127.6},
            "2": {"rate": 16_000.0, "share": 0.9, "tokens": 127.6},
        }
        for tokens in ("128", "480")
    },
}


def test_rates_and_efficiency():
    row = scale.throughput_table({"a model": RESULT}).splitlines()[2]
    assert row == "| a model, A processor, kernels `avx2` | 128 | 10,000 | 16,000 | 0.80 | 35 | 1.00, 0.90 |"


def test_a_plan_counts_tokens_cores_and_bytes():
    first, second = scale.plan_table({"a model": RESULT}).splitlines()[2:]
    hours = 1e9 * 200 / 8000 / 3600
    assert hours == pytest.approx(scale.core_hours(1e9 * 200, 8000))
    assert f"| {hours:,.0f} | 10 | {hours / 320 / 0.8:.1f} |" in first
    assert "| 1.54 TB | 0.77 TB | 0.39 TB | 0.05 TB |" in first
    assert "| 10^11 |" in second
    assert "| 153.60 TB |" in second


def test_the_page_has_the_last_measurement():
    if not scale.RESULTS.exists():
        assert scale.THROUGHPUT.shown() == scale.PLAN.shown() == ""
        return
    results = json.loads(scale.RESULTS.read_text("utf-8"))
    assert scale.THROUGHPUT.shown() == scale.throughput_table(results)
    assert scale.PLAN.shown() == scale.plan_table(results)
