"""Checkpoint of a model: from this machine, or downloaded after its config and the room for it were checked."""

import secrets
import shutil
import threading
from dataclasses import replace
from pathlib import Path

from moembed.errors import SourceError
from moembed.hub.fetch import Reporter as HubReporter
from moembed.hub.fetch import fetch
from moembed.hub.unfinished import PART
from moembed.models.checkpoint import parameter_count
from moembed.models.families import read_config
from moembed.models.locate import Checkpoint, locate
from moembed.pull.model import DEFAULT_RECIPE, Model
from moembed.pull.need import bundle_bytes, check_graph, check_need
from moembed.pull.report import Reporter
from moembed.pull.request import Request
from moembed.store.kept import download_name
from moembed.store.ownership import Owner

_CONFIG = "config.json"
_BYTES_PER_PARAMETER = 2  # at least, where the config is not known
_SMALL = 1 << 25  # bytes; such files get no step of their own


class StoppedError(KeyboardInterrupt):
    """The program ends while a thread of it converts a model."""


class Progress(Reporter):
    """Reporter that also tells waiting processes, and ends the work when the program ends.

    Args:
        reporter: receives everything.
        owner: the ownership, which others see.
    """

    def __init__(self, reporter: Reporter, owner: Owner) -> None:
        self._reporter, self._owner, self._step = reporter, owner, ""

    def note(self, text: str) -> None:
        """Pass a sentence on."""
        stop_with_program()
        self._reporter.note(text)

    def step(self, name: str) -> None:
        """Begin a step."""
        stop_with_program()
        self._step = name
        self._owner.report(name)
        self._reporter.step(name)

    def progress(self, done: int, total: int) -> None:
        """Pass the progress of the step on."""
        stop_with_program()
        self._owner.report(self._step, done, total)
        self._reporter.progress(done, total)


def stop_with_program() -> None:
    """Stop in a thread if the main thread has ended: the interpreter would wait for the thread until the work is done.

    Raises:
        StoppedError: it has ended.
    """
    if not threading.main_thread().is_alive():
        raise StoppedError


def resolved(model: Model, request: Request, work: Path, progress: Progress) -> Model:
    """Ask the hub which commit a branch or tag leads to.

    Raises:
        SourceError: the hub does not answer, or does not have it.
    """
    # A folder of its own: without locks, another process may do the same.
    folder = work / f"{download_name(model.requested)}-{secrets.token_hex(4)}"
    try:
        found = fetch(
            model.name,
            [_CONFIG],
            revision=model.requested or None,
            cache_dir=request.cache_dir,
            into=folder,
            reporter=HubReporter(log=progress.note),
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return replace(model, revision=found.commit)


def find_checkpoint(
    model: Model, request: Request, download: Path, progress: Progress | None, problem: str = ""
) -> Checkpoint:
    """Return the checkpoint of a model; download what is not on this machine.

    Args:
        model: the model.
        request: options.
        download: folder for the files.
        progress: receives the progress; may be None without the network.
        problem: why a kept bundle cannot be opened, for the error; may be empty.

    Raises:
        SourceError: it cannot be found, or must not be downloaded.
        CheckpointError: it is not a model of the implemented family, or not the pinned one.
        OutputError: there is too little room.
    """
    if model.checkpoint is not None:
        return locate(model.checkpoint)
    into = None if request.keep and not request.offline else download
    files = _Files(model, into, request, progress)
    reporter = HubReporter(files.progress, files.note, files.before)
    revision = model.revision or model.requested or None
    try:
        return locate(
            model.name,
            revision=revision,
            cache_dir=request.cache_dir,
            local_files_only=request.offline,
            into=into,
            reporter=reporter,
        )
    except SourceError as error:
        if not request.offline:
            raise
        shutil.rmtree(download, ignore_errors=True)
        raise SourceError(
            f"{f'{problem}; ' if problem else ''}{model.title} is not converted yet, its checkpoint is not on this machine, and "
            f"the network is not allowed: run moembed pull {model.name} while online, or pass a local folder (there is no folder "
            f"{model.name} here)"
        ) from error


class _Files:
    """Files of a checkpoint while they are downloaded.

    Args:
        model: the model.
        folder: folder of the files; None for the hub's cache.
        request: options.
        progress: receives the progress; may be None without the network.
    """

    def __init__(self, model: Model, folder: Path | None, request: Request, progress: Progress | None) -> None:
        self._model, self._folder, self._request, self._progress = model, folder, request, progress

    def note(self, text: str) -> None:
        """Pass a line of the hub on."""
        if self._progress is not None:
            self._progress.note(text)

    def before(self, name: str, size: int | None) -> None:
        """Check the network's config and the room for the download and the bundle before a large file is sent."""
        if self._progress is None or not name.endswith(".safetensors") or size is None:
            return
        self._progress.step(f"downloading {name} of {self._model.title}")
        parameters, disk = size // _BYTES_PER_PARAMETER, {}
        if self._folder is not None:
            if (self._folder / _CONFIG).is_file():
                network = read_config(self._folder)
                check_graph(network)
                parameters = parameter_count(network)
            disk[self._folder] = max(0, size - _size(self._folder / (name + PART)))
        place = self._request.place or self._model.folder or Path.cwd()
        disk[place] = disk.get(place, 0) + bundle_bytes(parameters, self._request.recipe or DEFAULT_RECIPE)
        check_need(self._model.name, parameters, disk)

    def progress(self, name: str, done: int, total: int | None) -> None:
        """Pass the progress of a large file on."""
        if self._progress is None:
            return
        if total is not None and (total > _SMALL or name.endswith(".safetensors")):
            self._progress.progress(done, total)
        else:
            stop_with_program()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
