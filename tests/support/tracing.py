"""Traces of several networks in one process."""

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.kept import kept, libraries, sources


def kept_trace(trace: Callable[[Any], bytes], config: Any, path: Path) -> Path:
    """Trace a network, or read what an earlier run traced from equal sources with equal libraries."""

    def make() -> None:
        with _known_operators():
            path.write_bytes(trace(config))

    return kept(path.name, [config, libraries(), sources("export", "models")], make, path)


@contextlib.contextmanager
def _known_operators() -> Iterator[None]:
    """Let torch's exporter make its table of operators once for all traces: it takes a third of the trace of a small network."""
    with pytest.MonkeyPatch.context() as patch:
        # Not part of torch's interface: another version may make the table every time.
        with contextlib.suppress(ImportError, AttributeError):
            from torch.onnx._internal.exporter._registration import ONNXRegistry

            tables = _tables()

            def from_torchlib(_: Any, **options: Any) -> Any:
                table = copy.copy(tables(**options))
                # The exporter adds the operators of a network.
                table.functions = {name: list(found) for name, found in table.functions.items()}
                return table

            patch.setattr(ONNXRegistry, "from_torchlib", from_torchlib)
        yield


@functools.cache
def _tables() -> Callable[..., Any]:
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    return functools.cache(ONNXRegistry.from_torchlib)
