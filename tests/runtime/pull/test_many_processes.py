"""Several processes, threads and users on one name, and bundles that are replaced while they are used."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from support.pulls import WEIGHTS, Place, sent

OPEN = """
import json, sys
from moembed import Embedder
model = Embedder.from_pretrained(sys.argv[1], threads=1, local_files_only=len(sys.argv) > 2)
print(json.dumps([str(model.bundle.folder), model.encode("a text", prompt="").tobytes().hex()]))
"""
THREADS = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from moembed import Embedder
with ThreadPoolExecutor(4) as pool:
    models = list(pool.map(lambda _: Embedder.from_pretrained(sys.argv[1], threads=1), range(4)))
print(json.dumps([m.encode("a text", prompt="").tobytes().hex() for m in models]))
"""
# Locks that do nothing, as some network file systems have them, and file systems that refuse them.
NO_LOCKS = """
import errno, fcntl, os
def flock(file, operation):
    if {number}: raise OSError({number}, os.strerror({number}))
fcntl.flock = flock
"""
SERVE = """
import sys
from moembed import Embedder
model = Embedder.from_pretrained("acme/ft", threads=1)
for line in sys.stdin:
    print(model.encode(line.strip(), prompt="").tobytes().hex(), flush=True)
"""


def finished(processes):
    results = []
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        results.append((json.loads(out), err))
    return results


def test_four_processes_make_one_bundle(home):
    """N33"""
    before = sent(home.hub)
    results = finished([home.python(OPEN, "acme/ft") for _ in range(4)])
    assert len({json.dumps(found) for found, _ in results}) == 1
    assert sent(home.hub) - before == 1, "one download"
    waited = [err for _, err in results if "waiting for process" in err]
    assert len(waited) == 3
    assert all("which converts acme/ft (" in err for err in waited)
    assert sum("\nmoembed: calibrating on" in err for _, err in results) == 1, "one conversion"


@pytest.mark.long
def test_four_threads_make_one_bundle(home):
    """N33"""
    before = sent(home.hub)
    ((vectors, _),) = finished([home.python(THREADS, "acme/ft")])
    assert len(set(vectors)) == 1
    assert sent(home.hub) - before == 1


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
@pytest.mark.parametrize("number", [0, 37, 38], ids=["nothing", "ENOLCK", "ENOSYS"])
def test_locks_that_do_nothing_cost_double_work_at_most(home, number):
    """N35: no mixed folder, no hang."""
    before = sent(home.hub)
    code = NO_LOCKS.format(number=number) + OPEN
    results = finished([home.python(code, "acme/ft") for _ in range(2)])
    assert results[0][0] == results[1][0]
    assert sent(home.hub) - before <= 2
    ((again, _),) = finished([home.python(OPEN, "acme/ft", "offline")])
    assert again == results[0][0]
    assert not list(home.data.rglob(WEIGHTS)), "no download stays"


@pytest.mark.long
def test_a_bundle_in_use_is_replaced_and_removed(filled):
    """N36: the running process serves on."""
    server = subprocess.Popen(
        [sys.executable, "-c", SERVE],
        env=filled.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def ask(text="a text"):
        server.stdin.write(text + "\n")
        server.stdin.flush()
        return server.stdout.readline()

    first, other = ask(), ask("other")
    (folder,) = (filled.data / "models" / "acme--ft").glob("*-int8-*")
    out = filled.run("pull", "acme/ft", "--offline", "-o", folder.parent / "copy", "-q")
    assert out.returncode == 0, out.stderr
    (folder / "moembed.json").unlink()  # as by a cleaner: the next one makes it anew
    assert filled.run("embed", "-m", "acme/ft", "x").returncode == 0
    assert ask() == first
    assert filled.run("models", "--remove", "acme/ft").returncode == 0
    assert not folder.exists()
    assert ask("other") == other
    server.communicate("")


@pytest.mark.parametrize(
    "how", ["deleted", *(pytest.param(how, marks=pytest.mark.long) for how in ("truncated", "altered", "empty folder"))]
)
def test_what_a_cleaner_took_is_made_anew(filled, how):
    """N23: with one line, not the same error at each start."""
    (folder,) = (filled.data / "models" / "acme--ft").glob("*-int8-*")
    data = folder / "onnx" / "model_int8.onnx_data"
    content = data.read_bytes()
    if how == "deleted":
        data.unlink()
    elif how == "truncated":
        data.write_bytes(content[:-1])
    elif how == "altered":
        data.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        shutil.rmtree(folder)
        folder.mkdir()
    if how != "deleted":
        offline = filled.run("embed", "-m", "acme/ft", "x", "--offline")
        assert offline.returncode == 2
        assert offline.stderr.count("\n") == 1
        assert "acme/ft is not converted yet" in offline.stderr
        return
    ran = filled.run("embed", "-m", "acme/ft", "x")
    assert ran.returncode == 0, ran.stderr
    assert sum("making the bundle of acme/ft anew" in line for line in ran.stderr.splitlines()) == 1
    assert data.read_bytes() == content
    assert filled.run("embed", "-m", "acme/ft", "x").stderr == ""


def as_user(place, uid, *command, umask=0o022, **more):
    """Run a command as a user without account; a capability lets it read the interpreter, wherever that is."""
    caps = "+dac_read_search"
    become = f"--reuid={uid} --regid=54000 --clear-groups --inh-caps={caps} --ambient-caps={caps}"
    environment = {name: value for name, value in place.environment.items() if name != "HOME"} | more
    return subprocess.run(
        ["setpriv", *become.split(), *map(str, command)],
        env=environment,
        capture_output=True,
        text=True,
        umask=umask,
        cwd="/",
    )


@pytest.fixture
def shared(pulled):
    """Home that several users reach."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv, to be several users")
    root = Path(tempfile.mkdtemp())
    root.chmod(0o755)
    yield Place(root, pulled[0].hub, template=pulled[0].template)
    shutil.rmtree(root)


def test_an_image_that_was_built_by_root_runs_as_anyone(shared, pulled):
    """N30: no home, no right to write, no network."""
    shutil.copytree(pulled[0].data, shared.data)
    shared.more |= {"HF_HUB_OFFLINE": "1", "MOEMBED_CACHE": "/proc/nothing"}
    before = sorted((path, path.lstat().st_mtime_ns) for path in shared.root.rglob("*"))
    ran = as_user(shared, 54321, sys.executable, "-m", "moembed", "embed", "-m", "acme/ft", "x", "--dim", "4")
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    assert sorted((path, path.lstat().st_mtime_ns) for path in shared.root.rglob("*")) == before
    del shared.more["HF_HUB_OFFLINE"]
    shared.more["MOEMBED_DATA"] = ""
    ran = as_user(shared, 54321, sys.executable, "-m", "moembed", "pull", "nomic-ai/nomic-embed-text-v2-moe")
    assert ran.returncode == 2
    assert "this user has no home folder; set MOEMBED_DATA to a folder" in ran.stderr


def test_a_folder_that_cannot_be_written_is_told_before_the_download(shared):
    """N31"""
    shared.data.mkdir(mode=0o755)
    before = sent(shared.hub)
    ran = as_user(shared, 54321, sys.executable, "-m", "moembed", "pull", "acme/ft", MOEMBED_CACHE="/proc/nothing")
    assert ran.returncode == 2
    assert f"the data folder {shared.data} is not writable: set MOEMBED_DATA to a folder that is writable" in ran.stderr
    assert sent(shared.hub) == before
    assert list(shared.data.iterdir()) == []


@pytest.mark.long
@pytest.mark.parametrize("umask", [0o002, 0o077])
def test_two_users_of_one_folder(shared, checkpoint, umask):
    """N32: A pulls, B opens, B pulls another model; modes follow the umask."""
    shared.data.mkdir()
    os.chown(shared.data, -1, 54000)
    shared.data.chmod(0o2775)
    shared.more["MOEMBED_CACHE"] = "/proc/nothing"
    shared.hub.add("acme/other", checkpoint)
    pull = (sys.executable, "-m", "moembed", "pull", "-q")
    a = as_user(shared, 54321, *pull, "acme/ft", umask=umask)
    assert a.returncode == 0, a.stderr
    for path in (shared.data / "models").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask, path
    opened = as_user(shared, 54322, sys.executable, "-c", OPEN, "acme/ft", "offline", umask=umask)
    assert opened.returncode == 0, opened.stderr
    if umask == 0o002:
        b = as_user(shared, 54322, *pull, "acme/other", umask=umask)
        assert b.returncode == 0, b.stderr
    else:
        b = as_user(shared, 54322, *pull, "acme/other", umask=umask)
        assert b.returncode == 2
        assert "is not writable" in b.stderr or "cannot be created: Permission denied" in b.stderr
