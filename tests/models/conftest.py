"""Tiny networks of every family, and the oracle of a folder."""

import pytest

from support.tiny_networks import NETWORKS, write_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Folders of the networks by name."""
    folder = tmp_path_factory.mktemp("tiny")
    return {name: write_tiny(folder / name, name) for name in NETWORKS}


@pytest.fixture(scope="module", params=NETWORKS)
def name(request):
    """Name of each network."""
    return request.param
