"""Check of a bundle's ONNX file against its manifest, before ONNX Runtime loads it.

ONNX Runtime finds most of these faults only while it runs: a token beyond the embedding table, a position beyond the rotary
tables, or external data that blocks forever because it is a FIFO.
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
# Field numbers of ONNX's messages (onnx.proto).
_MODEL_GRAPH, _GRAPH_NODE, _GRAPH_TENSOR = 7, 1, 5
_NODE_INPUT, _NODE_TYPE, _DIMS, _TENSOR_NAME, _EXTERNAL = 1, 4, 1, 8, 13
_KEY, _VALUE = 1, 2
# By kind of message: field number -> kind of the messages in that field, on the paths to all tensors of a model.
_WITHIN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_VOCABULARY = struct.Struct("<8sII")  # start of vocabulary.bin; see moembed.export.vocabulary


def check_graph(folder: Path, manifest: Manifest) -> None:
    """Compare a bundle's graph with its manifest and its tokenizer.

    Args:
        folder: the bundle; its listed files must be regular files.
        manifest: its manifest.

    Raises:
        BundleError: the graph is not an ONNX model, reads a file that the manifest does not list, or its tables are too small for
            the tokenizer's vocabulary or for `max_tokens`.
    """
    path = folder / manifest.graph
    try:
        with open_regular(path) as file:
            # Closed with its last view, which the traceback of an error may keep alive.
            model = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        if len(model) > _MOST_BYTES:
            raise BundleError(f"it has {len(model):,} bytes; the limit of ONNX is {_MOST_BYTES:,}")
        files = set(locations(model))
        sizes, rotary = _sizes(model)
    except (OSError, ValueError, OverflowError) as error:  # of mmap, for an empty file; BundleError is a ValueError
        raise BundleError(f"{path}: {error}: it is not a usable graph; copy or export the bundle again") from None
    _check_files(path, manifest, files)
    positions = min((sizes[name] for name in rotary if name in sizes), default=manifest.max_tokens)
    if positions < manifest.max_tokens:
        raise BundleError(
            f"{MANIFEST_FILE}: max_tokens = {manifest.max_tokens}, but {path} has {positions} positions: "
            "the bundle is damaged; copy or export it again"
        )
    rows = min((sizes[name] for name in _TABLES if name in sizes), default=None)
    if rows is not None and (pieces := _pieces(folder, manifest)) > rows:
        raise BundleError(
            f"{path} has an embedding table ({WORD_EMBEDDINGS}) of {rows} rows, the tokenizer {pieces} pieces: "
            "the bundle is damaged; copy or export it again"
        )


def _check_files(path: Path, manifest: Manifest, files: set[str]) -> None:
    folder = PurePosixPath(manifest.graph).parent
    for location in sorted(files):
        if (folder / location).as_posix() not in manifest.files:
            raise BundleError(
                f"{path} cannot be loaded: it reads the external data {shown(location)}, which {MANIFEST_FILE} does not "
                "list: do not use this bundle"
            )


def locations(model: memoryview) -> Iterator[str]:
    """Yield the external data locations of all tensors of a model."""
    # A stack, since messages can nest deeper than Python can recurse.
    stack: list[tuple[str, memoryview]] = [("model", model)]
    while stack:
        kind, message = stack.pop()
        if kind == "tensor":
            for entry in submessages(message, _EXTERNAL):
                if strings(entry, _KEY) == ["location"]:
                    yield from strings(entry, _VALUE)
            continue
        within = _WITHIN[kind]
        for number, value in fields(message):
            if number in within and not isinstance(value, int):
                stack.append((within[number], value))


def _sizes(model: memoryview) -> tuple[dict[str, int], set[str]]:
    """Return the first dimension of each initializer by name, and the names of the rotary tables."""
    sizes: dict[str, int] = {}
    rotary: set[str] = set()
    for graph in submessages(model, _MODEL_GRAPH):
        for tensor in submessages(graph, _GRAPH_TENSOR):
            for name in strings(tensor, _TENSOR_NAME):
                sizes[name] = next(numbers(tensor, _DIMS), 0)
        for node in submessages(graph, _GRAPH_NODE):
            if strings(node, _NODE_TYPE) in (["Attention"], ["Int8Attention"]):
                rotary.update(strings(node, _NODE_INPUT)[-2:])
    return sizes, rotary


def _pieces(folder: Path, manifest: Manifest) -> int:
    """Return the vocabulary size of the bundle's tokenizer; 0 for an invalid file, which opening the tokenizer reports."""
    from moembed.tokenizer.native import VOCABULARY_FILE
    from moembed.tokenizer.reference import ReferenceTokenizer

    if VOCABULARY_FILE in manifest.files:
        with open_regular(folder / VOCABULARY_FILE) as file:
            header = file.read(_VOCABULARY.size)
        return int(_VOCABULARY.unpack(header)[2]) if len(header) == _VOCABULARY.size else 0
    return ReferenceTokenizer(folder / "tokenizer.json").size
