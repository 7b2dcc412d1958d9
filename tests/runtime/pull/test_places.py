"""File systems that are small, several, or have unusual names; checkpoint folders."""

import re
import unicodedata
from pathlib import Path

import pytest

from moembed.bundle.bundle import Bundle
from moembed.pull.opening import open_bundle
from moembed.pull.report import LineReporter
from support.pulls import WEIGHTS, Place, sent


def test_a_disk_that_is_too_small_is_refused_before_the_first_byte(home, mounted):
    """N38: the data folder is not there yet, and the hub's cache is on another disk."""
    small = mounted("small", "20m")
    home.more["MOEMBED_DATA"] = str(small / "moembed")
    before = sent(home.hub)
    ran = home.run("pull", "acme/ft")
    assert ran.returncode == 2
    assert ran.stderr.splitlines()[-1].startswith("moembed: error: Converting acme/ft needs ")
    assert re.search(
        r"its file system has \d+ MB free: make room, or set MOEMBED_DATA to a folder on another", ran.stderr
    )
    assert sent(home.hub) == before
    assert not list(small.rglob(WEIGHTS + "*"))


@pytest.mark.long
def test_a_disk_that_fills_up_leaves_nothing_half_made(home, mounted, tmp_path):
    """N38: ENOSPC while the weights are written."""
    small = mounted("small", "8m")
    home.more["MOEMBED_DATA"] = str(small / "moembed")
    code = (
        "import sys, shutil\nfrom moembed.store import room\n"
        "room.shutil = type('Full', (), {'disk_usage': staticmethod(lambda _: type('U', (), {'free': 10**12}))})\n"
        "from moembed.cli import main\nsys.exit(main(['pull', 'acme/ft']))"
    )
    process = home.python(code)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert "No space left on device" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not list((small / "moembed").rglob("moembed.json"))


@pytest.mark.long
def test_everything_on_its_own_file_system(home, mounted, int8):
    """N28: temporaries are beside the target; the output is itself a mount."""
    out = mounted("out", "200m")
    home.more |= {
        "TMPDIR": str(mounted("tmp", "1k")),
        "HF_HUB_CACHE": str(mounted("cache2", "100m")),
        "MOEMBED_DATA": str(mounted("data2", "300m") / "moembed"),
    }
    ran = home.run("pull", "acme/ft")
    assert ran.returncode == 0, ran.stderr
    for _ in range(2):
        ran = home.run("pull", "acme/ft", "-o", out, "--force")
        assert ran.returncode == 0, ran.stderr
        found = Bundle.open(out, rehash=True)
        assert found.manifest.files.keys() == int8.manifest.files.keys()
        assert not list(out.glob(".moembed*"))


@pytest.mark.long
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_letters_beyond_ascii(home, form):
    """N29: with the C locale too."""
    home.more |= {"MOEMBED_DATA": str(home.root / unicodedata.normalize(form, "Jörg 日本")), "LC_ALL": "C"}
    ran = home.run("pull", "acme/ft", "-q")
    assert ran.returncode == 0, ran.stderr
    again = home.run("embed", "-m", "acme/ft", "x", "--dim", "4")
    assert again.returncode == 0, again.stderr
    assert again.stderr == ""
    assert home.run("models").returncode == 0


@pytest.mark.long
def test_a_long_data_folder(home):
    """N10"""
    deep = home.root
    while len(str(deep)) < 900:
        deep = deep / ("x" * 200)
    home.more["MOEMBED_DATA"] = str(deep / ("y" * 245))
    ran = home.run("pull", "acme/ft", "-q")
    assert ran.returncode == 0, ran.stderr


@pytest.mark.long
def test_without_symbolic_links(home):
    """N10: Windows allows them to few users."""
    code = (
        "import os, sys\ndef no(*a, **k): raise OSError(1, 'no links')\nos.symlink = no\n"
        "from moembed.cli import main\nsys.exit(main(['pull', 'acme/ft', '-q']))"
    )
    process = home.python(code)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err


@pytest.mark.long
def test_a_checkpoint_folder_is_converted_once_and_noticed_when_it_changes(checkpoint, tmp_path, monkeypatch):
    """A folder that is trained again in place gives a new bundle."""
    import shutil

    monkeypatch.setenv("MOEMBED_DATA", str(tmp_path / "data"))
    folder = shutil.copytree(checkpoint, tmp_path / "my model")
    said = []
    first = open_bundle(folder, reporter=LineReporter(said.append))
    assert any("is not a model that moembed knows" in line for line in said)
    said.clear()
    assert open_bundle(folder, reporter=LineReporter(said.append)).folder == first.folder
    assert said == [], "opened without a conversion"
    weights = bytearray((folder / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (folder / WEIGHTS).write_bytes(bytes(weights))
    second = open_bundle(folder, reporter=LineReporter(said.append))
    assert second.folder != first.folder
    assert second.manifest.source.weights_sha256 != first.manifest.source.weights_sha256
    assert Path(first.folder).is_dir()


@pytest.mark.long
def test_the_checkpoint_may_be_kept(home):
    """N39: with --keep it is in the hub's cache, once; without, nothing but the bundle."""
    ran = home.run("pull", "acme/ft", "--keep", "-q")
    assert ran.returncode == 0, ran.stderr
    assert len(list((home.root / "hf").rglob(WEIGHTS))) == 1
    assert not list(home.data.rglob(WEIGHTS))
    place = Place(
        home.root, home.hub, {"MOEMBED_DATA": str(home.root / "second"), "HF_HUB_OFFLINE": "1"}, home.template
    )
    before = len(home.hub.requests)
    again = place.run("pull", "acme/ft", "-q")
    assert again.returncode == 0, again.stderr
    assert home.hub.requests[before:] == [], "converted from what was kept, offline"
