"""onnxruntime and onnxruntime-gpu for real: both orders, by pip and uv, one uninstalled; the printed command mends each.

Needs the network: the two wheels have 280 MB.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.sites import make_site

pytestmark = [pytest.mark.interop, pytest.mark.skipif(os.name == "nt", reason="the commands are run by a POSIX shell")]
CPU, GPU = "onnxruntime", "onnxruntime-gpu"


class Environment:
    """Virtual environment with moembed, into which the wheels of ONNX Runtime are installed."""

    def __init__(self, folder: Path, tool: str) -> None:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        self.bin, self.pip = folder / "bin", {"pip": "pip", "uv": "uv pip"}[tool]
        self.environ = os.environ | {"PATH": f"{self.bin}:{os.environ['PATH']}", "VIRTUAL_ENV": str(folder)}
        (packages,) = folder.glob("lib/python*/site-packages")
        site = make_site(folder.parent / "site", ())
        (packages / "moembed.pth").write_text(f"{site}\n")
        self.shell(f"pip install -q tokenizers numpy {'uv' if tool == 'uv' else ''}")

    def shell(self, command: str) -> None:
        done = subprocess.run(["sh", "-ec", command], env=self.environ, capture_output=True, text=True, check=False)
        if "connection broken by" in done.stderr or "error sending request" in done.stderr:
            pytest.skip(f"no network: {done.stderr.splitlines()[0]}")
        assert done.returncode == 0, done.stderr

    def problems(self) -> list[str]:
        done = self.moembed("doctor", "--json")
        return json.loads(done.stdout)["problems"]

    def moembed(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self.bin / "python", "-m", "moembed", *arguments]
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("order", [(CPU, GPU), (GPU, CPU)], ids=["gpu last", "cpu last"])
@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_both_wheels_and_one_uninstalled(tool, order, tmp_path):  # N49
    environment = Environment(tmp_path / "environment", tool)
    for package in order:
        environment.shell(f"{environment.pip} install {package}")
    (problem,) = environment.problems()
    assert "overwrite each other's files" in problem
    yes = "-y " if tool == "pip" else ""
    environment.shell(f"{environment.pip} uninstall {yes}{CPU}")
    (lost,) = environment.problems()
    assert "lost files" in lost
    environment.shell(lost.partition("again: ")[2])
    assert environment.problems() == []
    report = json.loads(environment.moembed("doctor", "--json").stdout)
    assert "CUDAExecutionProvider" in report["providers"]
    environment.shell(f"{environment.pip} install {CPU}")
    (again,) = environment.problems()
    environment.shell(again.partition("works: ")[2])
    assert environment.problems() == []
    assert environment.moembed("embed", "hello", "--task", "query").returncode == 0
