"""A progress bar on stderr for work that takes long, by tqdm (which comes with tokenizers)."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

_QUIET_SECONDS = 1.5


class Advance(Protocol):
    """Called with the number of units done since the last call."""

    def __call__(self, units: int, /) -> object: ...  # noqa: D102


@contextmanager
def progress(total: int | None, unit: str, *, show: bool | None) -> Iterator[Advance]:
    """Yield a function that advances the bar.

    Args:
        total: units in all, or None when unknown.
        unit: what is counted.
        show: True, False, or None for: on a terminal, once the work has taken a second and a half. A stderr that is missing,
            as in a windowed program, closed or full only loses the bar.
    """
    if show is False or (show is None and not is_terminal(sys.stderr)):
        yield lambda _units: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit=unit, delay=0 if show else _QUIET_SECONDS, file=_Words(), leave=False) as bar:
        yield bar.update


def is_terminal(stream: object) -> bool:
    """Check for a terminal; None, a closed stream and an object without `isatty` are none."""
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):
        return False


class _Words:
    """stderr as it is when written to; a bar that cannot be shown must not end the work."""

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()
