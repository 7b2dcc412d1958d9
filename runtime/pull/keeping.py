"""Conversion of a model that is not kept yet: once per data folder, however many processes ask for it."""

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from moembed.bundle.bundle import Bundle
from moembed.bundle.manifest import MANIFEST_FILE
from moembed.convert.conversion import convert
from moembed.errors import OutputError
from moembed.export.writer import check_replaceable
from moembed.files.paths import replacing_folder
from moembed.models.checkpoint import parameter_count
from moembed.models.locate import Checkpoint
from moembed.pull.download import Progress, find_checkpoint, resolved, stop_with_program
from moembed.pull.model import DEFAULT_RECIPE, Lookup, Model, look_up, version_of, with_indexed_revision
from moembed.pull.need import bundle_bytes, check_need
from moembed.pull.report import Reporter
from moembed.pull.request import Request
from moembed.quantize.pipeline import need_packages
from moembed.store.kept import discard, download_name, entry_name, index_revision, key_of, sweep_downloads
from moembed.store.ownership import Owner, Status, owning
from moembed.store.place import VARIABLE, writable_data_folder
from moembed.store.room import check_disk

_WAIT_NOTE_SECONDS = 0.5
_WAIT_LINE_SECONDS = 30.0


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
    if not request.offline:
        need_packages(f"Converting {model.name}")
    with _work_folder(model, request) as work, owning(work, _Waiting(model, reporter)) as owner:
        progress = Progress(reporter, owner)
        if model.revision is None and not request.refresh:
            model = with_indexed_revision(model)
        found = _current(model, request)
        if found.bundle is None and model.revision is None and model.checkpoint is None and not request.offline:
            model = resolved(model, request, work, progress)
            found = _current(model, request)
        if found.bundle is not None:
            return _kept(found.bundle, model, request, reporter)
        if owner.before is not None:
            reporter.note(
                f"the last conversion of {model.name} was killed (process {owner.before.pid}, while {owner.before.step}); if the "
                "kernel did it for lack of memory (dmesg names the process), it needs more"
            )
        anew = f"{problem}; making the bundle of {model.name} anew" if problem else ""
        if anew and not request.offline:
            reporter.note(anew)
        with _download_folder(model, work, owner) as download:
            checkpoint = find_checkpoint(model, request, download, progress, problem)
            need_packages(f"Converting {model.name}")  # offline it is imported only here: the usual end comes sooner
            if anew and request.offline:
                reporter.note(anew)
            return _converted(model, checkpoint, work, request, progress)


def check_convertible(model: Model, request: Request) -> None:
    """Make sure that a conversion can begin, without a request to anybody.

    Raises:
        MoembedError: as `convert_model`.
    """
    if request.offline and model.checkpoint is None:
        with _work_folder(model, request) as work:
            find_checkpoint(model, request, work / download_name(model.revision or model.requested), None)
    need_packages(f"Converting {model.name}")


def copy_bundle(bundle: Bundle, request: Request, reporter: Reporter) -> Bundle:
    """Copy a kept bundle to the folder that a request names.

    Raises:
        OutputError: the folder exists and may not be replaced, there is no room, or it cannot be written.
    """
    out = Path(request.out or bundle.folder).absolute()
    check_replaceable(out, force=request.force)
    check_disk({request.place or out.parent: bundle.size}, f"Copying {bundle.manifest.name}")
    reporter.step(f"copying {bundle.folder} to {out}")
    with replacing_folder(out) as folder:
        for name in (*bundle.manifest.files, MANIFEST_FILE):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.folder / name, folder / name)
    return Bundle.open(out)


@contextmanager
def _work_folder(model: Model, request: Request) -> Iterator[Path]:
    """Yield the folder of locks and downloads: that of the model in the data folder, or one beside the output."""
    if request.out is None or request.place is None:
        writable_data_folder()
        folder = model.folder
        if folder is None:
            raise OutputError(f"no folder to keep {model.name} in: set {VARIABLE} to a folder")
    else:
        check_replaceable(request.out, force=request.force)
        folder = request.place / f".moembed-{key_of(model.kept_as)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be created: {error.strerror}; choose a folder that is writable") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{folder} is not writable; set {VARIABLE} to another folder, or choose one with -o FOLDER")
    try:
        yield folder
    finally:
        with suppress(OSError):  # not empty: it has a download to go on with, or kept bundles
            folder.rmdir()


@contextmanager
def _download_folder(model: Model, work: Path, owner: Owner) -> Iterator[Path]:
    """Yield the folder of a download, and remove it when the bundle is made. An interrupted download goes on from it."""
    folder = work / download_name(model.revision or model.requested)
    if not owner.exclusive:  # another process may use that folder now
        folder = folder.with_name(f"{folder.name}-{os.getpid()}-{secrets.token_hex(2)}")
    yield folder
    if owner.exclusive:
        sweep_downloads(work)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _current(model: Model, request: Request) -> Lookup:
    """Look for a bundle that another process has made meanwhile."""
    return look_up(model, request.recipe or DEFAULT_RECIPE, Reporter(), current=True)


def _kept(bundle: Bundle, model: Model, request: Request, reporter: Reporter) -> Bundle:
    folder = model.folder
    if model.may_move and folder is not None and model.revision is not None:
        with suppress(OutputError):  # the bundle can be opened without it, by its commit
            index_revision(folder, model.name, model.requested, model.revision)
    return bundle if request.out is None else copy_bundle(bundle, request, reporter)


def _converted(model: Model, checkpoint: Checkpoint, work: Path, request: Request, progress: Progress) -> Bundle:
    revision = checkpoint.weights_sha256 if model.checkpoint else checkpoint.spec.revision or ""
    if model.spec is None:
        progress.note(
            f"{model.name} is not a model that moembed knows at this revision ({revision[:12]}): nobody has compared its files "
            "with a published digest"
        )
    recipe, parameters = request.recipe or DEFAULT_RECIPE, parameter_count(checkpoint.config)
    entry = work / entry_name(revision, recipe, version_of(recipe))
    out = entry if request.out is None else Path(request.out).absolute()
    check_need(model.name, parameters, {request.place or work: bundle_bytes(parameters, recipe)})
    if request.out is None:
        # Without locks, another process may have been faster.
        if (found := _current(replace(model, revision=revision), request).bundle) is not None:
            return _kept(found, replace(model, revision=revision), request, progress)
        discard(entry)  # a damaged one
    bundle = convert(checkpoint, out, recipe=recipe, force=request.force or request.out is None, log=progress.step)
    if request.out is None:
        index_revision(work, model.name, model.requested, revision)
    return bundle if model.checkpoint else replace(bundle, hub=(model.name, revision))


class _Waiting:
    """Notes of a process that waits for another one: whom for, and how far that is."""

    def __init__(self, model: Model, reporter: Reporter) -> None:
        self._model, self._reporter = model, reporter
        self._said: tuple[str, str] | None = None
        self._said_at = 0.0

    def __call__(self, status: Status | None, file: Path, seconds: float) -> None:
        stop_with_program()
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
