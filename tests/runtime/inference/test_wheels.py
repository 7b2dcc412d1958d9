"""Wheels of ONNX Runtime: two in one folder, a folder that lost files, none at all; and the systems that get one."""

import json
import tomllib

import pytest
from packaging.requirements import Requirement

from support.folders import ROOT
from support.sites import SERVING, add_metadata, make_site, run_in

BOTH = "onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1"
# For each installer the command that leaves onnxruntime-gpu, tried for real in tests/interop/test_wheels_installed.py.
REPAIRS = {
    "pip": 'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "onnxruntime-gpu>=1.30"',
    "uv": 'uv pip uninstall onnxruntime onnxruntime-gpu && uv pip install "onnxruntime-gpu>=1.30"',
}
EMBED = ("embed", "hello", "--task", "query")


def doctor(site):
    done = run_in(site, "doctor", "--json")
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("installer", REPAIRS)
def test_two_wheels_in_one_folder_are_explained(installer, tmp_path):  # N49
    site = make_site(tmp_path / "site")
    add_metadata(site, "onnxruntime", "1.32.0", "onnxruntime", installer=installer)
    add_metadata(site, "onnxruntime-gpu", "1.31.1", "onnxruntime", installer=installer)
    code, report = doctor(site)
    assert code == 1
    assert report["problems"] == [
        f"{BOTH} overwrite each other's files, so that only the one installed last works: {REPAIRS[installer]}"
    ]
    assert "works" in report["default model"]
    failed = run_in(site, *EMBED, "--provider", "cuda")
    assert failed.returncode == 2
    assert f"CUDA needs onnxruntime-gpu alone (found: {BOTH})" in failed.stderr
    assert failed.stderr.rstrip().endswith(REPAIRS[installer])
    assert run_in(site, *EMBED).returncode == 0, "on the CPU the one that works serves"


@pytest.mark.parametrize("left", ["onnxruntime-gpu", "onnxruntime"])
def test_a_folder_that_lost_files_is_explained(left, tmp_path):  # N49
    """`pip uninstall` of one of two wheels removes what both have, and leaves the libraries that only the other has."""
    site = make_site(tmp_path / "site", ("numpy", "tokenizers"))
    (site / "onnxruntime" / "capi").mkdir(parents=True)
    (site / "onnxruntime" / "capi" / "libonnxruntime_providers_cuda.so").touch()
    add_metadata(site, left, "1.31.1", "onnxruntime")
    names = "onnxruntime onnxruntime-gpu" if left == "onnxruntime-gpu" else "onnxruntime"
    repair = f'pip uninstall -y {names} && pip install "{left}>=1.30"'
    said = "lost files, as when one of two packages that unpack into it is uninstalled. Found: " + left
    for arguments in (EMBED, (*EMBED, "--provider", "cuda")):
        failed = run_in(site, *arguments)
        assert failed.returncode == 2
        assert said in failed.stderr
        assert failed.stderr.rstrip().endswith(repair)
    code, report = doctor(site)
    assert code == 1
    assert [problem for problem in report["problems"] if said in problem and repair in problem]


def test_without_onnxruntime_the_error_says_what_to_do(tmp_path):  # N50
    site = make_site(tmp_path / "site", ("numpy", "tokenizers"))
    failed = run_in(site, *EMBED)
    assert failed.returncode == 2
    assert 'Running a model needs onnxruntime, which is not installed: pip install "onnxruntime>=1.30"' in failed.stderr
    assert (
        "wheels for Linux with glibc 2.28 or newer (not musl), for macOS 14 or newer on Apple silicon" in failed.stderr
    )
    assert "Traceback" not in failed.stderr
    assert doctor(site)[0] == 1


_SYSTEMS = {
    ("linux", "x86_64"): True,
    ("linux", "aarch64"): True,
    ("darwin", "arm64"): True,
    ("win32", "AMD64"): True,
    ("win32", "ARM64"): True,
    ("darwin", "x86_64"): False,
    ("linux", "riscv64"): False,
    ("linux", "ppc64le"): False,
    ("freebsd14", "amd64"): False,
}


@pytest.mark.parametrize(("system", "wheel"), _SYSTEMS.items())
def test_the_plain_package_embeds_where_onnxruntime_has_a_wheel(system, wheel):  # N50
    """And installs elsewhere; `uv pip compile --python-platform` resolves it so."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    environment = dict(zip(("sys_platform", "platform_machine"), system, strict=True))
    chosen = [
        requirement.name
        for requirement in map(Requirement, project["dependencies"])
        if requirement.marker is None or requirement.marker.evaluate(environment)
    ]
    assert sorted(chosen) == sorted(["numpy", "tokenizers", *["onnxruntime"] * wheel])


def test_no_extra_adds_another_wheel():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = {Requirement(one).name for extra in project["optional-dependencies"].values() for one in extra}
    assert not {name for name in names if name.startswith("onnxruntime")}
    assert project["optional-dependencies"]["cpu"] == []


# --- protobuf of other packages


@pytest.mark.parametrize(
    ("version", "content"),
    [
        ("3.20.3", None),  # onnx: cannot import name 'runtime_version' from 'google.protobuf'
        (
            "5.29.5",
            "class VersionError(Exception): pass\ndef ValidateProtobufRuntimeVersion(*_): raise VersionError('old')",
        ),
    ],
)
def test_an_old_protobuf_is_named_with_the_one_that_is_needed(version, content, tmp_path):  # N51
    site = make_site(tmp_path / "site", (*SERVING, "onnx"))
    protobuf = site / "google" / "protobuf"
    protobuf.mkdir(parents=True)
    (protobuf / "__init__.py").touch()
    if content is not None:
        (protobuf / "runtime_version.py").write_text(content)
    for module in ("descriptor", "descriptor_pool", "symbol_database", "message"):
        (protobuf / f"{module}.py").touch()
    add_metadata(site, "protobuf", version, "google")
    add_metadata(site, "onnx", "1.23.2", "onnx", requires=["numpy>=1.23.2", "protobuf>=6.31.1"])
    script = ("embed", "hello", "--task", "query")
    assert run_in(site, *script).returncode == 0, "opening a bundle imports neither onnx nor protobuf"
    failed = run_in(site, "export", str(tmp_path), "-o", str(tmp_path / "out"))
    assert failed.returncode == 2
    assert (
        f"needs onnx, which is version 1.23.2 and requires protobuf>=6.31.1, but protobuf {version} is installed"
        in failed.stderr
    )
    assert 'pip install "moembed[export]"' in failed.stderr
    assert "Traceback" not in failed.stderr
