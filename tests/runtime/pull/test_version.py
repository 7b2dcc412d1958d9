"""Version of a conversion: it changes with whatever gives another bundle of the same checkpoint."""

from moembed.bundle.bundle import Bundle
from moembed.convert.conversion import convert
from moembed.models.locate import locate
from moembed.pull import model
from moembed.quantize.recipe import recipe_names

# sha256 of the graph's weights of the small checkpoint, by recipe and version.
RECORDED = {("int8", 4): "2521b1da56e94ec4aaac4833a79ba43630b010ca6461e30db542248b7baf5723"}


def test_every_recipe_has_its_version():
    """N24"""
    versions = {name: model.version_of(name) for name in recipe_names()}
    assert len(set(versions.values())) == len(versions)
    assert all(len(version) == 8 for version in versions.values())


def test_a_recipe_of_another_version_has_one_too():
    assert len(model.version_of("int1-of-the-future")) == 8


def test_a_conversion_that_changes_has_another_version(checkpoint, tmp_path):
    """N24: whoever changes what a conversion gives, increases `_CONVERSION` in pull/model.py and records the digest here."""
    bundle = convert(locate(checkpoint), tmp_path / "out")
    found = Bundle.open(bundle.folder).manifest.files["onnx/model_int8.onnx_data"].sha256
    assert {("int8", model._CONVERSION): found} == RECORDED
