"""Stamps of an `Embedder`'s vectors."""

import pytest

from moembed import Chunk, Embedder, __version__
from moembed.errors import InputError
from moembed.inference.kernels import PORTABLE, usable_kernels
from moembed.stamps.making import overlong_name, stamp_of
from moembed.stamps.stamp import Stamp, differences
from moembed.truncation import LATE_TOKENS


def _whole(text):
    return [(0, len(text))]


def test_a_stamp_holds_what_the_model_and_the_options_are(model):
    stamp = stamp_of(model, "query: ", 128, "int8", "truncate")
    manifest = model.bundle.manifest
    assert (stamp.model, stamp.fingerprint, stamp.moembed) == (manifest.name, model.bundle.fingerprint, __version__)
    assert (stamp.prompt, stamp.width, stamp.precision, stamp.overlong) == ("query: ", 128, "int8", "truncate")
    assert (stamp.max_tokens, stamp.normalized, stamp.revision) == (model.max_tokens, True, None)
    assert stamp.scale == model.int8_scale(128)
    assert stamp_of(model, "", 128, "int8-per-vector").scale is None
    assert Stamp.from_json(stamp.to_json(), "x") == stamp


@pytest.mark.skipif(usable_kernels() == (PORTABLE,), reason="no native library")
def test_kernels_count_where_they_decide_bytes(model, small, monkeypatch):
    native = stamp_of(model, "", 8, "float32", "error")
    monkeypatch.setenv("MOEMBED_KERNELS", "plain")
    assert differences(native, stamp_of(Embedder(model.bundle), "", 8, "float32", "error")) == []
    monkeypatch.setenv("MOEMBED_KERNELS", "portable")
    assert differences(native, stamp_of(Embedder(model.bundle), "", 8, "float32", "error")) == [
        "kernels: 'native', and 'portable'"
    ]
    here = stamp_of(small, "", 8, "float32", "error")
    assert " on " in here.kernels  # fp32: the processor's own products
    monkeypatch.setattr("moembed.stamps.making.cpu_name", lambda: "A processor without AVX-512")
    (line,) = differences(here, stamp_of(small, "", 8, "float32", "error"))
    assert line.endswith("on A processor without AVX-512'")


@pytest.mark.parametrize(
    ("overlong", "name"),
    [
        ("error", "error"),
        ("chunk", "chunk"),
        (Chunk(), "chunk"),
        (Chunk(pooled=True), "mean"),
        (Chunk(overlap=32), "chunk, overlap 32"),
        (Chunk(late=True), f"late, overlap 64, tokens {LATE_TOKENS}"),
        (Chunk(late=True, tokens=64, overlap=8), "late, overlap 8, tokens 64"),
        (Chunk(late=True, spans=_whole), f"late, overlap 64, spans by {__name__}._whole"),
        (Chunk(overlap=0, pooled=True), "mean, overlap 0"),
    ],
)
def test_equal_policies_have_one_name(overlong, name):
    assert overlong_name(overlong) == name


def test_an_unknown_policy_is_refused():
    with pytest.raises(InputError, match="overlong"):
        overlong_name("cut")
