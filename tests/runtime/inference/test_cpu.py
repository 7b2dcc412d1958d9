"""What is made of a processor: its instruction sets, and the way that products of bytes take."""

import pytest

from moembed.cli import main
from moembed.inference import cpu


@pytest.mark.parametrize(
    ("machine", "flags", "found", "saturates", "words"),
    [
        ("x86_64", "flags : avx2 avx512_vnni amx_int8", ("AMX-INT8", "AVX512-VNNI", "AVX2"), False, "by AMX-INT8"),
        ("AMD64", "flags : avx2 avx_vnni", ("AVX-VNNI", "AVX2"), False, "by AVX-VNNI"),
        ("x86_64", "flags : avx2 avx512f", ("AVX-512", "AVX2"), True, "no VNNI here"),
        ("x86_64", "", (), True, "no VNNI here"),
        ("aarch64", "Features : asimd asimddp i8mm", ("NEON i8mm", "NEON dot product"), False, "by NEON i8mm"),
        ("arm64", "Features : asimd", (), False, "by ordinary instructions"),
    ],
)  # fmt: skip
def test_the_way_of_integer_products(monkeypatch, tmp_path, machine, flags, found, saturates, words):
    (tmp_path / "cpuinfo").write_text(flags)
    monkeypatch.setattr(
        cpu, "Path", lambda name: tmp_path / "cpuinfo" if name == "/proc/cpuinfo" else tmp_path / "none"
    )
    monkeypatch.setattr(cpu.platform, "machine", lambda: machine)
    cpu.instruction_sets.cache_clear()
    try:
        assert (cpu.instruction_sets(), cpu.saturates()) == (found, saturates)
        assert cpu.integer_products().startswith("exact, ")
        assert words in cpu.integer_products()
    finally:
        cpu.instruction_sets.cache_clear()


def test_doctor_says_it(capsys):
    assert main(["doctor"]) == 0
    assert f"int8 products  {cpu.integer_products()}\n" in capsys.readouterr().out
