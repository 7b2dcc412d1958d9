"""Ctrl-C and SIGTERM while a model is downloaded or converted: the process ends within a second, whatever it computes."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from moembed.cli.streams import write_message

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE_SECONDS = 0.7  # for the removal of temporary files; what is left is removed by the next command


class InterruptedPull(KeyboardInterrupt):
    """Interruption by a signal while a model is made.

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
    """End the block with `InterruptedPull` at SIGINT or SIGTERM, and the process if that takes too long.

    A signal handler of Python waits for the call that runs, such as a product of large matrices. So a thread waits for the
    signal too.

    Args:
        name: the model, for the hint.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hint = f"run the same command again to go on with {name}: finished parts of the download are kept"
    received: list[int] = []
    finished = threading.Event()

    def interrupt(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        raise InterruptedPull(number, hint)

    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(reader, finished, hint), name="moembed-signals", daemon=True)
    watcher.start()
    try:
        yield
    except KeyboardInterrupt as error:
        number = received[0] if received else signal.SIGINT
        raise InterruptedPull(number, hint) from error
    finally:
        finished.set()
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not set by Python
        writer.close()
        watcher.join()
        reader.close()


def _watch(reader: socket.socket, finished: threading.Event, hint: str) -> None:
    """Wait for a signal, and end the process if the main thread does not."""
    with suppress(OSError):
        while number := reader.recv(1):
            if number[0] in _SIGNALS and not finished.wait(_GRACE_SECONDS):
                write_message(f"moembed: interrupted; {hint}")
                os._exit(128 + number[0])
