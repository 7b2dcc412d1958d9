"""Models without experts, and models whose vector is the state of the first token, behind the server."""

import numpy as np
import pytest

from moembed import Embedder
from moembed.bundle.bundle import Bundle
from moembed.export.pipeline import export
from moembed.models.locate import locate
from moembed.models.pooling import Pooling
from moembed.quantize.pipeline import quantize
from support.serving import serving
from support.tiny_networks import write_tiny
from support.tolerances import MUTATION_FACTOR, OP_MAX_ABS, UNIT_LENGTH


@pytest.fixture(scope="module")
def bundle(once):
    case = f"xlm_roberta {Pooling.FIRST}"
    checkpoint = once(f"tiny {case}", lambda path: write_tiny(path, "xlm_roberta", pooling=Pooling.FIRST))
    fp32 = Bundle.open(once(f"fp32 {case}", lambda path: export(locate(checkpoint), path)))
    return Bundle.open(once(f"int8 {case}", lambda path: quantize(fp32, path)))


@pytest.fixture(scope="module")
def layer_norm(once):
    """Model that normalizes its pooled states before they are cut."""
    checkpoint = once("tiny nomic_layer_norm mean", lambda path: write_tiny(path, "nomic_layer_norm"))
    return Bundle.open(once("fp32 nomic_layer_norm mean", lambda path: export(locate(checkpoint), path)))


@pytest.fixture(scope="module")
def dense(bundle, layer_norm):
    with serving(model=(f"dense={bundle.folder}", f"normed={layer_norm.folder}"), threads=1) as server:
        yield server


def test_the_page_hides_the_experts(dense):
    assert dense.get("/about").json["models"][0]["num_experts"] == 0
    answer = dense.post("/routing", {"input": "abc"})
    assert answer.status == 400
    assert "dense has no MoE layers, so it has no routing" in answer.json["error"]


def test_every_api_gives_the_embedders_vector(dense, bundle):
    expected = Embedder(bundle, threads=1).encode("abc def")
    found = dense.post("/v1/embeddings", {"input": "abc def"}).json["data"][0]["embedding"]
    assert np.array_equal(np.array(found, np.float32), expected)


def test_vectors_that_are_not_normalized_are_pooled_as_the_others(dense, bundle):
    """The state of the first token, not the mean."""
    states = Embedder(bundle, threads=1).token_embeddings("abc def")
    (found,) = np.array(dense.post("/embed", {"inputs": "abc def", "normalize": False}).json)
    assert np.abs(found - states[0]).max() < UNIT_LENGTH * np.abs(states).max()
    assert dense.post("/api/show", {"model": "dense"}).json["model_info"]["general.architecture"] == "bert"


def test_vectors_that_are_not_normalized_have_the_models_layer_norm(dense, layer_norm):
    """M35: whoever cuts them and scales them to unit length gets the model's vector."""
    model = Embedder(layer_norm, threads=1)
    states = model.token_embeddings("abc def")
    (found,) = np.array(dense.post("/embed", {"model": "normed", "inputs": "abc def", "normalize": False}).json)
    expected = model.encode("abc def")
    assert np.abs(found / np.linalg.norm(found) - expected).max() < OP_MAX_ABS
    mean = states.mean(axis=0)
    assert np.abs(mean / np.linalg.norm(mean) - expected).max() > MUTATION_FACTOR * OP_MAX_ABS
