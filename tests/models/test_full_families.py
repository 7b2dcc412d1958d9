"""Networks of the published sizes with random weights: conversion compares them, vectors are finite (M34). `pytest -m full`."""

import numpy as np
import pytest

from moembed.bundle.bundle import Bundle
from moembed.convert.conversion import convert
from moembed.inference.session import Session
from moembed.models.locate import locate
from support.full_networks import SIZES, write_full

pytestmark = pytest.mark.full
LENGTHS = (2, 33, 511)


@pytest.mark.parametrize("name", SIZES)
def test_a_published_size_converts_and_gives_unit_vectors(name, tmp_path):
    """`convert` compares the graph with the float64 oracle on the probe texts, and refuses a distance."""
    bundle = Bundle.open(convert(locate(write_full(tmp_path / "checkpoint", name)), tmp_path / "int8").folder)
    assert bundle.manifest.certificate.embedding_min_cosine > 0.99
    session = Session(bundle)
    for length in LENGTHS:
        ids = np.random.default_rng(length).integers(5, SIZES[name][1]["vocab_size"], (2, length))
        vectors = session.run("sentence_embedding", ids, np.ones_like(ids))
        assert np.isfinite(vectors).all()
        assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1], abs=1e-5)
        assert np.abs(vectors[0] - vectors[1]).max() > 1e-3, "other texts have other vectors"
