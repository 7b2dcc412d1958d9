"""Every table of kernels on random shapes in buffers of exact size: `pytest -m sanitize`; and `-m emulation` for NEON.

`native/driver.cpp` compares each instruction set's bytes with those of plain C++ and prints a hash of them.
"""

import os
import shutil
import subprocess

import pytest

from support.folders import ROOT
from support.native_build import build, compile_for_aarch64, compiled

DRIVER = ROOT / "tests" / "native" / "driver.cpp"
EMULATED_TILES = ["-include", str(ROOT / "tests" / "native" / "amx_emulated.h"), "-DMOEMBED_AMX_EMULATED"]


def ran(command, *, shapes):
    done = subprocess.run(
        [*map(str, command), os.environ.get("MOEMBED_FUZZ_SEED", "0"), str(shapes)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-6000:]
    cpu, tables, hashed = done.stdout.splitlines()
    return cpu.removeprefix("cpu: "), tables.removeprefix("tables: ").split(), hashed


@pytest.mark.sanitize
@pytest.mark.parametrize("checks", ["address,undefined", "thread"])
def test_kernels_pass_the_sanitizers(tmp_path, checks):
    flags = ["-O1", f"-fsanitize={checks}", "-fno-sanitize-recover=all"]
    flags += EMULATED_TILES if build.Target.of().machine == "x86_64" else []
    driver = compiled(DRIVER, tmp_path / "driver", "-g", *flags)
    _, tables, _ = ran([driver], shapes=400 if checks != "thread" else 100)
    print(f"{checks}: {', '.join(tables)}")
    assert "plain" in tables


@pytest.mark.emulation
def test_aarch64_gives_the_same_bytes(tmp_path, monkeypatch):
    """NEON with and without matrix products of bytes, and plain C++ there, against this machine."""
    here = compiled(DRIVER, tmp_path / "here" / "driver", "-g")
    compile_for_aarch64(monkeypatch)
    target = build.Target("linux", "aarch64")
    there = compiled(DRIVER, tmp_path / "there" / "driver", "-g", "-static", target=target)
    *_, expected = ran([here], shapes=60)
    for processor, cpu, tables in (
        ("max", None, ["neoni8mm", "neon", "plain"]),
        ("neoverse-n1", "Neoverse N1: asimddp", ["neon", "plain"]),
        ("cortex-a72", "Cortex-A72: ", ["plain"]),
    ):
        found = ran(["qemu-aarch64", "-cpu", processor, there], shapes=60)
        assert found[1:] == (tables, expected)
        assert cpu in (found[0], None)


@pytest.mark.emulation
@pytest.mark.parametrize(("processor", "tables"), [("Nehalem", ["plain"]), ("Haswell", ["avx2", "plain"])])
def test_old_x86_gives_the_same_bytes(tmp_path, processor, tables):
    """K06 and K09: also what runs amd64 images on other processors, which often have no AVX."""
    if build.Target.of().machine != "x86_64" or not shutil.which("qemu-x86_64"):
        pytest.skip("needs x86-64 and qemu-user: apt-get install qemu-user")
    driver = compiled(DRIVER, tmp_path / "driver", "-g")
    *_, expected = ran([driver], shapes=20)
    assert ran(["qemu-x86_64", "-cpu", processor, driver], shapes=20)[1:] == (tables, expected)
