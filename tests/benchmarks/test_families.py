"""The table of all families: the fastest mode of each program, and the page beside the stored measurements."""

import json

import pytest
from families import MINILM, RESULTS, SHAPES, TABLE, table

from support.full_networks import SIZES


def _model(times, long):
    names = ("moembed int8", "torch fp32", "torch bf16", "OpenVINO bf16", "OpenVINO int8 weights, dynamic int8")
    return {
        "size": 100e6,
        "parameters": 300_000_000,
        "limit": 8192,
        "cosines": dict(zip(names, (0.998, 1.0, 0.999, 0.9995, 0.99), strict=True)),
        "versions": dict.fromkeys(names, "x 1.0"),
        "times": {shape: dict(zip(names, ([one] for one in times), strict=True)) for shape in SHAPES},
        "long": long,
    }


def _cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_fastest_mode_of_each_program_counts():
    long = {"ms": 8000.0, "private_mb": 1.0, "peak_mb": 1234.0}
    kinds = {"a": {"cpu": "A", "kernels": "k", "models": {"one": _model((10, 40, 20, 15, 30), long)}}}
    _, _, _, _, ours, torch, openvino, ratio, *_ = table(kinds).splitlines()
    assert _cells(ours) == ["one", "300", "100", "moembed", *["10.0"] * 4, "8,000, 1,234", "0.9980"]
    assert _cells(torch)[3:] == ["torch bf16", *["20.0"] * 4, "", "0.9990"]
    assert _cells(openvino)[3:] == ["OpenVINO bf16", *["15.0"] * 4, "", "0.9995"]
    assert _cells(ratio)[3:8] == ["best peer / ours", *["1.50"] * 4]


def test_a_shape_over_the_limit_is_left_out():
    model = _model((10, 40, 20, 15, 30), None)
    del model["times"]["1x512"]
    _, _, _, _, ours, _, _, ratio, *_ = table(
        {"a": {"cpu": "A", "kernels": "k", "models": {"one": model}}}
    ).splitlines()
    assert _cells(ours)[4:8] == ["10.0", "10.0", "over the limit", "10.0"]
    assert _cells(ratio)[4:8] == ["1.50", "1.50", "", "1.50"]


def test_the_page_has_the_stored_measurements():
    if not RESULTS.exists():
        pytest.skip("nothing is measured yet")
    found = json.loads(RESULTS.read_text("utf-8"))
    assert TABLE.shown() == table(found)
    for kind in found.values():
        assert kind["models"].keys() <= {MINILM, *SIZES}
