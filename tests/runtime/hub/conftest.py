"""A local hub with a checkpoint, without tokens and caches of the user, and without delays patched away."""

import os

import pytest
from huggingface_hub import constants

from moembed.hub.client import Client
from support.certificates import make_certificates
from support.downloads import PATIENCE, SIZE, WEIGHTS, source_of
from support.hub_server import Hub


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / WEIGHTS).write_bytes(os.urandom(SIZE))
    (folder / "config.json").write_text('{"model_type": "nomic_bert"}\n')
    return folder


@pytest.fixture
def setting(monkeypatch, tmp_path):
    """Make a hub the one that is asked."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "SENTENCE_TRANSFORMERS_HOME", "TRANSFORMERS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)

    def use(server):
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        return server

    return use


@pytest.fixture
def served(repository, setting):
    """A hub with a checkpoint whose weights are random bytes."""
    with Hub() as server:
        server.commit = server.add("acme/model", repository)
        server.weights = repository / WEIGHTS
        yield setting(server)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def inspected(repository, setting, certificates):
    """The same hub behind an own certificate authority."""
    with Hub(tls=certificates[1:]) as server:
        server.commit = server.add("acme/model", repository)
        server.weights = repository / WEIGHTS
        yield setting(server)


@pytest.fixture
def lines():
    return []


@pytest.fixture
def client(served, lines):
    return Client(served.endpoint, None, PATIENCE, lines.append)


@pytest.fixture
def source(served):
    return source_of(served)


@pytest.fixture
def target(tmp_path):
    (tmp_path / "into").mkdir()
    return tmp_path / "into" / WEIGHTS
