"""`pull`: make the bundle of a model that is not kept yet, once per data folder, however many processes ask for it."""

import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from moembed.bundle.bundle import Bundle
from moembed.bundle.hub import fetch
from moembed.bundle.manifest import MANIFEST_FILE
from moembed.errors import OutputError, SourceError
from moembed.export.writer import check_replaceable
from moembed.files.paths import replacing_folder
from moembed.models.checkpoint import expected_tensors
from moembed.models.locate import Checkpoint, locate
from moembed.pull.model import DEFAULT_RECIPE, Lookup, Model, look_up, version_of
from moembed.pull.report import Reporter
from moembed.pull.request import Request
from moembed.store.kept import download_name, entry_name, index_revision, key_of, sweep_downloads
from moembed.store.ownership import Owner, Status, owning
from moembed.store.place import VARIABLE, writable_data_folder
from moembed.store.room import check_disk, check_memory

_WAIT_NOTE_SECONDS = 0.5
_WAIT_LINE_SECONDS = 30.0


class StoppedError(KeyboardInterrupt):
    """The program ends while a thread of it converts a model."""


def convert_model(model: Model, request: Request, reporter: Reporter, problem: str = "") -> Bundle:
    """Download and convert a model, keep the bundle and open it.

    Args:
        model: the model.
        request: what the caller wants.
        reporter: receives notes and progress.
        problem: why a kept bundle cannot be opened; empty if there was none.

    Raises:
        SourceError: the model cannot be found, or must not be downloaded.
        CheckpointError: it is not a model of the implemented family, or not the pinned one.
        OutputError: the bundle cannot be kept, or there is too little room.
        VerificationError: the bundle does not compute what the checkpoint does.
        MissingExtraError: the extra `convert` is not installed.
    """
    need_extras()
    with _work_folder(model, request) as work, owning(work, _Waiting(model, reporter)) as owner:
        progress = _Progress(reporter, owner)
        if request.out is None and (found := _made_meanwhile(model, request, reporter)).bundle is not None:
            return found.bundle
        if owner.before is not None:
            reporter.note(
                f"the last conversion of {model.name} was killed while {owner.before.step} (process {owner.before.pid}); if the "
                "kernel did it (dmesg names the process), it needs more memory"
            )
        if problem:
            reporter.note(f"{problem}; making the bundle of {model.name} anew")
        download = work / download_name(model.revision or model.requested or "main")
        if not owner.exclusive:  # another process may use that folder now
            download = download.with_name(f"{download.name}-{os.getpid()}-{secrets.token_hex(2)}")
        checkpoint = _checkpoint(model, request, download, progress)
        revision = checkpoint.spec.revision if model.checkpoint is None else checkpoint.weights_sha256
        if revision is None:
            raise SourceError(f"{model.name} has no revision: the hub did not name a commit")
        if model.spec is None:
            reporter.note(
                f"{model.name} is not a model that moembed knows at this revision ({revision[:12]}): nobody has compared its "
                "files with a published digest"
            )
        bundle = _converted(replace(model, revision=revision), checkpoint, work, request, progress)
        if owner.exclusive:
            sweep_downloads(work)
        else:
            shutil.rmtree(download, ignore_errors=True)
        return bundle


def with_current_revision(model: Model, request: Request) -> Model:
    """Ask the hub for the commit of a requested branch or tag.

    Raises:
        SourceError: the hub does not answer, or does not have it.
    """
    first = fetch(
        model.name,
        ["config.json"],
        revision=model.requested or None,
        cache_dir=request.cache_dir,
        local_files_only=False,
    )
    return replace(model, revision=first.name)


def copy_bundle(bundle: Bundle, request: Request, reporter: Reporter) -> Bundle:
    """Copy a kept bundle to the folder that a request names.

    Raises:
        OutputError: the folder exists and may not be replaced, there is no room, or it cannot be written.
    """
    out = Path(request.out or bundle.folder).absolute()
    check_replaceable(out, force=request.force)
    check_disk({out.parent: bundle.size}, f"Copying {bundle.manifest.name}")
    reporter.step(f"copying {bundle.folder} to {out}")
    with replacing_folder(out) as folder:
        for name in (*bundle.manifest.files, MANIFEST_FILE):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.folder / name, folder / name)
    return Bundle.open(out)


def check_convertible(model: Model, request: Request) -> None:
    """Make sure that a conversion can begin, without a request to anybody.

    Raises:
        MoembedError: as `convert_model`.
    """
    need_extras()
    if request.out is None:
        writable_data_folder()
    if request.offline and model.checkpoint is None:
        _cached_checkpoint(model, request)


def need_extras() -> None:
    """Make sure that checkpoints can be converted, before anything is downloaded.

    Raises:
        MissingExtraError: a package of the extra is not installed.
    """
    from moembed.export.pipeline import need_extras as need

    need("Converting a checkpoint")


@contextmanager
def _work_folder(model: Model, request: Request) -> Iterator[Path]:
    """Yield the folder of locks and downloads: that of the model in the data folder, or one beside the output."""
    if request.out is None:
        writable_data_folder()
        folder = model.folder
        if folder is None:
            raise OutputError(f"no folder to keep {model.name} in: set {VARIABLE} to a folder")
    else:
        check_replaceable(request.out, force=request.force)
        folder = Path(request.out).absolute().parent / f".moembed-{key_of(model.kept_as)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be created: {error.strerror}; choose a folder that is writable") from error
    try:
        yield folder
    finally:
        with suppress(OSError):  # not empty: it has a download to go on with, or kept bundles
            folder.rmdir()


def _made_meanwhile(model: Model, request: Request, reporter: Reporter) -> Lookup:
    """Look again: another process may have converted the model while this one waited."""
    return look_up(model, request.recipe or DEFAULT_RECIPE, reporter)


def _checkpoint(model: Model, request: Request, download: Path, progress: "_Progress") -> Checkpoint:
    if model.checkpoint is not None:
        progress.step(f"reading {model.checkpoint}")
        return locate(model.checkpoint)
    if (found := _cached_checkpoint(model, request)) is not None:
        return found
    revision = model.revision or model.requested or None
    progress.step(f"downloading {model.title}")
    return locate(model.name, revision=revision, cache_dir=request.cache_dir if request.keep else download)


def _cached_checkpoint(model: Model, request: Request) -> Checkpoint | None:
    """Return the checkpoint from the hub's cache; None if it is not there.

    Raises:
        SourceError: it is not there, and the request forbids the network.
    """
    revision = model.revision or model.requested or None
    try:
        return locate(model.name, revision=revision, cache_dir=request.cache_dir, local_files_only=True)
    except SourceError:
        if request.offline:
            raise SourceError(
                f"{model.title} is not converted yet, its checkpoint is not on this machine, and the network is not allowed: "
                f"run moembed pull {model.name} while online"
            ) from None
        return None


def _converted(model: Model, checkpoint: Checkpoint, work: Path, request: Request, progress: "_Progress") -> Bundle:
    recipe, parameters = request.recipe or DEFAULT_RECIPE, _parameters(checkpoint)
    entry = work / entry_name(model.revision or "", recipe, version_of(recipe))
    out = entry if request.out is None else Path(request.out).absolute()
    purpose = f"Converting {model.name}"
    check_disk({out.parent: bundle_bytes(parameters)}, purpose)
    check_memory(memory_bytes(parameters), purpose)
    bundle = _convert(checkpoint, out, recipe, request.force or request.out is None, progress)
    if request.out is None:
        index_revision(work, model.name, model.requested, model.revision or "")
    return bundle if model.checkpoint else replace(bundle, hub=(model.name, model.revision or ""))


def _convert(checkpoint: Checkpoint, out: Path, recipe: str, force: bool, progress: "_Progress") -> Bundle:
    from moembed.export.pipeline import export
    from moembed.quantize.pipeline import quantize

    fp32 = out.with_name(f"{out.name}-fp32")
    try:
        return quantize(
            export(checkpoint, fp32, log=progress.step, force=True), out, recipe=recipe, force=force, log=progress.step
        )
    finally:
        shutil.rmtree(fp32, ignore_errors=True)


def bundle_bytes(parameters: int) -> int:
    """Return an upper bound of the bytes of a bundle while it is written."""
    return int(1.3 * parameters) + (64 << 20)


def memory_bytes(parameters: int) -> int:
    """Return an upper bound of the bytes of memory that a conversion takes, without the page cache."""
    return 2 * parameters + (512 << 20)


def _parameters(checkpoint: Checkpoint) -> int:
    total = 0
    for shape in expected_tensors(checkpoint.config).values():
        size = 1
        for length in shape:
            size *= length
        total += size
    return total


class _Progress(Reporter):
    """Reporter that also tells waiting processes, and ends the work when the program ends."""

    def __init__(self, reporter: Reporter, owner: Owner) -> None:
        self._reporter, self._owner, self._step = reporter, owner, ""

    def note(self, text: str) -> None:
        self._reporter.note(text)

    def step(self, name: str) -> None:
        _stop_with_program()
        self._step = name
        self._owner.report(name)
        self._reporter.step(name)

    def progress(self, done: int, total: int) -> None:
        _stop_with_program()
        self._owner.report(self._step, done, total)
        self._reporter.progress(done, total)


class _Waiting:
    """Notes of a process that waits for another one: whom for, and how far that is."""

    def __init__(self, model: Model, reporter: Reporter) -> None:
        self._model, self._reporter = model, reporter
        self._said: tuple[str, str] | None = None
        self._said_at = 0.0

    def __call__(self, status: Status | None, file: Path, seconds: float) -> None:
        _stop_with_program()
        if seconds < _WAIT_NOTE_SECONDS:
            return
        now = time.monotonic()
        state = (status.owner, status.step) if status else ("another process", "")
        if state != self._said or now - self._said_at > _WAIT_LINE_SECONDS:
            self._said, self._said_at = state, now
            owner, step = state
            self._reporter.note(f"waiting for {owner}, which converts {self._model.name} ({step or 'working'}; {file})")
        if status and status.total:
            self._reporter.progress(status.done, status.total)


def _stop_with_program() -> None:
    """Stop in a thread if the main thread has ended: the interpreter would wait for the thread until the work is done."""
    if not threading.main_thread().is_alive():
        raise StoppedError
