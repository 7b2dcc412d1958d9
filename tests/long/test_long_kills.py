"""Commands that are killed at any moment: what they write is whole or not there, and what they keep stays usable."""

import random
import subprocess
import sys
import time

import numpy as np
import pytest

from moembed.cli import main

pytestmark = [pytest.mark.long, pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")]
LINES = [f"line {number} about bridges, rivers and {number * 7919} stones" for number in range(120)]


def killed(command, seconds):
    """Start a command and kill it after so many seconds, unless it ended before; whether it was killed."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


def full_time(command):
    start = time.monotonic()
    subprocess.run(command, capture_output=True, check=True)
    return time.monotonic() - start


def test_embed_to_a_file(tmp_path, count):
    (tmp_path / "in.txt").write_text("\n".join(LINES), "utf-8")
    out = tmp_path / "out.npy"
    command = [sys.executable, "-m", "moembed", "embed", "-i", str(tmp_path / "in.txt"), "-o", str(out)]
    seconds, rng, kills = full_time(command), random.Random(17), 0
    expected = out.read_bytes()
    for number in range(count):
        if number % 2:
            out.write_bytes(b"old")
        else:
            out.unlink(missing_ok=True)
        kills += killed(command, rng.uniform(0, seconds))
        found = out.read_bytes() if out.exists() else None
        assert found in (expected, b"old" if number % 2 else None), f"kill {number} left half a file"
    print(f"{kills} kills of {count} runs")
    assert np.load(out).shape[1] == 384 if out.read_bytes() == expected else True


def test_search(tmp_path, count, capsys, monkeypatch):
    monkeypatch.setenv("MOEMBED_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.md").write_text("\n\n".join(LINES), "utf-8")
    words = ["search", str(tmp_path / "a.md"), "about 79190 stones", "-k", "9"]
    assert main([*words, "--no-cache"]) == 0
    expected = capsys.readouterr().out
    command, rng, kills = [sys.executable, "-m", "moembed", *words], random.Random(17), 0
    seconds = full_time([*command, "--no-cache"])
    for number in range(count):
        kills += killed(command, rng.uniform(0, seconds))
        if number % 5 == 4:
            assert main(words) == 0
            assert capsys.readouterr().out == expected
            for file in (tmp_path / "cache").glob("search*"):
                file.unlink()
    print(f"{kills} kills of {count} runs")
