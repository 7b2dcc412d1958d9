"""Conversion of a model for a server: in a process of its own, so that the server answers and its memory stays small."""

import logging
import multiprocessing
import signal
from multiprocessing.connection import Connection
from pathlib import Path

from moembed.errors import MoembedError, SourceError
from moembed.pull.opening import open_bundle
from moembed.server.logs import LogReporter, configure, log
from moembed.server.parent import exit_with_parent
from moembed.server.settings import Settings
from moembed.store.ownership import Status, status_of

_POLL_SECONDS = 0.2
_LOG_SHARE = 0.1


class Conversion:
    """Conversion of one model.

    Args:
        source: name or checkpoint folder of the model.
        folder: folder of the model in the data folder.
        settings: settings of the server.
    """

    def __init__(self, source: str, folder: Path, settings: Settings) -> None:
        self._source, self._folder = source, folder
        self._ours, theirs = multiprocessing.Pipe(duplex=False)
        # Not a fork: the server has threads.
        self._process = multiprocessing.get_context("spawn").Process(
            target=_convert, args=(source, theirs, settings), name="moembed-convert", daemon=True
        )
        self._theirs, self._logged = theirs, ("", 0.0)

    def run(self) -> None:
        """Convert the model, or wait until another process has converted it; log the progress.

        Raises:
            MoembedError: the conversion failed, or was stopped.
        """
        self._process.start()
        self._theirs.close()
        while not self._ours.poll(_POLL_SECONDS):
            status = self.status
            if status is not None and status.pid == self._process.pid:
                self._log(status)
        try:
            failure: MoembedError | None = self._ours.recv()
        except EOFError:
            self._process.join()
            failure = SourceError(
                f"the process that converts {self._source} ended with exit code {self._process.exitcode}: if the kernel killed "
                "it (dmesg names it), it needs more memory"
            )
        self._process.join()
        if failure is not None:
            raise failure

    def stop(self) -> None:
        """End the conversion; what was downloaded stays for the next one."""
        if self._process.is_alive():
            self._process.terminate()

    @property
    def status(self) -> Status | None:
        """State of the conversion, in this process or another one; None if it has not begun."""
        return status_of(self._folder)

    def _log(self, status: Status) -> None:
        share = status.done / status.total if status.total else 0.0
        step, before = self._logged
        if status.step != step or share >= before + _LOG_SHARE:
            self._logged = status.step, share
            log(
                logging.INFO,
                event="converting",
                model=self._source,
                step=status.step,
                done=status.done,
                total=status.total,
            )


def _convert(source: str, result: Connection, settings: Settings) -> None:
    """Convert a model; the main function of the process."""
    exit_with_parent()
    configure(settings.log_level)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the server ends this one
    failure: MoembedError | None = None
    try:
        open_bundle(source, local_files_only=settings.offline, reporter=LogReporter())
    except MoembedError as error:
        failure = error
    except Exception as error:  # any failure: the server reports it
        failure = SourceError(f"{source} cannot be converted: {error!r}")
    result.send(failure)
