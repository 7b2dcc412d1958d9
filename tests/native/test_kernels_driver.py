"""Every table of kernels on random shapes in buffers of exact size: `pytest -m sanitize`; and `-m emulation` for NEON.

`native/driver.cpp` compares each instruction set's bytes with those of plain C++ and prints a hash of them.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib

import pytest

from support.folders import ROOT

NATIVE, DRIVER = ROOT / "runtime" / "native", ROOT / "tests" / "native" / "driver.cpp"
EMULATED_TILES = ["-include", str(ROOT / "tests" / "native" / "amx_emulated.h"), "-DMOEMBED_AMX_EMULATED"]
AARCH64 = [sys.executable, "-m", "ziglang", "c++", "-target", "aarch64-linux-musl"]


def compiled(folder, machine, compiler, *flags):
    """The driver with the kernels of sources.toml, each with its own flags."""
    recipe = tomllib.loads((NATIVE / "sources.toml").read_text("utf-8"))
    objects, running = [], []
    groups = [(["driver"], [])] + [
        (group["files"], group.get("gnu", []))
        for group in recipe["sources"]
        if group.get("machine", machine) == machine
    ]
    for files, own in groups:
        for name in files:
            source = DRIVER if name == "driver" else NATIVE / name
            if name != "driver" and not name.startswith("kernels/"):
                continue
            objects.append(folder / f"{len(objects)}.o")
            command = [*compiler, "-std=c++17", "-O1", "-g", "-ffp-contract=off", *own, *flags, "-c", source]
            running.append(subprocess.Popen([*map(str, command), "-o", objects[-1]]))
    assert not any(process.wait() for process in running)
    driver = folder / "driver"
    subprocess.run([*compiler, *flags, *objects, "-pthread", "-o", driver], check=True)
    return driver


def ran(command, *, shapes, **environment):
    done = subprocess.run(
        [*map(str, command), os.environ.get("MOEMBED_FUZZ_SEED", "0"), str(shapes)],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-6000:]
    tables, hashed = done.stdout.splitlines()
    return tables.removeprefix("tables: ").split(), hashed


def compiler():
    found = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if not found:
        pytest.skip("needs g++ or clang++")
    return found.split()


def machine():
    return {"AMD64": "x86_64", "arm64": "aarch64"}.get(os.uname().machine, os.uname().machine)


@pytest.mark.sanitize
@pytest.mark.parametrize("checks", ["address,undefined", "thread"])
def test_nothing_is_touched_that_should_not_be(tmp_path, checks):
    flags = [f"-fsanitize={checks}", "-fno-sanitize-recover=all"]
    flags += EMULATED_TILES if machine() == "x86_64" else []
    driver = compiled(tmp_path, machine(), compiler(), *flags)
    tables, _ = ran([driver], shapes=400 if checks != "thread" else 100)
    print(f"{checks}: {', '.join(tables)}")
    assert "plain" in tables


@pytest.mark.emulation
def test_aarch64_gives_the_same_bytes(tmp_path):
    """NEON with and without matrix products of bytes, and plain C++ there, against this machine."""
    if importlib.util.find_spec("ziglang") is None or not shutil.which("qemu-aarch64"):
        pytest.skip("needs ziglang and qemu-user: pip install ziglang; apt-get install qemu-user")
    folders = [tmp_path / "here", tmp_path / "there"]
    for folder in folders:
        folder.mkdir()
    here = compiled(folders[0], machine(), compiler())
    there = compiled(folders[1], "aarch64", AARCH64, "-static")
    _, expected = ran([here], shapes=60)
    for processor, tables in (
        ("max", ["neoni8mm", "neon", "plain"]),
        ("neoverse-n1", ["neon", "plain"]),
        ("cortex-a72", ["plain"]),
    ):
        assert ran(["qemu-aarch64", "-cpu", processor, there], shapes=60) == (tables, expected)
