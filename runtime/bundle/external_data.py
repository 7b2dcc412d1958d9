"""External data behind symbolic links, as in the hub's cache: ONNX Runtime refuses links that leave the graph's folder."""

import os
from pathlib import Path

from moembed.bundle.graph_check import locations
from moembed.bundle.manifest import safe_path
from moembed.bundle.protobuf import encoded, rewritten, strings
from moembed.errors import BundleError

_GRAPH, _INITIALIZER, _EXTERNAL_DATA = 7, 5, 13  # fields of ONNX's ModelProto, GraphProto and TensorProto
_KEY, _VALUE = 1, 2  # StringStringEntryProto


def read_graph(path: Path) -> tuple[bytes, Path]:
    """Read an ONNX file; return its bytes, and the real folder that its external data is relative to.

    Raises:
        BundleError: as `follow_links`.
    """
    graph, folder = path.read_bytes(), path.parent
    return follow_links(graph, folder) if has_links(folder) else (graph, folder)


def has_links(folder: Path) -> bool:
    """Check whether a folder has symbolic links, at any depth."""
    return any(path.is_symlink() for path in folder.rglob("*"))


def follow_links(graph: bytes, folder: Path) -> tuple[bytes, Path]:
    """Replace the locations of a graph's external data by the targets of the links there.

    Args:
        graph: bytes of an ONNX model.
        folder: folder that its locations are relative to.

    Returns:
        Bytes of the model with the new locations, and the folder that these are relative to.

    Raises:
        BundleError: the model is damaged, a location leaves the folder by its name, or the targets have no common folder.
    """
    files = {}
    for location in set(locations(memoryview(graph))):
        if not safe_path(location):
            raise BundleError(f"the graph in {folder} reads {location!r}, a path that leaves the bundle: do not use it")
        files[location] = os.path.realpath(folder / location)
    if not files:
        return graph, folder
    try:
        common = os.path.commonpath([os.path.dirname(file) for file in files.values()])  # noqa: PTH120
    except ValueError:
        raise BundleError(f"the links in {folder} lead to different drives: copy the files to one drive") from None
    targets = {location: Path(file).relative_to(common).as_posix() for location, file in files.items()}

    def change(entry: memoryview) -> bytes:
        if strings(entry, _KEY) != ["location"]:
            return bytes(entry)
        (location,) = strings(entry, _VALUE)
        return encoded(_KEY, b"location") + encoded(_VALUE, os.fsencode(targets[location]))

    return rewritten(memoryview(graph), (_GRAPH, _INITIALIZER, _EXTERNAL_DATA), change), Path(common)
