"""Guard of optional imports: each error names the package, its extra and what needs it."""

import sys

import pytest

from moembed.errors import MissingExtraError, extra


def test_a_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with (
        pytest.raises(MissingExtraError, match=r"^Plotting needs scipy, which is not installed: pip .*moembed\[eval\]"),
        extra("eval", "Plotting"),
    ):
        import scipy.stats  # noqa: F401


def test_a_package_that_cannot_be_imported_says_why(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("from math import no_such_name")
    monkeypatch.syspath_prepend(tmp_path)
    with (
        pytest.raises(MissingExtraError, match="needs math, which cannot be imported .*no_such_name"),
        extra("eval", "Plotting"),
    ):
        import broken_package  # noqa: F401


def test_the_inner_of_two_guards_is_the_one_that_speaks(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with (
        pytest.raises(MissingExtraError, match=r"moembed\[eval\]"),
        extra("serve", "Serving"),
        extra("eval", "Plotting"),
    ):
        import scipy  # noqa: F401


def test_a_missing_module_of_moembed_is_a_bug_and_no_missing_extra():
    with pytest.raises(ModuleNotFoundError) as caught, extra("eval", "Plotting"):
        import moembed.no_such_module  # noqa: F401
    assert not isinstance(caught.value, MissingExtraError)
