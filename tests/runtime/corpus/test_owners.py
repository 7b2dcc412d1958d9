"""Owners of a folder: a second one is told who the first is, and two lose nothing."""

import os
import socket
import subprocess
import sys
import threading

import pytest

from moembed.corpus import claims
from moembed.errors import OutputError
from support.corpora import content


def held(folder):
    """Claim a folder in another process, until its stdin is closed."""
    script = (
        "import sys\nfrom moembed.corpus.claims import claimed\nfrom moembed.corpus.target import LocalTarget\n"
        f"with claimed(LocalTarget({str(folder)!r}, 'x'), '0-of-1'):\n print('held', flush=True)\n sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_told_who_the_first_is(run, corpus, here):
    process = held(here / "out")
    try:
        with pytest.raises(OutputError, match="is being written by process") as error:
            run(corpus, on_error="skip")
        assert f"process {process.pid} on {socket.gethostname()}" in str(error.value)
        run(corpus, "out2", on_error="skip")
    finally:
        process.kill()
        process.communicate()
    partial = here / "out" / "_moembed" / "partial" / "0-of-1-host-1-abcd-rows-000000000000.parquet"
    partial.write_text("of the dead owner")
    other = partial.with_name("1-of-2-host-1-abcd-rows-000000000000.parquet")
    other.write_text("of an owner of something else")
    assert run(corpus, on_error="skip").made == tuple(range(6))  # the dead owner is noticed at once
    assert not partial.exists()
    assert other.exists()


def test_locks_that_do_nothing(run, corpus, whole, here, monkeypatch):
    """As on NFS: the owner is known by signs of life, and two owners would write the same bytes."""
    import fcntl

    monkeypatch.setattr(fcntl, "flock", lambda *_arguments: None)
    monkeypatch.setitem(claims._BEAT_SECONDS, claims.LocalTarget, 0.2)
    started, release = threading.Event(), threading.Event()
    target = claims.LocalTarget(str(here / "shared"), "x")

    def own():
        with claims.claimed(target, "0-of-1"):
            started.set()
            release.wait(60)

    owner = threading.Thread(target=own)
    owner.start()
    started.wait(60)
    partial = target.spool("rows-000000000000.parquet")
    partial.write_text("of the other owner")
    try:
        with pytest.raises(OutputError, match=f"is being written by process {os.getpid()} on"):
            run(corpus, "shared", on_error="skip")
    finally:
        release.set()
        owner.join()
    assert partial.read_text() == "of the other owner"
    claim = here / "shared" / "_moembed" / "owners" / "0-of-1.json"
    claim.write_text('{"pid": 1, "host": "gone", "token": "0", "beat": 3}')  # of one that was killed
    run(corpus, "shared", on_error="skip")
    assert partial.exists()  # its owner may be alive
    partial.unlink()
    claim.unlink(missing_ok=True)
    assert content(here / "shared") == whole


def test_two_owners_at_once_lose_nothing(run, corpus, whole, here, monkeypatch):
    import contextlib

    from moembed.corpus import runs

    @contextlib.contextmanager
    def everybody(*_arguments):
        yield False

    monkeypatch.setattr(runs, "claimed", everybody)
    threads = [threading.Thread(target=run, args=(corpus, "both"), kwargs={"on_error": "skip"}) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert content(here / "both") == whole
