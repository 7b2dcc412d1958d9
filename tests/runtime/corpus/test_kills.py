"""Runs that are killed at any moment, stopped by signals, and their workers."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from support.corpora import content, write_jsonl

if sys.platform == "win32":
    pytest.skip("signals of POSIX", allow_module_level=True)

ROWS, SHARD = 160, 8


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folder with a corpus, and what an unbroken run of it writes."""
    folder = tmp_path_factory.mktemp("kills")
    write_jsonl(folder / "d.jsonl", [{"id": n, "text": f"text {n} " + "word " * (n % 60)} for n in range(ROWS)])
    start = time.monotonic()
    command(folder, "whole").wait()
    return folder, content(folder / "whole"), time.monotonic() - start


def command(folder, output, *options, **keywords):
    argv = [
        sys.executable,
        "-m",
        "moembed",
        "embed",
        "-i",
        "d.jsonl",
        "-o",
        f"{output}/",
        "--shard-rows",
        str(SHARD),
        "--dim",
        "8",
    ]
    return subprocess.Popen(
        [*argv, *options], cwd=folder, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **keywords
    )


def shards(folder):
    return {path.name: path.stat().st_ino for path in folder.glob("_moembed/done/*")}


def killed_at(place, seconds, *options):
    """Kill a run after so many seconds, and go on. Gives finished shards, and those that were made twice."""
    folder, whole, _ = place
    name = f"killed-{seconds:.4f}{len(options)}"
    process = command(folder, name, *options)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    before = shards(folder / name)
    done = command(folder, name, *options)
    _, err = done.communicate(timeout=120)
    assert done.returncode == 0, err
    after = shards(folder / name)
    assert content(folder / name) == whole  # so that no row is lost or there twice
    assert all(after[shard] == inode for shard, inode in before.items())
    return len(before)


@pytest.mark.parametrize("name", ["v.jsonl", "v.parquet"])
def test_a_single_file_that_was_killed_is_made_anew(place, name):
    """No torn last record: the file is absent until it is complete, and nothing is left beside it."""
    folder = place[0] / name.replace(".", "-")
    folder.mkdir()
    argv = [sys.executable, "-m", "moembed", "embed", "-i", "../d.jsonl", "-o", name, "--dim", "8", "-q"]
    process = subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL)
    wait_for(lambda: list(folder.iterdir()))
    process.kill()
    process.wait()
    assert not (folder / name).exists()
    assert subprocess.run(argv, cwd=folder, stdin=subprocess.DEVNULL).returncode == 0
    stamp = [] if name.endswith(".parquet") else [f"{name}.stamp.json"]
    assert sorted(path.name for path in folder.iterdir()) == [name, *stamp]


def moments(place, count):
    chance = random.Random(21)
    return sorted(chance.uniform(0.0, place[2] * 1.1) for _ in range(count))


def test_killed_at_a_late_moment(place):
    assert killed_at(place, place[2] * 0.85) > 0


@pytest.mark.long
def test_killed_at_50_moments(place, capsys):
    table = [(seconds, killed_at(place, seconds)) for seconds in moments(place, 50)]
    with capsys.disabled():
        print("\n| killed after | finished shards | made again | rows lost or doubled |\n|---|---|---|---|")
        for seconds, finished in table:
            print(f"| {seconds:.2f} s | {finished} of {ROWS // SHARD} | 0 of the finished | 0 |")
    assert any(0 < finished < ROWS // SHARD for _, finished in table)


@pytest.mark.long
def test_killed_at_10_moments_with_workers(place):
    for seconds in moments(place, 10):
        killed_at(place, seconds, "--workers", "2", "--threads", "1")


def descendants(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout.split()
    return [int(child) for child in found]


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(status) and not status.startswith("Z")


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_no_worker_outlives_the_run(place, number):
    folder, whole, _ = place
    name = f"workers-{number}"
    process = command(folder, name, "--workers", "2")
    wait_for(lambda: shards(folder / name))
    workers = descendants(process.pid)
    assert len(workers) == 2
    process.send_signal(number)
    process.communicate(timeout=30)
    wait_for(lambda: not any(map(is_alive, workers)), 5)
    done = command(folder, name, "--workers", "2")  # at once
    done.communicate(timeout=120)
    assert done.returncode == 0
    assert content(folder / name) == whole


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.long),
        pytest.param(signal.SIGUSR1, 128 + signal.SIGUSR1, marks=pytest.mark.long),
    ],
)
def test_a_signal_ends_the_run_and_says_how_to_go_on(place, number, code):
    folder, whole, _ = place
    name = f"signal-{number}"
    process = command(folder, name)
    wait_for(lambda: shards(folder / name))
    start = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - start < 5
    assert process.returncode == code
    assert "give the same command again to go on" in err
    assert not list((folder / name).glob("_moembed/partial/*"))
    done = command(folder, name)
    done.communicate(timeout=120)
    assert content(folder / name) == whole


def test_a_worker_that_is_killed_is_told(place):
    folder, whole, _ = place
    process = command(folder, "lost", "--workers", "2")
    wait_for(lambda: shards(folder / "lost"))
    os.kill(descendants(process.pid)[0], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "ended with exit code -9" in err
    done = command(folder, "lost", "--workers", "3")
    done.communicate(timeout=120)
    assert content(folder / "lost") == whole
