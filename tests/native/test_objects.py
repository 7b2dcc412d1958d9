"""Instructions of each object file: `pytest -m sanitize` (needs g++ or clang++, and objdump)."""

import re
import shutil
import subprocess
import tomllib

import pytest

from support.native_build import NATIVE, build

pytestmark = pytest.mark.sanitize
# Registers that an instruction set adds.
REGISTERS = {
    "ymm": re.compile(r"%ymm\d"),
    "EVEX": re.compile(r"%(zmm\d|[xy]mm(1[6-9]|2\d|3[01])|k[0-7]\b)"),
    "tmm": re.compile(r"%tmm\d|tilerelease|ldtilecfg"),
}
ALLOWED = {
    "isa_avx2": {"ymm"},
    "isa_avxvnni": {"ymm"},
    "isa_avx512vnni": {"ymm", "EVEX"},
    "isa_amx": {"ymm", "EVEX", "tmm"},
}


def test_instructions_are_where_they_are_asked_for(tmp_path):
    """K07: code that runs before the processor is known, or for another table, has none of its instructions."""
    if not shutil.which("objdump"):
        pytest.skip("needs objdump: apt-get install binutils")
    target = build.Target.of()
    if target.machine != "x86_64":
        pytest.skip("reads x86-64 instructions")
    toolchain = build._toolchain(target, [])
    found = {}
    for source, group in build.sources_of(tomllib.loads((NATIVE / "sources.toml").read_text("utf-8")), target.machine):
        object_ = tmp_path / f"{source.parent.name}_{source.stem}.o"
        subprocess.run(toolchain.compile(source, object_, group), check=True)
        text = subprocess.run(["objdump", "-d", object_], capture_output=True, text=True, check=True).stdout
        found[object_.stem.removeprefix("kernels_")] = {name for name, which in REGISTERS.items() if which.search(text)}
    assert {name: sets for name, sets in found.items() if sets} == ALLOWED
    assert "select" in found
