"""Files that are on this machine already: copied, damaged, shared or read-only caches (N20 to N22, N39)."""

import hashlib
import os
import shutil
import stat
from pathlib import Path

import pytest

from moembed.errors import OutputError, SourceError
from moembed.hub.cache import commit_of, find_by_digest
from moembed.hub.fetch import Reporter, fetch
from moembed.hub.places import CachePlace
from support.hub_server import digest_of

WEIGHTS = "model.safetensors"
FILES = ["config.json", WEIGHTS]
MAIN, PIN = "a" * 40, "b" * 40


def write_cache(cache, repository, commit=MAIN):
    """Lay a repository out as huggingface_hub does."""
    base = cache / "models--acme--model"
    for path in repository.iterdir():
        content = path.read_bytes()
        blob = (
            base
            / "blobs"
            / (
                digest_of(path)
                if path.name == WEIGHTS
                else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            )
        )
        pointer = base / "snapshots" / commit / path.name
        for folder in (blob.parent, pointer.parent, base / "refs"):
            folder.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    (base / "refs" / "main").write_text(commit)
    return base


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def base(cache, repository):
    return write_cache(cache, repository)


def snapshot_of(folder):
    """Everything below a folder, as a change would be seen."""
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_ino) for path in folder.rglob("*")}


def no_refs(base):
    shutil.rmtree(base / "refs")


def newline(base):
    (base / "refs" / "main").write_text(f"{MAIN}\n")


def copied(base):
    shutil.copytree(base, base.with_name("copied"), symlinks=False)
    shutil.rmtree(base)
    base.with_name("copied").rename(base)


def copied_without_blobs(base):
    copied(base)
    shutil.rmtree(base / "blobs")


def no_snapshot(base):
    shutil.rmtree(base / "snapshots")
    (base / "snapshots" / MAIN).mkdir(parents=True)
    (base / "snapshots" / MAIN / WEIGHTS).symlink_to("../../blobs/gone")


@pytest.mark.parametrize("change", [no_refs, newline, copied, copied_without_blobs, no_snapshot, lambda base: None])
def test_weights_are_found_by_their_digest_however_the_cache_was_copied(
    served, cache, base, tmp_path, change
):  # N20, N21
    """The pin is another commit than the one that is cached: only the small file is fetched."""
    served.add("acme/model", served.weights.parent, commit=PIN)
    change(base)
    before = snapshot_of(cache)
    pin = {WEIGHTS: digest_of(served.weights)}
    lines = []
    found = fetch(
        "acme/model", FILES, revision=PIN, sha256=pin, into=tmp_path / "into", reporter=Reporter(log=lines.append)
    )
    assert found.commit == PIN
    assert [line for line in lines if "is on this machine already" in line] == lines
    assert len(lines) == 1
    assert {request.path for request in served.requests} == {"config.json"}
    assert served.stored == []
    assert digest_of(tmp_path / "into" / WEIGHTS) == pin[WEIGHTS]
    assert snapshot_of(cache) == before, "nothing is written there"
    assert du(tmp_path / "into") < 10_000, "nothing is stored twice"


def du(folder):
    return sum(path.lstat().st_size for path in folder.rglob("*") if stat.S_ISREG(path.lstat().st_mode))


def dangling(base):
    next(path for path in (base / "blobs").iterdir() if len(path.name) == 64).unlink()


def short(base):
    blob = next(path for path in (base / "blobs").iterdir() if len(path.name) == 64)
    os.truncate(blob, 1000)


def short_copy(base):
    copied_without_blobs(base)
    os.truncate(base / "snapshots" / MAIN / WEIGHTS, 1000)


@pytest.mark.parametrize(
    ("change", "pinned", "place"),
    [
        *((change, True, place) for change in (dangling, short, short_copy) for place in ("cache", "folder")),
        (dangling, False, "cache"),
        (dangling, False, "folder"),
        # Blobs in the cache are not hashed at every start: opening a bundle or a checkpoint finds what is short.
        (short, False, "folder"),
    ],
)
def test_a_dangling_or_short_file_is_absent(served, cache, base, tmp_path, change, pinned, place):  # N20
    served.add("acme/model", served.weights.parent, commit=MAIN)
    change(base)
    digest = digest_of(served.weights)
    options = {"sha256": {WEIGHTS: digest}} if pinned else {}
    found = fetch("acme/model", FILES, revision=MAIN, into=tmp_path / "into" if place == "folder" else None, **options)
    assert digest_of(found.folder / WEIGHTS) == digest
    assert len(served.stored) == 1


@pytest.mark.parametrize("revision", [None, MAIN])
def test_offline_with_a_copied_cache(served, cache, base, revision):  # N20
    for change in (newline, no_refs):
        change(base)
        assert fetch("acme/model", FILES, revision=revision, local_files_only=True).folder == base / "snapshots" / MAIN
    assert served.requests == []


def test_two_snapshots_without_refs_are_ambiguous(cache, repository, base):  # N20
    write_cache(cache, repository, PIN)
    no_refs(base)
    assert commit_of(cache, "acme/model", None) is None
    with pytest.raises(SourceError, match="config.json of acme/model at revision main is not in the cache"):
        fetch("acme/model", FILES, revision=None, local_files_only=True)


@pytest.mark.parametrize("layout", ["old", "new"])
@pytest.mark.parametrize("variable", ["SENTENCE_TRANSFORMERS_HOME", "TRANSFORMERS_CACHE"])
def test_weights_of_sentence_transformers_are_found(served, tmp_path, monkeypatch, layout, variable):  # N21
    home = tmp_path / "home"
    if layout == "old":
        shutil.copytree(served.weights.parent, home / "acme_model")
    else:
        write_cache(home, served.weights.parent)
    monkeypatch.setenv(variable, str(home))
    before = snapshot_of(home)
    pin = {WEIGHTS: digest_of(served.weights)}
    fetch("acme/model", FILES, revision=served.commit, sha256=pin, into=tmp_path / "into")
    assert served.stored == []
    assert digest_of(tmp_path / "into" / WEIGHTS) == pin[WEIGHTS]
    assert snapshot_of(home) == before


def test_unpinned_weights_are_recognized_by_the_digest_that_the_hub_states(served, base, tmp_path):  # N21
    fetch("acme/model", FILES, revision=None, into=tmp_path / "into")
    assert served.stored == []
    assert digest_of(tmp_path / "into" / WEIGHTS) == digest_of(served.weights)


def test_a_blob_that_is_named_by_another_digest_is_not_even_read(cache, base, monkeypatch):
    monkeypatch.delattr("moembed.hub.cache._has_digest")
    assert find_by_digest("acme/model", WEIGHTS, "0" * 64, [cache]) is None


def test_a_copy_with_another_digest_is_not_taken(cache, base):
    copied_without_blobs(base)
    assert find_by_digest("acme/model", WEIGHTS, "0" * 64, [cache]) is None


def read_only(folder):
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() else 0o444)


@pytest.fixture
def locked(cache, base, monkeypatch):
    """A cache that cannot be written, not even by root, to whom modes mean nothing."""
    read_only(cache)
    opened = os.open
    made = os.mkdir

    def refuse(path, *arguments, **options):
        if str(path).startswith(str(cache)):
            raise PermissionError(13, "Permission denied", str(path))
        return made(path, *arguments, **options)

    def refuse_open(path, flags, *arguments, **options):
        if str(path).startswith(str(cache)) and flags & (os.O_WRONLY | os.O_RDWR):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", refuse)
    monkeypatch.setattr(os, "open", refuse_open)
    yield cache
    for path in (cache, *cache.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755)


def test_a_read_only_cache_with_the_files(served, locked, tmp_path):  # N22
    served.add("acme/model", served.weights.parent, commit=MAIN)
    before = snapshot_of(locked)
    pin = {WEIGHTS: digest_of(served.weights)}
    assert fetch("acme/model", FILES, revision=MAIN, local_files_only=True).folder.is_relative_to(locked)
    fetch("acme/model", FILES, revision=MAIN, sha256=pin, into=tmp_path / "into")
    assert served.requests == [], "the small file is cached at this commit too"
    assert snapshot_of(locked) == before


def test_a_read_only_cache_without_the_files(served, locked, tmp_path):  # N22
    other = served.weights.parent.with_name("other")
    other.mkdir()
    (other / WEIGHTS).write_bytes(os.urandom(1000))
    served.add("acme/other", other)
    before = snapshot_of(locked)
    with pytest.raises(
        OutputError, match="cannot write .*Permission denied; choose another folder for downloads .HF_HUB_CACHE"
    ):
        fetch("acme/other", [WEIGHTS], revision=None)
    assert served.stored == [], "told before the download"
    fetch("acme/other", [WEIGHTS], revision=None, into=tmp_path / "into")
    assert digest_of(tmp_path / "into" / WEIGHTS) == digest_of(other / WEIGHTS)
    assert snapshot_of(locked) == before


def test_only_what_is_needed_is_asked_for_and_stored_once(served, cache, tmp_path):  # N39
    (served.weights.parent / "pytorch_model.bin").write_bytes(os.urandom(1_000_000))
    (served.weights.parent / "README.md").write_text("no weights")
    fetch("acme/model", FILES, revision=None, into=tmp_path / "into")
    assert {request.path for request in served.requests} == set(FILES)
    assert not cache.exists()
    fetch("acme/model", FILES, revision=None)
    assert {request.path for request in served.requests} == set(FILES)
    total = sum((served.weights.parent / name).stat().st_size for name in FILES)
    assert total <= du(cache) < total + 1_000_000
    assert sorted(path.name for path in cache.rglob("*") if path.name.endswith((".part", ".json"))) == ["config.json"]


def test_without_symbolic_links(served, cache, tmp_path, monkeypatch):  # N10
    def refuse(*_arguments, **_options):
        raise OSError(1314, "A required privilege is not held by the client")

    monkeypatch.setattr(os, "symlink", refuse)
    found = fetch("acme/model", FILES, revision=None)
    assert digest_of(found.folder / WEIGHTS) == digest_of(served.weights)
    served.stored.clear()
    fetch("acme/model", FILES, revision=None, into=tmp_path / "linked")
    monkeypatch.setattr(os, "link", refuse)
    fetch("acme/model", FILES, revision=None, into=tmp_path / "copied")
    for folder in (tmp_path / "linked", tmp_path / "copied"):
        assert digest_of(folder / WEIGHTS) == digest_of(served.weights)
        assert not (folder / WEIGHTS).is_symlink()
    assert served.stored == []


def test_a_file_of_a_snapshot_is_never_absent_for_a_moment(served, cache, monkeypatch):
    """Processes that fetch at once all make the same links, while those that were first read them."""
    found = fetch("acme/model", FILES, revision=None)
    before = snapshot_of(found.folder)
    place = CachePlace("acme/model", None)
    blob = cache / "models--acme--model" / "blobs" / digest_of(served.weights)

    def refuse(path, **_options):
        raise AssertionError(f"{path} is removed")

    monkeypatch.setattr(Path, "unlink", refuse)
    place.take(blob, found.commit, WEIGHTS)
    assert snapshot_of(found.folder) == before
    (found.folder / "other").symlink_to("nowhere")
    (found.folder / "other").replace(found.folder / WEIGHTS)
    place.take(blob, found.commit, WEIGHTS)
    assert (found.folder / WEIGHTS).samefile(blob)
    assert sorted(path.name for path in found.folder.iterdir()) == FILES


def test_huggingface_hub_reads_what_was_written(served, cache):
    from huggingface_hub import scan_cache_dir, try_to_load_from_cache

    found = fetch("acme/model", FILES, optional=["modules.json"], revision=None)
    for name in FILES:
        assert try_to_load_from_cache("acme/model", name, cache_dir=cache) == str(found.folder / name)
    fetch("acme/model", ["config.json"], optional=["modules.json"], revision=found.commit)
    assert not isinstance(try_to_load_from_cache("acme/model", "modules.json", cache_dir=cache), str | None), (
        "known absent"
    )
    (repo,) = scan_cache_dir(cache).repos
    assert repo.repo_id == "acme/model"
    assert {file.file_name for revision in repo.revisions for file in revision.files} == set(FILES)
    assert scan_cache_dir(cache).warnings == []


def test_modes_follow_the_umask(served, cache, tmp_path):  # N32
    before = os.umask(0o002)
    try:
        fetch("acme/model", FILES, revision=None)
        fetch("acme/model", FILES, revision=None, into=tmp_path / "into")
    finally:
        os.umask(before)
    for path in [*cache.rglob("*"), *(tmp_path / "into").rglob("*")]:
        if not path.is_symlink():
            assert stat.S_IMODE(path.stat().st_mode) == (0o775 if path.is_dir() else 0o664), path


def test_a_branch_that_moved_while_the_hub_is_down(served, cache):
    first = fetch("acme/model", FILES, revision=None)
    served.stop()
    assert fetch("acme/model", FILES, revision=None) == first


def test_a_failed_download_of_a_new_commit_does_not_hide_the_old_one(served, cache):
    from support.hub_server import Fault

    first = fetch("acme/model", FILES, revision=None)
    served.weights.write_bytes(os.urandom(1000))
    served.add("acme/model", served.weights.parent, commit=PIN)
    served.faults[WEIGHTS] = Fault("status", status=403)
    with pytest.raises(SourceError, match="answered with status 403"):
        fetch("acme/model", FILES, revision=None)
    assert fetch("acme/model", FILES, revision=None, local_files_only=True) == first
