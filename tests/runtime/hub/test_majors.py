"""The tests of this folder beside every major of huggingface_hub, whose HTTP libraries are requests, httpx and httpx2 (N19)."""

import os
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

from support.environments import overlay
from support.folders import ROOT

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("requirement", ["huggingface_hub==0.36.*", "huggingface_hub==1.*", "huggingface_hub==2.*"])
def test_every_major_of_huggingface_hub(request, requirement):
    folder = overlay(requirement, request.config.cache.mkdir("interop"))
    version = next(found.version for found in distributions(path=[str(folder)]) if found.name == "huggingface_hub")
    assert version.startswith(requirement.partition("==")[2].rstrip("*"))
    said = subprocess.check_output(
        [sys.executable, "-c", "import huggingface_hub as h; print(h.__file__)"], env=using(folder)
    )
    assert Path(said.decode().strip()).is_relative_to(folder)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__).parent)]
    done = subprocess.run(command, env=using(folder), cwd=ROOT, capture_output=True, text=True)
    print(version, done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout[-5000:]


def using(folder):
    return os.environ | {"PYTHONPATH": str(folder)}
