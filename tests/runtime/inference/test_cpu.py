"""The description of the processor: its name and instruction sets, and how ONNX Runtime multiplies bytes on it."""

import ctypes
from pathlib import Path

import pytest

from moembed.cli import main
from moembed.inference import cpu
from moembed.native.loader import NativeLibrary, native_library
from moembed.verify.machine import this_machine


@pytest.fixture(autouse=True)
def _forgotten():
    cpu._processor.cache_clear()
    yield
    cpu._processor.cache_clear()


class Library:
    """The native library on another processor."""

    def __init__(self, name, flags):
        self.told = name.encode(), flags.encode()

    def moembed_cpu(self, name, flags):
        name._obj.value, flags._obj.value = self.told


MACHINES = pytest.mark.parametrize(
    ("machine", "field", "flags", "found", "saturates", "words"),
    [
        ("x86_64", "flags", "avx2 avx512_vnni amx_int8", ("AMX-INT8", "AVX512-VNNI", "AVX2"), False, "by AMX-INT8"),
        ("AMD64", "flags", "avx2 avx_vnni", ("AVX-VNNI", "AVX2"), False, "by AVX-VNNI"),
        ("x86_64", "flags", "avx2 avx512f", ("AVX-512", "AVX2"), True, "without VNNI"),
        ("x86_64", "flags", "", (), True, "without VNNI"),
        ("aarch64", "Features", "asimd asimddp i8mm", ("NEON i8mm", "NEON dot product"), False, "by NEON i8mm"),
        ("arm64", "Features", "asimd", (), False, "by ordinary instructions"),
    ],
)


@MACHINES
@pytest.mark.parametrize("native", [True, False])
def test_integer_products(monkeypatch, tmp_path, native, machine, field, flags, found, saturates, words):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nmodel name : Some CPU: fast\n{field} : {flags}\n")
    monkeypatch.setattr(cpu, "Path", lambda name: tmp_path / Path(name).name)
    monkeypatch.setattr(cpu.platform, "machine", lambda: machine)
    library = Library("Some CPU: fast", flags) if native else None
    monkeypatch.setattr(cpu, "native_library", lambda: NativeLibrary(library, ""))
    assert (cpu.instruction_sets(), cpu.saturates()) == (found, saturates)
    assert cpu.integer_products().startswith("exact")
    assert words in cpu.integer_products()
    assert cpu.cpu_name() == "Some CPU: fast"


def test_an_unknown_processor(monkeypatch, tmp_path):
    monkeypatch.setattr(cpu, "Path", lambda name: tmp_path / "none")
    monkeypatch.setattr(cpu, "native_library", lambda: NativeLibrary(None, ""))
    monkeypatch.setattr(cpu.platform, "processor", lambda: "")
    monkeypatch.setattr(cpu.platform, "machine", lambda: "riscv64")
    assert cpu.instruction_sets() == ()
    assert cpu.cpu_name() == "riscv64"


@pytest.mark.skipif(native_library().functions is None, reason="the native library was not compiled")
@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs Linux")
def test_the_library_and_linux_agree():
    name, flags = ctypes.c_char_p(), ctypes.c_char_p()
    native_library().functions.moembed_cpu(ctypes.byref(name), ctypes.byref(flags))
    linux = cpu._from_cpuinfo()
    assert set(flags.value.decode().split()) == linux.flags & set(cpu._INSTRUCTIONS)
    if linux.name:  # not on ARM
        assert name.value.decode() == linux.name
    assert this_machine().cpu == cpu.cpu_name()


def test_doctor_shows_it(capsys):
    assert main(["doctor"]) == 0
    assert f"int8 products  {cpu.integer_products()}\n" in capsys.readouterr().out
