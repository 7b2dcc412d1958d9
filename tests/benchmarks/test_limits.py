"""The limits of the machine: they are measured, belong to the unit that the kernels use, and bound what a call has to do."""

import json
import subprocess
from pathlib import Path

import limits
import numpy as np
import operators
import pytest

from moembed.inference.kernels import usable_kernels
from support.native_build import build, compile_for_aarch64, kept_program

FOUND = {
    "units": {
        "amx": {
            "clock_ghz": 3.0,
            "shared": {"samples": 9, "registers": 5.0, "rate": 4.0},
            "alone": {"samples": 1, "registers": 9.0, "rate": 7.0},
            "disturbed": {"samples": 1, "registers": 9.9, "rate": 9.9},
        },
        "avx2": {"between": {"samples": 3, "registers": 0.5, "rate": 0.4}},
        "float32": {"alone": {"samples": 3, "registers": 0.4, "rate": 0.3}},
    },
    "memory": {"weights": {"bytes": 10, "shared": {"samples": 3, "rate": 20.0}}},
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Figures of the program, which is compiled once for all tests here."""
    try:
        compiler = build.find_compiler()
    except build.BuildError as error:
        pytest.skip(str(error))
    if build.Target.of().system == "windows":
        pytest.skip("limits.cpp maps files as POSIX does")
    folder, own = tmp_path_factory.mktemp("limits"), Path(limits.__file__)
    sources = [own, own.with_suffix(".cpp"), *limits.UNITS.glob("*"), *limits.KERNELS.glob("*")]
    program = kept_program("limits", sources, compiler, lambda: limits.compile_limits(folder), folder / "limits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "compile_limits", lambda _: program)
        yield limits.measured(1, samples=4)


def test_every_unit_of_the_kernels_is_measured(measured):
    names = {name for name in usable_kernels() if name not in ("portable", "plain")}
    assert names | {"float32"} == set(measured["units"])
    for name, unit in measured["units"].items():
        states = [unit[state] for state in limits.STATES if state in unit]
        assert sum(one["samples"] for one in states) == 4, name
        assert all(one["registers"] > 0 and one["rate"] > 0 for one in states)
    assert measured["memory"]["weights"]["bytes"] == 250 << 20


def test_the_file_of_weights_is_read(measured, tmp_path):
    (tmp_path / "weights").write_bytes(bytes(1 << 20))
    assert limits.measured(1, tmp_path / "weights", 1)["memory"]["weights"]["bytes"] == 1 << 20
    with pytest.raises(subprocess.CalledProcessError):
        limits.measured(1, tmp_path / "absent", 1)


def test_limits_are_those_of_the_unit_in_its_best_state():
    assert [limits.unit_of(FOUND, kernels) for kernels in ("amx", "avx2", "portable", "plain")] == [
        "amx",
        "avx2",
        "amx",
        "amx",
    ]
    assert limits.limits_of(FOUND, "amx") == {
        "int8_tops": 9.0,
        "product_tops": 7.0,
        "float32_tflops": 0.3,
        "memory_gbs": 20.0,
    }
    assert limits.limits_of(FOUND, "avx2")["product_tops"] == 0.4
    assert limits.best_state(FOUND["units"]["amx"])[0] == "alone"


def test_the_least_time():
    best = {"int8_tops": 4.0, "product_tops": 2.0, "float32_tflops": 1.0, "memory_gbs": 10.0}
    reading = {"bytes": 1e8, "int8": 1e9, "float32": 0.0}
    computing = {"bytes": 1e6, "int8": 1e10, "float32": 1e9, "attention16": 1e10}
    assert limits.least_ms([reading], best) == pytest.approx(10.0)
    assert limits.least_ms([reading, computing], best, halves=limits.halves_of("amx")) == pytest.approx(10 + 5 + 1 + 10)
    assert limits.least_ms([computing], best, halves=limits.halves_of("avx2")) == pytest.approx(5 + 1 + 5)


def test_experts_are_those_that_the_graph_chooses(int8):
    layers, most = len(int8.manifest.routers), int8.manifest.num_experts
    (one,) = {tuple(limits.experts_in_use(int8, batch)) for batch in ([[7]], [[7], [7]])}
    assert len(one) == layers
    config = json.loads((int8.folder / "config.json").read_text())
    assert set(one) == {config["moe_top_k"]}  # of a single token
    many = limits.experts_in_use(int8, [list(range(5, 100))])
    assert all(few <= count <= most for few, count in zip(one, many, strict=True))
    assert limits.work(int8, [[7]])["bytes"] < limits.work(int8, [list(range(5, 100))])["bytes"]


def test_operators_have_the_work_of_the_whole_call(int8):
    """What is known of each operator's work adds up to what is known of the whole."""
    ids = np.random.default_rng(0).integers(5, 90, (3, 17))
    found = operators.events(int8, ids, 1)
    total = limits.work(int8, ids.tolist())
    for key in ("bytes", "int8", "float32", "attention16"):
        assert sum(operators.work_of(event)[key] for event in found) / operators.CALLS == pytest.approx(total[key]), key


def test_the_line_about_products():
    shapes = [{"uint8": [4, 768]}, {"float": [4, 1]}, {"int8": [48, 192, 16, 4]}]
    event = {"args": {"op_name": "Int8Linear", "input_type_shape": shapes}, "dur": 1000.0}
    line = operators.summary("4x1", [event] * operators.CALLS, {"product_tops": 2 * 4 * 768 * 768 / 1e9}, "amx")
    assert "in 1.00 ms" in line
    assert "at least 100.0% of a product of matrices by amx" in line


@pytest.mark.emulation
def test_limits_of_arm(tmp_path, monkeypatch):
    compile_for_aarch64(monkeypatch)
    program = limits.compile_limits(tmp_path, "aarch64", ["-static"])
    for processor, names in (
        ("max", {"neoni8mm", "neon", "float32"}),
        ("neoverse-n1", {"neon", "float32"}),
        ("cortex-a72", {"float32"}),
    ):
        done = subprocess.run(
            ["qemu-aarch64", "-cpu", processor, program, "1", "1"], capture_output=True, text=True, check=True
        )
        assert set(json.loads(done.stdout)["units"]) == names
