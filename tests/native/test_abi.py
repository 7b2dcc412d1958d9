"""The library's own declarations of ONNX Runtime's C interface, against ONNX Runtime's header (see `vendor/onnxruntime`)."""

import re
import shutil
import subprocess

import pytest

from support.folders import ROOT

ABI, CHECK = ROOT / "runtime" / "native" / "ort" / "abi.h", ROOT / "tests" / "native" / "abi_check.cpp"
HEADERS = ROOT / "tests" / "native" / "vendor" / "onnxruntime"


def compiled(source):
    """Compile without output, and return the compiler's messages."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if not compiler:
        pytest.skip("needs g++ or clang++")
    # The header marks functions for static analysis; a type has no such marks.
    flags = ["-std=c++17", "-fsyntax-only", "-Wno-ignored-attributes", "-isystem", HEADERS]
    command = [compiler, *flags, "-x", "c++", source]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def test_every_member_has_its_place_and_signature():
    assert compiled(CHECK) == ""


def test_no_member_is_left_out():
    members = {name for name in re.findall(r"\(\*(\w+)\)\(", ABI.read_text()) if name[0].isupper()}
    checked = set(re.findall(r"^SAME_MEMBER\(\w+, (\w+)\);", CHECK.read_text(), re.MULTILINE))
    assert checked - {"version"} == members
    assert len(members) > 40


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Unused unused87[1];", "Unused unused87[2];", "KernelContext_GetInput moved"),
        ("const char* name, float* out", "const char* name, double* out", "Attribute_float has another signature"),
        ("size_t total, size_t batches", "size_t total", "ParallelFor has another signature"),
        ("Float16 = 10", "Float16 = 16", "FLOAT16 has another value"),
    ],
)
def test_a_wrong_declaration_does_not_compile(tmp_path, old, new, message):
    text = ABI.read_text()
    assert old in text
    (tmp_path / "abi.h").write_text(text.replace(old, new))
    (tmp_path / CHECK.name).write_text(CHECK.read_text().replace("../../runtime/native/ort/abi.h", "abi.h"))
    assert message in compiled(tmp_path / CHECK.name)
