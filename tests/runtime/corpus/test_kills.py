"""Runs that are killed at any moment, stopped by signals, and their workers."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from moembed.cli import main
from support.corpora import content, write_jsonl

if sys.platform == "win32":
    pytest.skip("signals of POSIX", allow_module_level=True)

ROWS, SHARD = 160, 8


ARGUMENTS = ("-i", "d.jsonl", "--shard-rows", str(SHARD), "--dim", "8")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folder with a corpus, and what an unbroken run of it writes."""
    folder = tmp_path_factory.mktemp("kills")
    write_jsonl(folder / "d.jsonl", [{"id": n, "text": f"text {n} " + "word " * (n % 60)} for n in range(ROWS)])
    go_on(folder, "whole")
    return folder, content(folder / "whole")


@pytest.fixture(scope="module")
def seconds(place):
    """Seconds that a run takes."""
    start = time.monotonic()
    command(place[0], "timed").communicate()
    return time.monotonic() - start


def command(folder, output, *options, program=("-m", "moembed")):
    """Start the command in a session of its own."""
    argv = [sys.executable, *program, "embed", *ARGUMENTS, "-o", f"{output}/", *options]
    return subprocess.Popen(
        argv, cwd=folder, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def go_on(folder, output, *options):
    """The same command in this process."""
    with contextlib.chdir(folder):
        assert main(["embed", *ARGUMENTS, "-q", "-o", f"{output}/", *options]) == 0


def shards(folder):
    return {path.name: path.stat().st_ino for path in folder.glob("_moembed/done/*")}


def finish(place, name, *options):
    """Go on with a run that was killed, and compare. Gives the number of shards that were finished before."""
    folder, whole = place
    before = shards(folder / name)
    go_on(folder, name, *options)
    after = shards(folder / name)
    assert content(folder / name) == whole  # so that no row is lost or there twice
    assert all(after[shard] == inode for shard, inode in before.items())
    return len(before)


def killed_at(place, moment, *options):
    """Kill a run after so many seconds, and go on. Gives the number of finished shards."""
    name = f"killed-{moment:.4f}{len(options)}"
    process = command(place[0], name, *options)
    time.sleep(moment)
    process.kill()
    process.communicate()
    return finish(place, name, *options)


@pytest.mark.parametrize("name", ["v.jsonl", pytest.param("v.parquet", marks=pytest.mark.long)])
def test_a_single_file_that_was_killed_is_made_anew(place, name):
    """No torn last record: the file is absent until it is complete, and nothing is left beside it."""
    folder = place[0] / name.replace(".", "-")
    folder.mkdir()
    argv = ["embed", "-i", "../d.jsonl", "-o", name, "--dim", "8", "-q"]
    process = subprocess.Popen([sys.executable, "-m", "moembed", *argv], cwd=folder, stdin=subprocess.DEVNULL)
    wait_for(lambda: list(folder.iterdir()))
    process.kill()
    process.wait()
    assert not (folder / name).exists()
    with contextlib.chdir(folder):
        assert main(argv) == 0
    stamp = [] if name.endswith(".parquet") else [f"{name}.stamp.json"]
    assert sorted(path.name for path in folder.iterdir()) == [name, *stamp]


def moments(seconds, count):
    chance = random.Random(21)
    return sorted(chance.uniform(0.0, seconds * 1.1) for _ in range(count))


def test_killed_in_the_middle(place):
    process = command(place[0], "middle")
    wait_for(lambda: len(shards(place[0] / "middle")) > 2)
    process.kill()
    process.communicate()
    assert finish(place, "middle") > 2


@pytest.mark.long
def test_killed_at_50_moments(place, seconds, capsys):
    table = [(moment, killed_at(place, moment)) for moment in moments(seconds, 50)]
    with capsys.disabled():
        print("\n| killed after | finished shards | made again | rows lost or doubled |\n|---|---|---|---|")
        for moment, finished in table:
            print(f"| {moment:.2f} s | {finished} of {ROWS // SHARD} | 0 of the finished | 0 |")
    assert any(0 < finished < ROWS // SHARD for _, finished in table)


@pytest.mark.long
def test_killed_at_10_moments_with_workers(place, seconds):
    for moment in moments(seconds, 10):
        killed_at(place, moment, "--workers", "2", "--threads", "1")


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


@pytest.mark.long
def test_killed_again_and_again_with_other_numbers_of_workers(place):
    for workers in (2, 4, 1):
        before = len(shards(place[0] / "other"))
        process = command(place[0], "other", "--workers", str(workers), "--threads", "1")
        wait_for(lambda before=before: len(shards(place[0] / "other")) > before + 1)
        process.kill()
        process.communicate()
    assert finish(place, "other") >= 6


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGINT, marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, marks=pytest.mark.long),
    ],
)
def test_no_worker_outlives_the_run(place, number):
    folder, _ = place
    name = f"workers-{number}"
    process = command(folder, name, "--workers", "2")
    wait_for(lambda: shards(folder / name))
    workers = descendants(process.pid)
    assert len(workers) == 2
    process.send_signal(number)
    process.communicate(timeout=30)
    wait_for(lambda: not any(map(is_alive, workers)), 5)
    finish(place, name)  # at once


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
    folder, _ = place
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
    finish(place, name)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.long),
    ],
)
def test_a_signal_to_all_processes_ends_the_run_and_says_how_to_go_on(place, number, code):
    """As `timeout`, a scheduler or Ctrl-C send it: the workers get it too, and may end first."""
    folder, _ = place
    name = f"group-{number}"
    process = command(folder, name, "--workers", "2")
    wait_for(lambda: shards(folder / name))
    workers = descendants(process.pid)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "give the same command again to go on" in err
    assert "Traceback" not in err
    wait_for(lambda: not any(map(is_alive, workers)), 5)
    finish(place, name)


def test_a_terminal_that_is_closed_ends_the_run_and_its_workers(place):
    import pty

    folder, _ = place
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        argv = [sys.executable, "-m", "moembed", "embed", *ARGUMENTS, "-o", "closed/", "--workers", "2"]
        os.execv(sys.executable, argv)
    wait_for(lambda: shards(folder / "closed"))
    workers = descendants(pid)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 129
    wait_for(lambda: not any(map(is_alive, workers)), 5)
    finish(place, "closed")


CLOSING = """
import os, signal, sys
from moembed.cli import main
from moembed.corpus import target

name = sys.argv[1]
sync = target._sync

def closing(file):
    sync(file)
    if file.name.endswith(f"{name}.partial"):
        os.kill(os.getpid(), signal.SIGTERM)

target._sync = closing
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    "name",
    [
        "rows-000000000016.parquet",
        pytest.param("_moembed/ids/rows-000000000016", marks=pytest.mark.long),
        pytest.param("_moembed/done/rows-000000000016.json", marks=pytest.mark.long),
    ],
)
def test_a_signal_while_a_shard_is_closed(place, name):
    folder, _ = place
    output = f"closing-{name.rpartition('.')[2]}" if "." in name else "closing-ids"
    process = command(folder, output, program=("-c", CLOSING, name.rpartition("/")[2]))
    _, err = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in err) == (143, False)
    assert "give the same command again to go on" in err
    assert not (folder / output / name).exists()
    assert finish(place, output) == 2


def test_a_worker_that_is_killed_is_told(place):
    folder, _ = place
    process = command(folder, "lost", "--workers", "2")
    wait_for(lambda: shards(folder / "lost"))
    os.kill(descendants(process.pid)[0], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "ended with exit code -9" in err
    finish(place, "lost")
