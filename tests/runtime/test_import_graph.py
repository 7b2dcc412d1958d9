"""Imports have no cycles, between modules or rooms, and serving code imports only serving code."""

import ast
import re
from graphlib import TopologicalSorter

import pytest

from support.sources import modules

# Of these only a command may import anything, inside a function.
BESIDE = ("moembed.export", "moembed.models", "moembed.quantize", "moembed.train")
# What a server and an `Embedder` may load; verification and evaluation measure with the networks of `moembed.models`.
SERVING = ("bundle", "files", "hub", "inference", "native", "search", "server", "tokenizer")


MODULES = modules()
PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py"}
# A folder with rooms in it is no room: each of its own modules is one by itself.
HALLS = {package.rpartition(".")[0] for package in PACKAGES} & PACKAGES


def _imports(name):
    for node in ast.walk(ast.parse(MODULES[name].read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _room(name):
    package = name if name in PACKAGES else name.rpartition(".")[0]
    return name if package in HALLS else package


def _graph(of):
    graph = {}
    for name in MODULES:
        edges = graph.setdefault(of(name), set())
        named = {other for other in _imports(name) if other in MODULES} - HALLS
        edges.update(of(other) for other in named if of(other) != of(name))
    return graph


@pytest.mark.parametrize("of", [str, _room], ids=["modules", "rooms"])
def test_nothing_imports_in_a_ring(of):
    """Imports inside functions and for type checkers count: who reads one module needs the other."""
    graph = _graph(of)
    assert len(graph) > 20
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the ring


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith(BESIDE)])
def test_serving_needs_nothing_of_the_other_folders(name):
    parts = name.split(".")
    if len(parts) > 2 and parts[1] not in SERVING:
        return
    assert not [other for other in _imports(name) if other.startswith(BESIDE)]


def test_no_file_name_is_in_more_than_two_rooms():
    """Families count as one room: they have the same interface, and so the same files."""
    by_name = {}
    for name, path in MODULES.items():
        room = re.sub(r"^moembed\.models\.\w+\.(?=\w+$)", "moembed.models.FAMILY.", name)
        by_name.setdefault(path.name, set()).add(room)
    crowded = {name: rooms for name, rooms in by_name.items() if len(rooms) > 2}
    assert not crowded.keys() - {"__init__.py", "__main__.py"}, crowded


def test_every_module_is_short():
    for path in MODULES.values():
        assert len(path.read_text("utf-8").splitlines()) <= 400, path
