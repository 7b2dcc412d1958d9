"""A progress bar on stderr for work that takes long, by tqdm (which comes with tokenizers)."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
        show: True, False, or None for: on a terminal, once the work has taken a second and a half.
    """
    if show is False or (show is None and not sys.stderr.isatty()):
        yield lambda _units: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit=unit, delay=0 if show else _QUIET_SECONDS, file=sys.stderr, leave=False) as bar:
        yield bar.update
