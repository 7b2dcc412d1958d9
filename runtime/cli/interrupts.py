"""Ctrl-C, SIGTERM and others while work runs that can go on later: the process ends soon, whatever it computes."""

import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from moembed.cli.streams import write_message

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A closed terminal, and what job schedulers send before they end a job. Windows has neither.
_RUN_SIGNALS = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGUSR1") if hasattr(signal, name))
_GRACE_SECONDS = 0.7  # for the removal of temporary files; what is left is removed by the next command
_RUN_GRACE_SECONDS = 3.0  # for a call of the model that runs, and the end of workers


class Interrupted(KeyboardInterrupt):
    """Interruption by a signal.

    Attributes:
        number: number of the signal.
    """

    def __init__(self, number: int, hint: str) -> None:
        super().__init__(hint)
        self.number = number

    @property
    def exit_code(self) -> int:
        """Exit code of the process, as of one that the signal ended."""
        return 128 + self.number


@contextmanager
def prompt_interrupts(name: str) -> Iterator[None]:
    """End the block with `Interrupted` at SIGINT or SIGTERM, unless they are ignored, and the process if that takes too long.

    Args:
        name: the model, for the hint.
    """
    hint = f"run the same command again to go on with {name}: finished parts of the download are kept"
    with _interrupts(hint, _SIGNALS, _GRACE_SECONDS):
        yield


@contextmanager
def run_interrupts(output: str) -> Iterator[None]:
    """End the block as `prompt_interrupts` does, also at SIGHUP and SIGUSR1, unless they are ignored.

    Args:
        output: folder of the run, for the hint.
    """
    hint = f"give the same command again to go on: finished shards in {output} are kept"
    with _interrupts(hint, (*_SIGNALS, *_RUN_SIGNALS), _RUN_GRACE_SECONDS):
        yield


@contextmanager
def _interrupts(hint: str, signals: Sequence[int], grace: float) -> Iterator[None]:
    """End the block with `Interrupted` at a signal, and the process after `grace` seconds.

    Signals that are ignored stay so: a shell without job control starts `command &` with SIGINT ignored, `nohup` ignores SIGHUP.

    A signal handler of Python waits for the call that runs, such as a product of large matrices. So a thread waits for the
    signal too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = [number for number in signals if signal.getsignal(number) != signal.SIG_IGN]
    received: list[int] = []
    finished = threading.Event()

    def interrupt(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        raise Interrupted(number, hint)

    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = {number: signal.signal(number, interrupt) for number in signals}
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(
        target=_watch, args=(reader, finished, hint, signals, grace), name="moembed-signals", daemon=True
    )
    watcher.start()
    try:
        yield
    except KeyboardInterrupt as error:
        number = received[0] if received else signal.SIGINT
        raise Interrupted(number, hint) from error
    finally:
        finished.set()
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not set by Python
        writer.close()
        watcher.join()
        reader.close()


def _watch(reader: socket.socket, finished: threading.Event, hint: str, signals: Sequence[int], grace: float) -> None:
    """Wait for a signal, and end the process if the main thread does not."""
    with suppress(OSError):
        while number := reader.recv(1):
            if number[0] in signals and not finished.wait(grace):
                write_message(f"moembed: interrupted; {hint}")
                os._exit(128 + number[0])
