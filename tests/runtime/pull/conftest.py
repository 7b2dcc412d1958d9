"""A hub with the small checkpoint, and a home in which it has been pulled."""

import shutil

import pytest

from support.hub_server import Hub
from support.pulls import Place


@pytest.fixture(scope="module")
def served(checkpoint):
    """Hub of one module that serves the small checkpoint as acme/ft."""
    with Hub() as server:
        server.add("acme/ft", checkpoint, refs=("main", "v1"))
        yield server


@pytest.fixture(scope="module")
def pulled(served, template, tmp_path_factory):
    """Home in which acme/ft has been pulled, what the command printed, and the requests; tests must not change it."""
    place = Place(tmp_path_factory.mktemp("pulled"), served, template=template)
    ran = place.run("pull", "acme/ft")
    assert ran.returncode == 0, ran.stderr
    return place, ran, list(served.requests)


@pytest.fixture
def home(served, template, tmp_path):
    """Empty home of one test."""
    return Place(tmp_path, served, template=template)


@pytest.fixture
def filled(pulled, home):
    """Home of one test in which acme/ft has been pulled."""
    shutil.copytree(pulled[0].root, home.root, dirs_exist_ok=True)
    return home
