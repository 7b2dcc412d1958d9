"""Staging folders: those of killed commands are removed, those of running ones are not touched."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from moembed.bundle.bundle import Bundle
from moembed.cli import main
from moembed.files.paths import replacing_file, replacing_folder
from moembed.files.staging import sweep

kills = pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
DIE = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


def moembed(*argv, **options):
    return subprocess.Popen([sys.executable, "-m", "moembed", *map(str, argv)], **options)


def leftovers(folder):
    return sorted(path for path in folder.iterdir() if path.name.startswith(".moembed-"))


def when(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def dying(code, folder):
    """Run Python code that kills itself."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


@kills
def test_a_killed_embed_is_swept_and_a_living_one_is_not(tmp_path, capsys):
    out = tmp_path / "v.jsonl"
    out.write_text("precious")
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(moembed("embed", "-o", out, stdin=subprocess.PIPE)) for _ in range(2)]
        living, killed = running
        try:
            for process in running:
                process.stdin.write(b"some text\n" * 64)
                process.stdin.flush()
            when(lambda: len(list(tmp_path.glob(".moembed-*.partial/new"))) == 2)
            killed.kill()
            killed.wait()
            assert out.read_text() == "precious"
            assert len(leftovers(tmp_path)) == 2
            assert main(["embed", "x", "-o", str(tmp_path / "other.npy")]) == 0
            assert len(leftovers(tmp_path)) == 1, "the dead one's is gone"
            living.stdin.close()
            assert living.wait(timeout=120) == 0
            assert len(out.read_text().splitlines()) == 64
        finally:
            for process in running:
                process.kill()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "other.npy",
        "other.npy.stamp.json",
        "v.jsonl",
        "v.jsonl.stamp.json",
    ]


@kills
@pytest.mark.parametrize("function", ["replacing_file", "replacing_folder"])
def test_a_destination_of_a_killed_process_is_as_it_was(tmp_path, function):
    path = tmp_path / "b"
    if function == "replacing_file":
        path.write_text("old")
    else:
        path.mkdir()
        (path / "f").write_text("old")
    write = "p.write_text('new')" if function == "replacing_file" else "(p / 'f').write_text('new')"
    dying(
        f"from pathlib import Path\nfrom moembed.files.paths import *\nwith {function}(Path('b')) as p:\n {write}; {DIE}",
        tmp_path,
    )
    assert (path if path.is_file() else path / "f").read_text() == "old"
    assert len(leftovers(tmp_path)) == 1
    with replacing_file(tmp_path / "another") as partial:
        partial.write_text("")
        assert len(leftovers(tmp_path)) == 1, "its own"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["another", "b"]


@kills
def test_a_folder_whose_exchange_was_cut_short_comes_back(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "f").write_text("old")
    dying(
        "from pathlib import Path\nfrom moembed.files.paths import *\nrename = Path.rename\n"
        f"def dies(*paths):\n rename(*paths)\n {DIE}\nPath.rename = dies\n"
        "with replacing_folder(Path('b')) as p: (p / 'f').write_text('new')",
        tmp_path,
    )
    assert not (tmp_path / "b").exists()
    sweep(tmp_path)
    assert (tmp_path / "b" / "f").read_text() == "old"
    assert leftovers(tmp_path) == []


def test_what_is_not_ours_is_left_alone(tmp_path):
    """Neither what only has such a name, nor what another user put there for root to move."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "old" / "precious").mkdir(parents=True)
    (elsewhere / "lock").touch()
    here = tmp_path / "here"
    here.mkdir()
    (here / ".moembed-link.partial").symlink_to(elsewhere)
    (here / ".moembed-file.partial").write_text("")
    (here / ".moembed-fresh.partial").mkdir()  # its owner is about to lock it
    expected = {".moembed-link.partial", ".moembed-file.partial", ".moembed-fresh.partial"}
    if sys.platform != "win32" and os.geteuid() == 0:
        (here / ".moembed-other.partial").mkdir()
        (here / ".moembed-other.partial" / "lock").touch()
        (here / ".moembed-other.partial" / "old").symlink_to(elsewhere / "old")
        os.chown(here / ".moembed-other.partial", 1234, 1234)
        expected.add(".moembed-other.partial")
    sweep(here)
    assert {path.name for path in here.iterdir()} == expected
    assert (elsewhere / "old" / "precious").is_dir()
    past = time.time() - 3600
    os.utime(here / ".moembed-fresh.partial", (past, past))
    sweep(here)
    assert not (here / ".moembed-fresh.partial").exists(), "its owner was killed before"


def test_writers_that_sweep_all_the_time_do_not_hurt_each_other(tmp_path):
    failures = []

    def write(number):
        try:
            for turn in range(40):
                with replacing_file(tmp_path / f"f{number % 3}") as partial:
                    partial.write_text(f"{number} {turn}")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f0", "f1", "f2"]


def test_a_replaced_folder_keeps_its_mode_and_a_link_to_it(tmp_path):
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir(mode=0o700)
    if sys.platform != "win32":
        link.symlink_to("folder")
    else:
        link = folder
    with replacing_folder(link) as partial:
        (partial / "new").touch()
    assert (folder / "new").exists()
    assert sys.platform == "win32" or (link.is_symlink() and folder.stat().st_mode & 0o777 == 0o700)


@kills
@pytest.mark.long
@pytest.mark.parametrize("command", ["embed", "export", "quantize"])
def test_commands_killed_at_any_moment(command, checkpoint, bundle, tmp_path, count):
    out = tmp_path / ("v.jsonl" if command == "embed" else "out")
    texts = tmp_path / "texts.txt"
    texts.write_text("some text\n" * 2000)
    argv = {
        "embed": ("embed", "-i", texts, "-o", out),
        "export": ("export", checkpoint, "-o", out, "--force"),
        "quantize": ("quantize", bundle.folder, "-o", out, "--force"),
    }[command]
    started = time.monotonic()
    assert moembed(*argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait() == 0
    usual = time.monotonic() - started
    seen = 0
    for seed in range(count):
        process = moembed(*argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        chosen = random.Random(seed)
        if seed % 2:  # else at any moment of the whole run
            when(lambda running=process: running.poll() is not None or list(tmp_path.glob(".moembed-*.partial/new")))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(usual * chosen.uniform(0, 0.2 if seed % 2 else 1))
        process.kill()
        process.wait()
        seen = max(seen, len(leftovers(tmp_path)))
        assert seen <= 1
        sweep(tmp_path)
        assert leftovers(tmp_path) == []
        if command == "embed":
            assert [json.loads(line)["index"] for line in out.read_text().splitlines()] == list(range(2000))
        else:
            Bundle.open(out, rehash=True)
    assert seen == 1, "some were killed while they wrote"
