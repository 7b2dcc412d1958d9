"""Claims: one owner of each slice of an output folder.

A local lock tells at once that its owner is dead. Where locks keep nobody out (some network file systems, two containers, S3),
the owner writes a file again and again; who finds one that changes stays away. Two owners at the same moment would compute the
same shards twice, and put the same bytes in place.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from moembed.corpus.target import OWN, LocalTarget, RemoteTarget
from moembed.errors import OutputError
from moembed.store.ownership import Status, owning

_BEAT_SECONDS = {LocalTarget: 1.0, RemoteTarget: 5.0}
_BEATS_WITHOUT_CHANGE = 3.5
_UNKNOWN_SECONDS = 6.0


@contextmanager
def claimed(target: LocalTarget | RemoteTarget, slice_name: str) -> Iterator[bool]:
    """Own a slice of a folder for the duration of the block.

    Args:
        target: the folder.
        slice_name: name of the slice.

    Yields:
        True if all other owners of it are surely dead.

    Raises:
        OutputError: another process owns it, or the folder cannot be written.
    """
    with ExitStack() as stack:
        exclusive = False
        if isinstance(target, LocalTarget):
            folder = Path(target.path) / OWN / "owners" / slice_name
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error
            exclusive = stack.enter_context(owning(folder, _Refusal(target.path, slice_name))).exclusive
        if not exclusive:
            stack.enter_context(_beating(target, slice_name))
        yield exclusive


class _Refusal:
    """Callback of `owning`: an owner that is alive is an error."""

    def __init__(self, path: str, slice_name: str) -> None:
        self._path, self._slice, self._seen = path, slice_name, 0

    def __call__(self, status: Status | None, lock: Path, seconds: float) -> None:
        changed = self._seen
        with suppress(OSError):  # the lock may be gone by now
            changed = lock.stat().st_mtime_ns
        is_alive = self._seen not in (0, changed)
        self._seen = changed
        if status is not None and (status.is_of_this_host or is_alive):
            raise _owned(self._path, self._slice, status.owner)
        if status is None and seconds > _UNKNOWN_SECONDS:
            raise _owned(self._path, self._slice, "another process, which cannot be named")


def _owned(path: str, slice_name: str, owner: str) -> OutputError:
    what = path if slice_name == "0-of-1" else f"the slice {slice_name.replace('-of-', '/')} of {path}"
    return OutputError(f"{what} is being written by {owner}: wait until it ends, stop it, or choose another folder")


@contextmanager
def _beating(target: LocalTarget | RemoteTarget, slice_name: str) -> Iterator[None]:
    name, seconds = f"{OWN}/owners/{slice_name}.json", _BEAT_SECONDS[type(target)]
    token = os.urandom(8).hex()
    own = {"pid": os.getpid(), "host": socket.gethostname(), "token": token}
    before = target.read(name)
    if before is not None:
        deadline = time.monotonic() + seconds * _BEATS_WITHOUT_CHANGE
        while time.monotonic() < deadline:
            if (now := target.read(name)) not in (before, None):
                raise _owned(target.path, slice_name, _owner(now))
            time.sleep(seconds / 10)
    beat = 0

    def write() -> None:
        content = json.dumps(own | {"beat": beat}).encode()
        target.put(name, lambda out: out.write(content))

    write()
    time.sleep(seconds / 4)
    if (now := target.read(name)) is not None and token not in now.decode("utf-8", "replace"):
        raise _owned(target.path, slice_name, _owner(now))
    stopped = threading.Event()

    def run() -> None:
        nonlocal beat
        while not stopped.wait(seconds):
            beat += 1
            with suppress(OutputError):
                write()

    thread = threading.Thread(target=run, name="moembed-claim", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        with suppress(OutputError):
            target.remove(name)


def _owner(content: bytes | None) -> str:
    try:
        raw = json.loads(content or b"")
        return f"process {int(raw['pid'])} on {raw['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
