"""docs/architecture.md is about this tree: its folders are all of them, and every file and name in it exists."""

import importlib
import re
from functools import cache
from pathlib import PurePosixPath

import pytest

from support.folders import ROOT
from support.pages import page

PAGE = page("docs/architecture.md")
ROOTS = ("runtime", "convert", "export", "models", "quantize", "docs", "tests")
# Below these a folder has no line of its own: data, and tests that mirror the source.
LEAVES = ("docs", "runtime/default", "tests/benchmarks", "tests/native", "tests/runtime")
# A placeholder of a recipe, such as NAME in `isa_NAME.cpp`.
PLACEHOLDER = re.compile(r"(?<![A-Za-z])NAME(?![A-Za-z])")
EXAMPLES = {"sse41"}  # names that a recipe of the page makes up
THIS = "tests/docs/test_architecture_page.py"


def listed_folders():
    """Return the folders of the page's tree, as paths in the repository."""
    (tree,) = re.findall(r"<!-- tree -->\n```text\n(.*?)```", PAGE.text, re.DOTALL)
    parents, found = [], []
    for line in tree.splitlines():
        indent, name, purpose = re.fullmatch(r"( *)([\w.]+)/ +(\S.*)", line).groups()
        assert purpose
        parents[len(indent) // 2 :] = [name]
        found.append("/".join(parents))
    return found


@cache
def sources():
    """Return the files that the page may name, as paths in the repository."""
    files = [path for root in ROOTS for path in (ROOT / root).rglob("*") if path.is_file()]
    paths = [path.relative_to(ROOT) for path in files]
    return {path.as_posix() for path in paths if not any(part.startswith((".", "__pyc")) for part in path.parts)}


@cache
def words():
    """Return every word of the sources and of the tests."""
    files = [name for name in sources() if name.endswith((".py", ".h", ".cpp", ".toml")) and name != THIS]
    return set(re.findall(r"\w+", " ".join((ROOT / name).read_text("utf-8") for name in files)))


def test_the_tree_is_the_tree():
    folders = {name.rpartition("/")[0] for name in sources()}
    expected = {name for name in folders if not name.startswith(tuple(f"{leaf}/" for leaf in LEAVES))}
    assert sorted(listed_folders()) == sorted(expected)


def exists(span):
    """Return whether what a code span names exists."""
    if PLACEHOLDER.search(span) or span in EXAMPLES:
        return True
    if re.fullmatch(r"[\w./-]+/", span) or span.startswith("."):
        return (ROOT / span).exists()
    if re.fullmatch(r"[\w./-]+\.(py|h|cpp|toml|md|json|bin)", span):
        return (ROOT / span).exists() or any(PurePosixPath(name).name == span for name in sources())
    if re.fullmatch(r"moembed(\.\w+)+", span) and not span.endswith(".json"):
        return resolves(span)
    if re.fullmatch(r"\w+(\.\w+)*(\(.*\))?", span):
        return set(re.findall(r"\w+", span.partition("(")[0])) <= words()
    return True


def resolves(name):
    """Return whether a dotted name is a module, or an attribute of one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError as error:
            if not name.startswith(str(error.name)):
                raise
            continue
        try:
            for part in parts[end:]:
                found = getattr(found, part)
        except AttributeError:
            return False
        return True
    return False


@pytest.mark.parametrize("span", sorted(set(PAGE.code_spans())))
def test_what_it_names_exists(span):
    assert exists(span), span


@pytest.mark.parametrize(
    "span",
    [
        "runtime/nothing.py",
        "nothing.h",
        "runtime/nothing/",
        "moembed.embedder.Embedder.nothing",
        "moembed.nothing.Embedder",
        "unheard_of_name",
        "Embedder.unheard_of_name",
    ],
)
def test_what_does_not_exist_is_noticed(span):
    assert not exists(span)
