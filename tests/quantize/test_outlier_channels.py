"""A channel of a gated product that is far larger than the others: the others round to nothing (M38)."""

import pytest

from moembed.bundle.bundle import Bundle
from moembed.convert.conversion import convert
from moembed.errors import VerificationError
from moembed.export.pipeline import export
from moembed.models.locate import locate
from moembed.quantize.pipeline import quantize
from support.tiny_networks import tensors_of, write_tiny

CHANNEL, FACTOR = 5, 3000
LAYER = "encoder.layers.1.mlp.fc2.weight"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The tiny network of gte-multilingual-base; what one channel is multiplied by, the next matrix divides it by."""
    tensors = tensors_of("new")
    tensors["new.encoder.layer.1.mlp.up_gate_proj.weight"][CHANNEL] *= FACTOR
    tensors["new.encoder.layer.1.mlp.down_proj.weight"][:, CHANNEL] /= FACTOR
    return write_tiny(tmp_path_factory.mktemp("outlier") / "c", "new", tensors=tensors)


@pytest.fixture(scope="module")
def fp32(checkpoint, tmp_path_factory):
    return Bundle.open(export(locate(checkpoint), tmp_path_factory.mktemp("outlier") / "fp32").folder)


@pytest.mark.parametrize("way", ["quantize", "convert"])
def test_a_bundle_that_lost_too_much_is_not_written(checkpoint, fp32, tmp_path, way):
    make, source = {"quantize": (quantize, fp32), "convert": (convert, locate(checkpoint))}[way]
    with pytest.raises(VerificationError) as error:
        make(source, tmp_path / "int8")
    message = str(error.value)
    assert "embedding cosine 0." in message
    assert "required 0.99" in message
    assert f"1 - cosine of each alone): {LAYER} (" in message, "the layer with the outlier comes first"
    assert "use the recipe int8-wide" in message
    assert not list(tmp_path.iterdir())


def test_the_recipe_that_is_named_helps(fp32, tmp_path):
    found = quantize(fp32, tmp_path / "wide", recipe="int8-wide")
    assert found.manifest.certificate.embedding_min_cosine > 0.99
