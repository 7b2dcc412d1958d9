"""Without a home folder, everything but caching works; the cache folder follows its variables."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from moembed.bundle import bundle as bundles
from moembed.bundle.bundle import Bundle
from moembed.errors import SourceError
from moembed.files.paths import cache_file, cache_folder
from moembed.hub.fetch import fetch

_NOBODY = 54321  # of no account
_SCRIPT = """
import sys
from moembed import Embedder
from moembed.cli import main
from moembed.files.paths import cache_folder
assert cache_folder() is None
assert Embedder.from_pretrained().encode_query("x").shape == (384,)
for command in (["embed", "x", "--dim", "8"], ["info"], ["similarity", "a", "b"], ["search", sys.argv[1], "cats"], ["doctor"]):
    assert main(command) == 0, command
assert main(["embed", "x", "-m", "owner/name", "--offline"]) == 2
"""


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root, to become a user without account")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_a_user_without_account_and_home_needs_neither(tmp_path):
    text = tmp_path / "cats.txt"
    text.write_text("A cat sleeps.\n")
    work = tmp_path / "work"
    work.mkdir(mode=0o777)
    work.chmod(0o777)
    tmp_path.chmod(0o755)
    # The capability only lets it read the interpreter, wherever that is.
    become = f"--reuid={_NOBODY} --regid={_NOBODY} --clear-groups --inh-caps=+dac_read_search --ambient-caps=+dac_read_search"
    environment = {
        n: v for n, v in os.environ.items() if n not in ("HOME", "MOEMBED_CACHE", "XDG_CACHE_HOME", "HF_HOME")
    }
    done = subprocess.run(
        ["setpriv", *become.split(), sys.executable, "-c", _SCRIPT, str(text)],
        env=environment,
        cwd=work,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "A cat sleeps." in done.stdout
    assert "moembed: vectors are not kept: this user has no home folder" in done.stderr
    assert "error: owner/name cannot be cached: the cache is in the home folder, and this user has none" in done.stderr
    assert "cache          none: this user has no home folder" in done.stdout
    assert list(work.iterdir()) == [], "no folder named ~"


def test_a_cache_may_be_named_below_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("MOEMBED_CACHE", "~/x")
    assert cache_folder() == tmp_path / "x"
    monkeypatch.setenv("MOEMBED_CACHE", "~no-such-user-here/x")
    assert cache_folder() is None
    assert cache_file("a", "b") is None
    monkeypatch.setenv("MOEMBED_CACHE", "relative")
    assert cache_file("a", "b") == Path("relative/a/b")


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="XDG is for other systems")
def test_a_relative_xdg_folder_is_ignored(monkeypatch, tmp_path):
    monkeypatch.delenv("MOEMBED_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    for value, expected in (
        (str(tmp_path / "xdg"), tmp_path / "xdg"),
        ("caches", tmp_path / ".cache"),
        ("", tmp_path / ".cache"),
        ("~/x", tmp_path / ".cache"),
    ):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_folder() == expected / "moembed"


@pytest.mark.parametrize("kind", ["a file", "missing", "read-only"])
def test_a_home_that_takes_nothing_is_no_obstacle(int8, monkeypatch, tmp_path, kind):
    home = tmp_path / "home"
    if kind == "a file":
        home.write_text("")
    if kind == "read-only":
        home.mkdir(mode=0o500)
    monkeypatch.delenv("MOEMBED_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(home))
    assert Bundle.open(int8.folder).fingerprint == int8.fingerprint


def test_a_hub_cache_below_a_home_that_there_is_not_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match="this user has none"):
        fetch("a/b", ["c"], revision=None, cache_dir=Path("~no-such-user-here/x"), local_files_only=True)
    assert list(tmp_path.iterdir()) == []


def test_records_of_checked_bundles_are_bounded(int8, monkeypatch, tmp_path):
    monkeypatch.setenv("MOEMBED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bundles, "_MAX_RECORDS", 3)
    folders = [shutil.copytree(int8.folder, tmp_path / str(i)) for i in range(6)]
    records = tmp_path / "cache" / "checked"
    for folder in folders:
        Bundle.open(folder)
    assert len(list(records.iterdir())) == 3
    kept = bundles._stamp_file(folders[-1])
    assert set(json.loads(kept.read_text())) >= set(int8.manifest.files), "the newest is kept"
    before = kept.stat().st_mtime_ns
    Bundle.open(folders[-1])
    assert kept.stat().st_mtime_ns == before, "and is used"
    with ThreadPoolExecutor(6) as pool:
        assert len(list(pool.map(Bundle.open, folders * 3))) == 18
    Bundle.open(folders[0], rehash=True)
    assert len(list(records.iterdir())) == 3
