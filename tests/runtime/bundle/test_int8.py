"""Scales of int8 vectors in a manifest: the rule for each width, and the refusal of invalid ones."""

import pytest

from moembed import Embedder
from moembed.bundle.bundle import Bundle
from moembed.bundle.int8 import UNIT_SCALE, Int8, scale_for
from moembed.cli import main
from moembed.errors import BundleError
from support.bundles import edit

# A component between 257 and 384 is large, or none is.
WIDE = Int8(scales={384: 0.007, 256: 0.0035, 128: 0.0042}, clipped={384: 0.0, 256: 0.0, 128: 0.0})
INT8 = Int8(scales={384: 0.003, 256: 0.0035, 128: 0.0042}, clipped={384: 0.0, 256: 0.0, 128: 0.0})


@pytest.mark.parametrize(
    ("width", "scale"),
    [
        (768, 0.003),
        (384, 0.003),
        (383, 0.0035),
        (256, 0.0035),
        (255, 0.0042),
        (128, 0.0042),
        (64, 0.0042 * 2**0.5),
        (1, UNIT_SCALE),
    ],
)
def test_each_width_has_a_scale(width, scale):
    assert scale_for(INT8, width) == pytest.approx(scale)


def test_a_width_between_two_has_the_larger_scale():
    assert [scale_for(WIDE, width) for width in (384, 300, 256)] == [0.007, 0.007, 0.0035]


def test_a_bundle_of_an_older_version_has_the_scale_of_unit_vectors(copy):
    edit(copy, lambda raw: raw.pop("int8"))
    bundle = Bundle.open(copy)
    assert bundle.manifest.int8 is None
    assert '"int8":' not in bundle.manifest.to_json()
    embedder = Embedder(bundle, spin=False)
    assert {embedder.int8_scale(dim) for dim in (None, 1, 8)} == {1 / 127}
    assert embedder.encode(["a"], prompt="", precision="int8").shape == (1, embedder.dim)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda int8: int8["scales"].clear(), r"int8.scales = \[\]; expected a scale for each width"),
        (lambda int8: int8["scales"].update({"0": 0.001}), "int8.scales = .0, .*expected a scale for each width"),
        (lambda int8: int8["clipped"].update({"7": 0.0}), "int8.clipped = .*; expected a share for the same widths"),
        (
            lambda int8: int8["scales"].update({"32": 0.0}),
            "int8.scales.32 = 0.0; expected a number above 0 and at most 1/127",
        ),
        (
            lambda int8: int8["scales"].update({"32": 0.1}),
            "int8.scales.32 = 0.1; expected a number above 0 and at most 1/127",
        ),
        (lambda int8: int8["clipped"].update({"32": 1.5}), "int8.clipped.32 = 1.5; expected a number from 0 to 1"),
        (lambda int8: int8.update(scales=[1]), "int8.scales = "),
        (lambda int8: int8.pop("scales"), "int8: missing .'scales'."),
    ],
)
def test_an_invalid_field_is_refused(copy, change, said):
    edit(copy, lambda raw: change(raw["int8"]))
    with pytest.raises(BundleError, match=said):
        Bundle.open(copy)


def test_info_shows_the_scales(copy, capsys):
    assert main(["info", str(copy)]) == 0
    assert "int8 scale   0." in capsys.readouterr().out
    edit(copy, lambda raw: raw.pop("int8"))
    assert main(["info", str(copy)]) == 0
    assert "int8 scale   1/127 for every width" in capsys.readouterr().out
