"""Reading ahead and writing behind, on threads of their own: the calling thread only computes."""

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")
_END = object()


class Ahead(Generic[_T]):
    """Iterator over items that a thread reads ahead. Use it as a context manager.

    The thread also closes the items, if they can be closed, and errors of the items are raised where they are taken.
    """

    def __init__(self, items: Iterable[_T], depth: int = 2) -> None:
        """Start the thread.

        Args:
            items: what to read.
            depth: maximum number of items that wait.
        """
        self._items = iter(items)
        self._waiting: queue.Queue[Any] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, name="moembed-read", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Ahead[_T]":
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopped.set()
        self._thread.join()

    def __iter__(self) -> Iterator[_T]:
        while True:
            item, error = self._waiting.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item

    def _read(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    break
            self._put(_END)
        except BaseException as error:  # raised in the other thread
            self._put(_END, error)
        finally:
            if isinstance(self._items, Generator):
                self._items.close()

    def _put(self, item: Any, error: BaseException | None = None) -> bool:
        while not self._stopped.is_set():
            try:
                self._waiting.put((item, error), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False


class Behind:
    """Calls that one thread makes in order, at most one of them waiting. Use it as a context manager."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "moembed-write")
        self._last: Future[Any] | None = None

    def __enter__(self) -> "Behind":
        return self

    def __exit__(self, *_error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Make a call after the earlier ones; raises what the previous one raised."""
        self.wait()
        self._last = self._pool.submit(function, *arguments)

    def wait(self) -> None:
        """Wait for the last call, and raise what it raised."""
        last, self._last = self._last, None
        if last is not None:
            last.result()
