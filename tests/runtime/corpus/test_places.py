"""Places of the output: without renames, full, behind a link, or not writable."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from moembed.corpus.sources import Source
from moembed.corpus.spooling import spooled
from moembed.corpus.storage import reading
from moembed.errors import InputError, OutputError
from support.corpora import content


@pytest.mark.parametrize("names", [("rename", "replace", "chmod")])
def test_no_renames(run, corpus, whole, here, monkeypatch, names):
    """As on a bucket that is mounted: told before the first row, and shards are written in place."""

    def refuse(*_arguments, **_options):
        raise OSError(errno.ENOSYS, "Function not implemented")

    for name in names:
        monkeypatch.setattr(os, name, refuse)
    log = []
    run(corpus, "mounted", on_error="skip", log=log)
    assert "mounted has no renames" in log[0]
    assert content(here / "mounted") == whole
    (here / "mounted" / "rows-000000000010.parquet").write_bytes(b"PAR1")  # a write that was cut off
    assert run(corpus, "mounted", on_error="skip").made == (1,)
    assert content(here / "mounted") == whole


def test_what_cannot_be_written_is_told(run, corpus, here):
    """An `OutputError` is an `OSError`: nothing takes it for one of reading, or drops it."""
    (here / "out" / "_moembed").mkdir(parents=True)
    (here / "out" / "_moembed" / "owners").write_text("no folder")
    with pytest.raises(OutputError, match="cannot write out/_moembed/owners/0-of-1: "):
        run(corpus)
    with pytest.raises(OutputError, match="refused"), reading(corpus):
        raise OutputError("refused")
    with pytest.raises(OutputError, match=r"cannot copy stdin to .*absent/input0: No such file"):
        spooled([Source(os.devnull, "lines", label="stdin")], here / "absent" / "input")
    with pytest.raises(InputError, match="^d cannot be read: Is a directory"), reading(str(here), "d"):
        pass


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs another file system")
def test_the_output_may_be_a_link_into_another_file_system(run, corpus, whole, here):
    place = Path(f"/dev/shm/moembed-test-{os.getpid()}")
    place.mkdir()
    try:
        (here / "link").symlink_to(place, target_is_directory=True)
        run(corpus, "link", on_error="skip")
        assert (here / "link").is_symlink()
        assert content(place) == whole
    finally:
        shutil.rmtree(place)


def test_disk_full_is_told_and_the_run_goes_on_later(run, corpus, whole, here, monkeypatch):
    from moembed.corpus import target as targets

    written = {"left": 0}
    write = targets.Sink.write

    def limited(self, data):
        written["left"] -= memoryview(data).nbytes
        if written["left"] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    size = sum(map(len, whole.values()))
    for share in (0.1, 0.99):
        written["left"] = int(share * size)
        with monkeypatch.context() as patch:
            patch.setattr(targets.Sink, "write", limited)
            with pytest.raises(OutputError, match=r"^cannot write full/.*: No space left on device$"):
                run(corpus, "full", on_error="skip")
        assert not list((here / "full").glob("_moembed/partial/*"))
        if share > 0.5:
            assert run(corpus, "full", on_error="skip").kept
            assert content(here / "full") == whole
        shutil.rmtree(here / "full")
