"""Calibration of int8 vectors: what the writers of bundles state, `verify` measures again."""

import json

import numpy as np
import pytest

from moembed.bundle.bundle import Bundle
from moembed.cli import main
from moembed.verify.certificate_check import of_int8
from moembed.verify.int8_calibration import calibrate
from moembed.verify.probes import probe_texts
from support.bundles import edit


@pytest.mark.parametrize("made", ["bundle", "int8"])
def test_writers_calibrate_every_width(made, request):
    manifest = request.getfixturevalue(made).manifest
    assert set(manifest.int8.scales) == set(manifest.int8.clipped) == {manifest.hidden_size, *manifest.dims}
    assert max(manifest.int8.clipped.values()) < 0.01


def test_a_scale_covers_the_probe_texts_with_every_prompt(small):
    int8 = small.bundle.manifest.int8
    for prompt in ("", *small.prompts.values()):
        vectors = small.encode(probe_texts(), prompt=prompt, overlong="truncate")
        assert np.abs(vectors).max() <= 127 * int8.scales[small.dim]
    assert calibrate(small.bundle) == int8


def test_verify_finds_another_scale(copy, capsys):
    assert main(["verify", str(copy), "--json"]) == 0
    fields = {one["field"] for one in json.loads(capsys.readouterr().out)["certificate"]}
    widths = Bundle.open(copy).manifest.widths
    assert fields >= {f"int8.{kind}.{width}" for kind in ("scales", "clipped") for width in widths}
    edit(copy, lambda raw: raw["int8"]["scales"].update({str(widths[0]): raw["int8"]["scales"][str(widths[0])] / 2}))
    assert main(["verify", str(copy)]) == 1
    assert f"int8.scales.{widths[0]}: the certificate says" in capsys.readouterr().out


def test_a_machine_that_rounds_differently_is_no_finding(int8):
    stated = int8.manifest.int8
    moved = type(stated)(scales={width: 1.04 * scale for width, scale in stated.scales.items()}, clipped=stated.clipped)
    assert all(finding.holds for finding in of_int8(stated, moved))
