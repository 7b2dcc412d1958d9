"""The page about vector stores is true: its programs are those that `pytest -m interop` runs, its versions the pinned ones."""

import re
import runpy

import pytest

from support.environments import requirements
from support.folders import ROOT, TESTS

PAGE = (ROOT / "docs" / "stores.md").read_text("utf-8")
STORES = TESTS / "interop" / "stores"
WAYS = runpy.run_path(str(STORES / "ways.py"))["WAYS"]


@pytest.mark.parametrize("program", [*sorted({f"with_{way.store}" for way in WAYS}), "ids"])
def test_the_page_shows_the_tested_program(program):
    assert f"```python\n{(STORES / f'{program}.py').read_text('utf-8')}```" in PAGE


def test_the_table_has_every_way_and_the_pinned_versions():
    rows = re.findall(r"^\| (\S+) \((\S+) (\S+)\) \| (.+?) \| (.+?) \| (.+?) \|", PAGE, re.MULTILINE)
    found = [(store, kind, precision, metric) for store, _, _, kind, precision, metric in rows]
    assert found == [(way.store.replace("_", "-"), way.kind, way.precision, way.metric) for way in WAYS]
    assert {f"{package}=={version}" for _, package, version, *_ in rows} <= set(requirements("stores"))
