"""What the registers of an x86 processor mean for the kernels, on machines that are not at hand; see `x86_check.cpp`."""

import subprocess

import pytest

from support.folders import ROOT
from support.native_build import compiled

CHECK = ROOT / "tests" / "native" / "x86_check.cpp"
# Sapphire Rapids with Linux: CPUID leaves 1 (ecx), 7 (ebx, ecx, edx), 7.1 (eax) and 0x1d.1 (ebx, ecx), and XCR0.
FMA, OSXSAVE, AVX, F16C = 1 << 12, 1 << 27, 1 << 28, 1 << 29
AVX512F, AVX512DQ, AVX512BW, AVX512VL = 1 << 16, 1 << 17, 1 << 30, 1 << 31
AMX_TILE, AMX_INT8 = 1 << 24, 1 << 25
WHOLE = {
    "one_c": FMA | OSXSAVE | AVX | F16C,
    "seven_b": 1 << 5 | AVX512F | AVX512DQ | AVX512BW | AVX512VL,
    "seven_c": 1 << 11,
    "seven_d": AMX_TILE | AMX_INT8,
    "seven_more_a": 1 << 4,
    "tiles_b": 8 << 16 | 64,
    "tiles_c": 16,
    "saved": 0x602E7,
}
SETS = ("avx2", "avxvnni", "avx512f", "avx512vnni", "amx")
NO_AVX = "does not save AVX registers"
NO_512 = "does not save AVX-512 registers"
NO_TILES = "does not save AMX tiles"
NO_PALETTE = "CPUID leaf 0x1d"

# What differs from the whole, the sets that can be used, and a part of the reason for each that cannot.
CASES = {
    "all": ({}, SETS, {}),
    "tiles that the system does not save": ({"saved": 0xE7}, SETS[:4], {"amx": NO_TILES}),
    "tile data without their configuration": ({"saved": 0x402E7}, SETS[:4], {"amx": NO_TILES}),
    "leaf 0x1d is empty": ({"tiles_b": 0, "tiles_c": 0}, SETS[:4], {"amx": NO_PALETTE}),
    "four tiles": ({"tiles_b": 4 << 16 | 64}, SETS[:4], {"amx": NO_PALETTE}),
    "narrow tiles": ({"tiles_b": 8 << 16 | 32}, SETS[:4], {"amx": NO_PALETTE}),
    "short tiles": ({"tiles_c": 8}, SETS[:4], {"amx": NO_PALETTE}),
    "more and larger tiles": ({"tiles_b": 16 << 16 | 128, "tiles_c": 32}, SETS, {}),
    "tiles without products of bytes": ({"seven_d": AMX_TILE}, SETS[:4], {}),
    "AVX-512 that the system does not save": (
        {"saved": 0x7}, SETS[:2], {"avx512f": NO_512, "avx512vnni": NO_512, "amx": NO_TILES}
    ),
    "upper registers are not saved": (
        {"saved": 0x60267}, SETS[:2], {"avx512f": NO_512, "avx512vnni": NO_512, "amx": NO_TILES}
    ),
    "AVX that the system does not save": (
        {"saved": 0x3}, (), {"avx2": NO_AVX, "avxvnni": NO_AVX, "avx512f": NO_512, "avx512vnni": NO_512, "amx": NO_TILES}
    ),
    "a system without XCR0": (
        {"one_c": FMA | AVX | F16C}, (),
        {"avx2": NO_AVX, "avxvnni": NO_AVX, "avx512f": NO_512, "avx512vnni": NO_512, "amx": NO_TILES},
    ),
    "CPUID hides AVX-512, not AMX": ({"seven_b": 1 << 5}, SETS[:2], {"amx": "need AVX512-VNNI"}),
    "CPUID hides AVX": ({"one_c": FMA | OSXSAVE | F16C}, (), {"amx": "need AVX512-VNNI"}),
    "no FMA": ({"one_c": OSXSAVE | AVX | F16C, "seven_d": 0}, (), {}),
    "no F16C": ({"one_c": FMA | OSXSAVE | AVX, "seven_d": 0}, (), {}),
    "Skylake-X": ({"seven_c": 0, "seven_d": 0, "seven_more_a": 0, "tiles_b": 0}, ("avx2", "avx512f"), {}),
    "without 256-bit forms": ({"seven_b": WHOLE["seven_b"] & ~AVX512VL, "seven_d": 0}, SETS[:3], {}),
    "Alder Lake": ({"seven_b": 1 << 5, "seven_c": 0, "seven_d": 0, "saved": 0x207}, SETS[:2], {}),
    "Haswell": (
        {"seven_b": 1 << 5, "seven_c": 0, "seven_d": 0, "seven_more_a": 0, "tiles_b": 0, "saved": 0x7}, SETS[:1], {}
    ),
    "Nehalem": (dict.fromkeys(WHOLE, 0), (), {}),
}  # fmt: skip


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    """Run the program, and return its lines as name -> (answer, reason)."""
    program = compiled(CHECK, tmp_path_factory.mktemp("x86") / "check", only={"x86"})

    def run(*arguments):
        printed = subprocess.run([program, *arguments], capture_output=True, text=True, check=True).stdout
        return {name: (answer, reason) for name, answer, reason in (line.split("|") for line in printed.splitlines())}

    return run


@pytest.mark.parametrize("case", CASES)
def test_registers_decide(check, case):
    """K05 and K06: nothing that CPUID names is used unless the system saves it and, for tiles, describes it."""
    changed, usable, reasons = CASES[case]
    found = check(*(f"{value:x}" for value in (WHOLE | changed).values()))
    assert tuple(found) == SETS
    assert tuple(name for name, (answer, _) in found.items() if answer == "yes") == usable
    assert {name for name, (_, reason) in found.items() if reason} == set(reasons)
    for name, part in reasons.items():
        assert part in found[name][1]
        assert found[name][0] == "no"


def test_answers_of_linux_have_a_reason(check):
    """K03 and K08: a refusal to this process is told apart from a system that grants tiles to none."""
    found = check("--answers")
    assert found.pop("0") == ("yes", "")
    assert {name for name, (answer, _) in found.items() if answer == "refused"} == {"ENOSPC", "EPERM", "EACCES"}
    assert "sigaltstack" in found["ENOSPC"][1]
    assert "seccomp" in found["EPERM"][1]
    assert all(reason and answer != "yes" for answer, reason in found.values())
