"""Weight files of a checkpoint: one safetensors file, or several shards with an index, as transformers saves them.

Where they are missing, the error names the file of another format that is there, and the remedy.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path
from typing import Any

from moembed.bundle.bundle import sha256_of
from moembed.bundle.manifest import MANIFEST_FILE
from moembed.errors import CheckpointError, extra, shown
from moembed.files.untrusted import lfs_advice

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
ADAPTER_FILE = "adapter_config.json"
_SHARD = re.compile(r"\w[\w.-]*\.safetensors")
_HEAD = "classifier."
_PICKLE = (
    "a pickle, which is never loaded because loading one runs code: load it where you trust it and save it with "
    "save_pretrained(FOLDER, safe_serialization=True)"
)
# Pattern of a path, description and remedy; the first pattern that matches is used.
_OTHER = (
    (MANIFEST_FILE, "the manifest of a bundle: it is already exported, open it with Embedder.from_pretrained or -m"),
    (ADAPTER_FILE, "an adapter (PEFT), which holds changes to a base model only: merge it with merge_and_unload(), save the "
     "result with save_pretrained(FOLDER), and export that folder"),
    ("model-*-of-*.safetensors", f"a shard without its {INDEX_FILE}: copy that file too"),
    ("*.gguf", "a GGUF, which cannot be exported because it lacks the expert bias: export the checkpoint that it was made from"),
    ("*pytorch_model*.bin*", _PICKLE),
    ("tf_model*.h5", "weights of TensorFlow: load them with transformers 4 (from_tf=True) and save_pretrained"),
    ("flax_model*.msgpack", "weights of Flax: load them with transformers 4 (from_flax=True) and save_pretrained"),
    (f"*/{WEIGHTS_FILE}", "a checkpoint in a subfolder: export that folder"),
    (f"*/{INDEX_FILE}", "a checkpoint in a subfolder: export that folder"),
    ("*.safetensors", f"a safetensors file of another name: if it holds the model, rename it to {WEIGHTS_FILE}"),
    ("*.onnx", "an ONNX graph, which cannot be made a bundle: export the checkpoint that it was made from"),
    ("*.pt", _PICKLE),
    ("*.pth", _PICKLE),
    ("*.ckpt", _PICKLE),
)  # fmt: skip


@dataclass(frozen=True)
class WeightFiles:
    """Weight files of one checkpoint.

    Attributes:
        paths: the safetensors files, sorted by name.
        index: tensor name -> name of its file, or None without an index.
    """

    paths: tuple[Path, ...]
    index: dict[str, str] | None = None

    @property
    def size(self) -> int:
        """Bytes of all files together, without the index."""
        return sum(path.stat().st_size for path in self.paths)

    def sha256(self) -> str:
        """Return the digest that identifies the weights.

        It is the sha256 of a single file. Of shards, it is the sha256 of the output of `sha256sum` for them in the order of their
        names, a line `DIGEST  NAME` for each.
        """
        digests = [(sha256_of(path), path.name) for path in self.paths]
        if self.index is None:
            return digests[0][0]
        return hashlib.sha256("".join(f"{digest}  {name}\n" for digest, name in digests).encode()).hexdigest()


@dataclass(frozen=True)
class StoredTensor:
    """Place of a tensor in a file.

    Attributes:
        path: the file.
        offset: byte at which it starts.
        size: bytes.
        dtype: by safetensors' name.
        shape: its shape.
    """

    path: Path
    offset: int
    size: int
    dtype: str
    shape: tuple[int, ...]


class Weights:
    """Tensors of open safetensors files by name, memory-mapped.

    Args:
        handles: tensor name in the file -> path of the file that holds it, and the open file.

    Attributes:
        prefix: words that all names in the files begin with, and the names here do not: `module.` and others that wrappers of a
            network leave; often empty.
    """

    def __init__(self, handles: dict[str, tuple[Path, Any]]) -> None:
        self.prefix = _common_prefix(handles)
        # Our name -> the name in the file; a name without the prefix stays as it is.
        self._stored = {name.removeprefix(self.prefix): name for name in handles}
        self._files = {name: handles[stored] for name, stored in self._stored.items()}
        self._headers: dict[Path, tuple[int, dict[str, Any]]] = {}

    @property
    def names(self) -> list[str]:
        """Names of all tensors."""
        return list(self._files)

    def shapes(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return the shape of every tensor, and its dtype by safetensors' name."""
        found = {}
        for name in self._files:
            view = self.get_slice(name)
            found[name] = (tuple(view.get_shape()), str(view.get_dtype()))
        return found

    def get_tensor(self, name: str) -> Any:
        """Read a whole tensor, in its stored dtype."""
        return self._files[name][1].get_tensor(self._stored[name])

    def stored(self, name: str) -> StoredTensor:
        """Return the place of a tensor, for a reader that maps the file itself."""
        path = self._files[name][0]
        if path not in self._headers:
            self._headers[path] = _read_header(path)
        start, header = self._headers[path]
        entry = header[self._stored[name]]
        first, last = entry["data_offsets"]
        return StoredTensor(path, start + first, last - first, entry["dtype"], tuple(entry["shape"]))

    def get_slice(self, name: str) -> Any:
        """Return a tensor whose parts are read by indexing."""
        return self._files[name][1].get_slice(self._stored[name])


def _common_prefix(names: Iterable[str]) -> str:
    """Return the words in front of all names, which wrappers put there: `torch.compile`, data parallelism, a task's model.

    A head of another task stands beside the model. Tensors of no network have all of their names in one module.
    """
    words = zip(*(name.split(".")[:-1] for name in names if not name.startswith(_HEAD)), strict=False)
    return "".join(f"{same[0]}." for same in takewhile(lambda column: len(set(column)) == 1, words))


def _read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Return the byte at which the tensors of a safetensors file start, and its header; safetensors has checked the file."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return 8 + size, json.loads(file.read(size))


def find_weights(folder: Path) -> WeightFiles | None:
    """Find the weight files of a folder; None if there are none. A single file is preferred to shards, as transformers does.

    Raises:
        CheckpointError: the index cannot be read or names missing files, or an adapter would change the weights.
    """
    whole, index = folder / WEIGHTS_FILE, folder / INDEX_FILE
    if not whole.is_file() and not index.is_file():
        return None
    if (folder / ADAPTER_FILE).is_file():
        raise CheckpointError(
            f"{folder} holds both {ADAPTER_FILE} and weights, and transformers would apply the adapter to them: merge it, or "
            "move it away if it is already merged"
        )
    if whole.is_file():
        return WeightFiles((whole,))
    files = read_index(index)
    names = sorted(set(files.values()))
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise CheckpointError(f"{folder} lacks {', '.join(missing)}, which {INDEX_FILE} names: copy the shards too")
    return WeightFiles(tuple(folder / name for name in names), files)


def read_index(path: Path) -> dict[str, str]:
    """Read the index of shards: the name of the file of every tensor.

    Raises:
        CheckpointError: the file is not an index, or names a file outside its folder.
    """
    try:
        read = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a readable index of shards ({error}): copy or save it again") from error
    files = read.get("weight_map") if isinstance(read, dict) else None
    if not isinstance(files, dict) or not files:
        raise CheckpointError(f"{path}: weight_map is not an object of tensor names: copy or save it again")
    for tensor, name in files.items():
        if not isinstance(name, str) or not _SHARD.fullmatch(name) or name == WEIGHTS_FILE:
            raise CheckpointError(
                f"{path}: the file of {shown(tensor)} is {shown(name)}; expected the name of a .safetensors file beside the index"
            )
    return files


@contextmanager
def open_weights(files: WeightFiles, framework: str) -> Iterator[Weights]:
    """Open weight files and check that every tensor is in the file that the index names, and in no other.

    Args:
        files: from `find_weights`.
        framework: `"pt"` or `"np"`, the kind of tensors.

    Raises:
        CheckpointError: a file is damaged, or index and files contradict each other.
        MissingExtraError: safetensors is not installed, or ml_dtypes, which adds bfloat16 to NumPy.
    """
    with extra("export", "Reading a checkpoint"):
        import ml_dtypes  # noqa: F401
        from safetensors import SafetensorError, safe_open
    place: dict[str, tuple[Path, Any]] = {}
    path = files.paths[0]
    with ExitStack() as stack:
        try:
            for path in files.paths:
                handle = stack.enter_context(safe_open(path, framework=framework))
                for name in handle.keys():  # noqa: SIM118  (a handle, not a dict)
                    if name in place:
                        raise CheckpointError(
                            f"{name} is in both {place[name][0].name} and {path.name} of {path.parent}"
                        )
                    place[name] = path, handle
            _compare_index(files, {name: path.name for name, (path, _) in place.items()})
            yield Weights(place)
        except SafetensorError as error:
            remedy = lfs_advice(path) or ": it may be truncated; copy or download it again"
            raise CheckpointError(f"{path} is not a readable safetensors file ({error}){remedy}") from error


def _compare_index(files: WeightFiles, found: dict[str, str]) -> None:
    if files.index is None or files.index == found:
        return
    name = next(n for n in sorted(files.index.keys() | found.keys()) if files.index.get(n) != found.get(n))
    expected, actual = (names.get(name, "none of its files") for names in (files.index, found))
    raise CheckpointError(
        f"{INDEX_FILE} places {name} in {expected}, but it is in {actual}: shards of different checkpoints are mixed; copy all "
        f"files of {files.paths[0].parent} again"
    )


def advice(paths: Iterable[str]) -> str:
    """Describe the file that a checkpoint without weights has in their place, as the end of an error message; may be empty.

    Args:
        paths: paths relative to the checkpoint, with slashes.
    """
    listed = sorted(paths)
    if WEIGHTS_FILE in listed or INDEX_FILE in listed:
        return ""
    for pattern, description in _OTHER:
        for path in listed:
            if fnmatchcase(path, pattern):
                return f". Found {path}: {description}"
    return ""


def paths_in(folder: Path) -> list[str]:
    """Return the paths of the files in a folder and its subfolders, relative to it."""
    return [
        path.relative_to(folder).as_posix() for glob in ("*", "*/*") for path in folder.glob(glob) if path.is_file()
    ]
