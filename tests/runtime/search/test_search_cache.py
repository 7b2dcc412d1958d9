"""Cache of `moembed search`: full, read-only, locked, shared or killed; results are always right."""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from moembed.cli import main
from moembed.search import store as store_module

TEXT = "The cat sleeps on the sofa.\n\nFish swim in the river.\n\nTaxes are due in May.\n"


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text(TEXT)
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MOEMBED_CACHE", str(tmp_path / "own"))
    return tmp_path / "own" / "search.sqlite3"


@pytest.fixture
def search(capsys, docs, cache):
    """Search in this process; gives what was answered and what was said."""

    def run(*more):
        code = main(["search", str(docs), "where do cats rest?", "--json", *more])
        out, err = capsys.readouterr()
        assert code == 0, err
        return [json.loads(line) for line in out.splitlines()], err

    return run


@pytest.mark.parametrize("what", ["text", "directory", "full directory", "fifo", "broken link", "old schema"])
def test_what_is_no_such_database_is_replaced_with_a_sentence(search, cache, what):
    right, _ = search("--no-cache")
    cache.parent.mkdir(exist_ok=True)
    if what == "text":
        cache.write_text("my notes\n" * 999)
    elif "directory" in what:
        cache.mkdir()
        if "full" in what:
            (cache / "precious").write_text("")
    elif what == "fifo":
        os.mkfifo(cache)
    elif what == "broken link":
        cache.symlink_to(cache.parent / "elsewhere.sqlite3")
    else:
        with contextlib.closing(sqlite3.connect(cache)) as db, db:
            db.execute("CREATE TABLE windows (model TEXT, text BLOB, window INTEGER, vector BLOB)")
    answer, said = search()
    assert answer == right
    if what == "broken link":  # the place that the user chose for it is there now
        assert said == "moembed: 3 passages, 3 embedded now\n"
    elif what == "full directory":
        assert "cannot be replaced" in said
        assert (cache / "precious").exists()
        return
    else:
        assert said.count("it was replaced by a new one") == 1
    assert search() == (right, "moembed: 3 passages, 0 embedded now\n")


def test_a_lock_that_is_held_for_long_is_waited_for_and_then_gone_without(search, cache):
    right, _ = search()
    with contextlib.closing(sqlite3.connect(cache)) as db:
        db.execute("BEGIN EXCLUSIVE")
        before = time.monotonic()
        answer, said = search()
        waited = time.monotonic() - before
    assert answer == right
    assert "another process has locked the cache" in said
    assert "3 passages, 3 embedded now" in said
    assert store_module._LOCK_TIMEOUT == 2 <= waited


def test_a_lock_that_is_let_go_is_waited_for(search, cache):
    right, _ = search()
    locked = threading.Event()

    def hold():
        with contextlib.closing(sqlite3.connect(cache)) as db:
            db.execute("BEGIN EXCLUSIVE")
            locked.set()
            time.sleep(0.5)

    holder = threading.Thread(target=hold)
    holder.start()
    assert locked.wait(30)
    assert search() == (right, "moembed: 3 passages, 0 embedded now\n")
    holder.join()


def started(docs, cache, *more, **options):
    command = [sys.executable, "-m", "moembed", "search", str(docs), "where do cats rest?", "--json", *more]
    environment = os.environ | {"MOEMBED_CACHE": str(cache.parent)}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def done(process):
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()], err


def test_a_file_size_limit_is_a_sentence(search, docs, cache):
    right, _ = search("--no-cache")
    cache.parent.mkdir(exist_ok=True)
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))  # noqa: E731
    answer, said = done(started(docs, cache, preexec_fn=limit))
    assert answer == right
    assert f"the cache {cache} cannot be" in said


@pytest.fixture
def small_disk(tmp_path):
    """A disk of a few blocks, to be filled or remounted."""
    disk = tmp_path / "own"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("a disk can be mounted by root only")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize("room", [0, 5000, 20_000])
def test_a_full_disk_is_a_sentence(search, docs, cache, small_disk, room):
    (docs / "more.txt").write_text("\n\n".join(f"Paragraph {i} speaks of nothing." for i in range(8)))
    right, _ = search("--no-cache")
    (small_disk / "filler").write_bytes(bytes(65536 - 4096 - room // 4096 * 4096))
    for _ in range(2):
        answer, said = search()
        assert answer == right
        assert f"the cache {cache} cannot be" in said
    (small_disk / "filler").unlink()
    assert search()[0] == right


def test_a_warm_cache_on_a_read_only_disk_is_used(search, docs, cache, small_disk):
    right, _ = search()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert search() == (right, "moembed: 3 passages, 0 embedded now\n")
    (docs / "b.txt").write_text("A passage more.")
    _, said = search()
    assert "4 passages, 1 embedded now" in said
    assert said.count("cannot be written") == 1


@pytest.mark.parametrize("state", ["write-ahead log", "hot journal"])
def test_a_warm_cache_that_was_left_in_the_middle_of_something(search, cache, small_disk, state):
    right, _ = search()
    if state == "write-ahead log":
        with contextlib.closing(sqlite3.connect(cache)) as db:
            db.execute("PRAGMA journal_mode = WAL")
    else:
        leave_a_hot_journal(cache)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    answer, said = search()
    assert answer == right
    assert "0 embedded now" in said


def leave_a_hot_journal(path):
    """Die in the middle of a transaction that has begun to write the database."""
    code = (
        "import os, sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1])\n"
        "db.execute('PRAGMA cache_size = 1')\n"
        "db.execute('PRAGMA cache_spill = 1')\n"
        "db.execute('BEGIN IMMEDIATE')\n"
        "db.executemany('INSERT INTO texts VALUES (?, zeroblob(3000), 1)', ((os.urandom(32),) for _ in range(5)))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, path], check=False)
    assert path.with_name(path.name + "-journal").exists()


@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write everywhere")
def test_a_warm_cache_in_a_read_only_folder_is_used(search, cache):
    right, _ = search()
    cache.chmod(0o444)
    cache.parent.chmod(0o555)
    try:
        assert search() == (right, "moembed: 3 passages, 0 embedded now\n")
    finally:
        cache.parent.chmod(0o755)


# -- several processes, and kills --------------------------------------------------------------------------------------


def rows_of(cache) -> int:
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{cache}?mode=ro", uri=True)) as db,
    ):
        return db.execute("SELECT count(*) FROM texts").fetchone()[0]
    return 0


def many_passages(docs, count):
    (docs / "many.txt").write_text("\n\n".join(f"Paragraph {i} speaks of the number {i * i}." for i in range(count)))
    return count + 3


def check_six_processes(search, docs, cache, passages):
    total = many_passages(docs, passages)
    processes = [started(docs, cache) for _ in range(6)]
    answers = [done(process) for process in processes]
    right, said = search()
    assert f"{total} passages, 0 embedded now" in said, "nothing was lost"
    assert all(answer == right for answer, _ in answers)
    assert right == search("--no-cache")[0]
    assert all("cache" not in said for _, said in answers)


def test_six_processes_at_once(search, docs, cache):
    check_six_processes(search, docs, cache, 10)


@pytest.mark.long
def test_six_processes_at_once_for_long(search, docs, cache, count):
    for _ in range(count):
        cache.unlink(missing_ok=True)
        check_six_processes(search, docs, cache, 150)


@pytest.mark.long
def test_six_processes_at_once_on_a_damaged_database(search, docs, cache, count):
    right, _ = search()
    for seed in range(count):
        cache.write_bytes(random.Random(seed).randbytes(9000))
        assert all(answer == right for answer, _ in [done(p) for p in [started(docs, cache) for _ in range(6)]])
        assert search()[0] == right


def check_kills(search, docs, cache, kills, rng):
    """Kill searches at random moments after they have kept something."""
    total = many_passages(docs, 64 * (kills + 2))
    for _ in range(kills):
        before = rows_of(cache)
        process = started(docs, cache)
        deadline = time.monotonic() + 120
        while rows_of(cache) <= before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(rng.random() / 20)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert rows_of(cache) > before
    kept = rows_of(cache)
    answer, said = search()
    assert f"{total} passages, {total - kept} embedded now" in said, "nothing was lost, and all of it was right"
    assert answer == search("--no-cache")[0]


def test_kills_lose_nothing(search, docs, cache):
    check_kills(search, docs, cache, 2, random.Random(5))


@pytest.mark.long
def test_many_kills_lose_nothing(search, docs, cache, count):
    check_kills(search, docs, cache, count, random.Random(6))
