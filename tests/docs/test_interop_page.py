"""The page about other tools is true: its programs, versions and bounds are those of `pytest -m interop`."""

import re

import pytest

from support.environments import requirements
from support.folders import ROOT, TESTS
from support.tolerances import INTEROP_KERNELS_MAX_ABS, INTEROP_MAX_ABS, INTEROP_SATURATED_MAX_ABS

PAGE = (ROOT / "docs" / "interop.md").read_text("utf-8")


@pytest.mark.parametrize("tool", ["optimum", "sentence-transformers", "fastembed"])
def test_the_page_shows_the_tested_program(tool):
    program = (TESTS / "interop" / f"with_{tool.replace('-', '_')}.py").read_text("utf-8")
    assert f"### {tool}\n\n```python\n{program}```" in PAGE


@pytest.mark.parametrize("extra", ["optimum", "sentence-transformers-onnx", "fastembed"])
def test_the_page_names_the_pinned_versions(extra):
    (versions,) = re.findall(rf"^\| {extra.removesuffix('-onnx')} \| (.+?) \|", PAGE, re.MULTILINE)
    assert sorted(versions.split(", ")) == sorted(pin.replace("==", " ") for pin in requirements(extra))


def test_the_page_names_the_bounds():
    (bounds,) = re.findall(r"fails above (.+? \(\*saturation\*)", PAGE.replace("\n", " "))
    found = [float(bound) for bound in re.findall(r"(\S+) \(", bounds)]
    assert found == [INTEROP_MAX_ABS, INTEROP_KERNELS_MAX_ABS["int8"], INTEROP_SATURATED_MAX_ABS]
