"""What an ONNX file says of itself, compared with the manifest of its bundle, before anything runs it.

ONNX Runtime finds most of these faults only when a text meets them: a token beyond the embedding table, a position beyond the
rotary tables, external data that waits for ever because it is a FIFO.
"""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from moembed.bundle.manifest import MANIFEST_FILE, Manifest
from moembed.bundle.protobuf import fields, numbers, strings, submessages
from moembed.errors import BundleError, shown
from moembed.files.untrusted import open_regular

WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"
_TABLES = (WORD_EMBEDDINGS, f"{WORD_EMBEDDINGS}.int8", f"{WORD_EMBEDDINGS}.int4")
_MOST_BYTES = (1 << 31) - 1  # of a protobuf message
# Numbers of the fields of ONNX's messages (onnx.proto).
_MODEL_GRAPH, _GRAPH_NODE, _GRAPH_TENSOR = 7, 1, 5
_NODE_INPUT, _NODE_TYPE, _DIMS, _TENSOR_NAME, _EXTERNAL = 1, 4, 1, 8, 13
_KEY, _VALUE = 1, 2
# By kind of message: field number -> kind of what it holds, on the way to every tensor of a model.
_WITHIN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_VOCABULARY = struct.Struct("<8sII")  # how vocabulary.bin begins; see moembed.export.vocabulary


def check_graph(folder: Path, manifest: Manifest) -> None:
    """Compare a bundle's graph with its manifest and its tokenizer.

    Args:
        folder: the bundle; its listed files are regular files.
        manifest: its manifest.

    Raises:
        BundleError: the graph is no ONNX model, reads a file that the manifest does not list, or has smaller tables than the
            tokenizer's vocabulary or `max_tokens` need.
    """
    path = folder / manifest.graph
    try:
        with open_regular(path) as file:
            # It closes itself with the last view of it, which an error's traceback may hold.
            model = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        if len(model) > _MOST_BYTES:
            raise BundleError(f"it has {len(model):,} bytes, an ONNX model has at most {_MOST_BYTES:,}")
        files = set(locations(model))
        sizes, rotary = _sizes(model)
    except (OSError, ValueError, OverflowError) as error:  # BundleError is a ValueError; an empty file's is one of mmap
        raise BundleError(f"{path}: {error}: it is no usable graph; copy or export the bundle again") from None
    _check_files(path, manifest, files)
    positions = min((sizes[name] for name in rotary if name in sizes), default=manifest.max_tokens)
    if positions < manifest.max_tokens:
        raise BundleError(
            f"{MANIFEST_FILE}: max_tokens = {manifest.max_tokens}, but {path} reads {positions} positions: "
            "the bundle is damaged; copy or export it again"
        )
    rows = min((sizes[name] for name in _TABLES if name in sizes), default=None)
    if rows is not None and (pieces := _pieces(folder, manifest)) > rows:
        raise BundleError(
            f"{path} has an embedding table ({WORD_EMBEDDINGS}) of {rows} rows, the tokenizer {pieces} pieces: "
            "the bundle is damaged; copy or export it again"
        )


def _check_files(path: Path, manifest: Manifest, files: set[str]) -> None:
    beside = PurePosixPath(manifest.graph).parent
    for location in sorted(files):
        if (beside / location).as_posix() not in manifest.files:
            raise BundleError(
                f"{path} cannot be loaded: it reads the external data {shown(location)}, which {MANIFEST_FILE} does not "
                "list: do not use this bundle"
            )


def locations(model: memoryview) -> Iterator[str]:
    """The files of external data that any tensor of a model names."""
    # A stack, since a message may nest deeper than Python calls.
    left: list[tuple[str, memoryview]] = [("model", model)]
    while left:
        kind, message = left.pop()
        if kind == "tensor":
            for entry in submessages(message, _EXTERNAL):
                if strings(entry, _KEY) == ["location"]:
                    yield from strings(entry, _VALUE)
            continue
        within = _WITHIN[kind]
        for number, value in fields(message):
            if number in within and not isinstance(value, int):
                left.append((within[number], value))


def _sizes(model: memoryview) -> tuple[dict[str, int], set[str]]:
    """The first dimension of every initializer by its name, and the names of the rotary tables."""
    sizes: dict[str, int] = {}
    rotary: set[str] = set()
    for graph in submessages(model, _MODEL_GRAPH):
        for tensor in submessages(graph, _GRAPH_TENSOR):
            for name in strings(tensor, _TENSOR_NAME):
                sizes[name] = next(numbers(tensor, _DIMS), 0)
        for node in submessages(graph, _GRAPH_NODE):
            if strings(node, _NODE_TYPE) == ["Attention"]:
                rotary.update(strings(node, _NODE_INPUT)[3:5])
    return sizes, rotary


def _pieces(folder: Path, manifest: Manifest) -> int:
    """The number of tokens that the bundle's tokenizer knows; 0 for a file that opening the tokenizer refuses."""
    from moembed.tokenizer.native import VOCABULARY_FILE
    from moembed.tokenizer.reference import ReferenceTokenizer

    if VOCABULARY_FILE in manifest.files:
        with open_regular(folder / VOCABULARY_FILE) as file:
            begin = file.read(_VOCABULARY.size)
        return int(_VOCABULARY.unpack(begin)[2]) if len(begin) == _VOCABULARY.size else 0
    return ReferenceTokenizer(folder / "tokenizer.json").size
