"""Places of the output: without renames, full, behind a link, or not writable."""

import errno
import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from moembed.corpus.sources import Source
from moembed.corpus.spooling import spooled
from moembed.corpus.storage import reading
from moembed.corpus.target import LocalTarget
from moembed.errors import InputError, OutputError
from support.corpora import content


@pytest.mark.parametrize("names", [("rename", "replace", "chmod"), ("replace",)])
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


@pytest.fixture
def nobody(here):
    """Be another user in a block."""
    if not hasattr(os, "seteuid") or os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    here.chmod(0o755)

    @contextmanager
    def other():
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)

    return other


def test_another_user_goes_on_or_is_told(run, corpus, whole, here, nobody):
    (here / "out" / "rows-000000000010.parquet").unlink()
    with nobody(), pytest.raises(OutputError, match="^cannot write out: Permission denied"):
        run(corpus, on_error="skip")
    for path in (here / "out", *(here / "out").rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    with nobody():
        assert run(corpus, on_error="skip").made == (1,)
    assert (here / "out" / "rows-000000000010.parquet").stat().st_uid == 65534
    assert run(corpus, on_error="skip").made == ()
    assert content(here / "out") == whole


@pytest.fixture
def full_at(monkeypatch):
    """Let the disk be full while a file of the output is written."""
    from moembed.corpus import target

    sync = target._sync

    @contextmanager
    def full(name):
        def synced(file):
            if Path(file.name).name.removesuffix(".partial").endswith(name):
                raise OSError(errno.ENOSPC, "No space left on device")
            sync(file)

        with monkeypatch.context() as patch:
            patch.setattr(target, "_sync", synced)
            yield

    return full


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("_moembed/run.json", 0),
        ("rows-000000000000.parquet", 0),
        ("rows-000000000050.parquet", 5),
        ("_moembed/rejects/rows-000000000010.jsonl", 1),
        ("_moembed/ids/rows-000000000030", 3),
        ("_moembed/done/rows-000000000050.json", 5),
    ],
)
@pytest.mark.parametrize("renames", [True, False])
def test_disk_full_is_told_and_the_run_goes_on_later(
    run, corpus, whole, here, full_at, monkeypatch, name, kept, renames
):
    monkeypatch.setattr(LocalTarget, "_can_rename", lambda _self: renames)
    said = re.escape(f"cannot write full/{name}: No space left on device")
    with full_at(name.rpartition("/")[2]), pytest.raises(OutputError, match=f"^{said}$"):
        run(corpus, "full", on_error="skip")
    assert not list((here / "full").glob("_moembed/partial/*"))
    assert not (here / "full" / name).exists()
    before = {path: path.stat().st_mtime_ns for path in (here / "full").glob("rows-*")}
    result = run(corpus, "full", on_error="skip")
    assert result.kept == tuple(range(kept))
    assert content(here / "full") == whole
    finished = [here / "full" / f"rows-{10 * shard:012}.parquet" for shard in result.kept]
    assert [path.stat().st_mtime_ns for path in finished] == [before[path] for path in finished]


def test_a_real_disk_that_is_full_and_a_mount_of_its_own(run, corpus, whole, here, mounted):
    disk = mounted("disk", "56k")
    with pytest.raises(OutputError, match=r"^cannot write disk/.*: No space left on device$"):
        run(corpus, "disk", on_error="skip")
    before = {path.name: path.stat().st_mtime_ns for path in disk.glob("rows-*")}
    subprocess.run(["mount", "-o", "remount,size=10m", disk], check=True)
    result = run(corpus, "disk", on_error="skip")
    assert 0 < len(result.kept) < 6
    kept = [f"rows-{10 * shard:012}.parquet" for shard in result.kept]
    assert [(disk / name).stat().st_mtime_ns for name in kept] == [before[name] for name in kept]
    assert content(disk) == whole


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_tells_late_is_believed(run, corpus, here, monkeypatch, number):
    """As NFS does, when a file is synchronized. A file system that cannot do that is used without."""

    def refuse(kind):
        def fsync(_file):
            raise OSError(kind, os.strerror(kind))

        return fsync

    monkeypatch.setattr(os, "fsync", refuse(number))
    with pytest.raises(OutputError, match=f"cannot write out/.*: {os.strerror(number)}"):
        run(corpus, on_error="skip")
    monkeypatch.setattr(os, "fsync", refuse(errno.EINVAL))
    assert run(corpus, on_error="skip").made == tuple(range(6))


def test_unfinished_files_are_not_taken_for_data(run, corpus, whole, here, monkeypatch):
    """By those who read a folder, or all of a suffix below it, while a run writes."""
    from moembed.corpus import target

    sync, seen = target._sync, []

    def look(file):
        sync(file)
        seen.append({path.relative_to("out2").as_posix() for path in Path("out2").rglob("*.parquet")})

    monkeypatch.setattr(target, "_sync", look)
    run(corpus, "out2", on_error="skip")
    assert len(seen) > 20
    assert set().union(*seen) == {name for name in whole if name.endswith(".parquet")}
