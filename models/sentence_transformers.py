"""Files of sentence-transformers beside a checkpoint: what makes one vector of a text, which the graph must compute too.

A checkpoint that was fine-tuned with another pooling, or with a layer behind it, would otherwise be exported without either. The
files are `modules.json` and `1_Pooling/config.json`, whose modes are flags, or one word in newer files.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moembed.errors import CheckpointError, shown
from moembed.models.pooling import Pooling

_COMPUTED = ["Transformer", "Pooling", "Normalize"]
_CLASSES = "sentence_transformers.models."
_IDENTITIES = frozenset({"Dropout"})  # modules that do nothing at inference
_POOLING, _POOLING_FOLDER = "pooling_mode", "1_Pooling"
POOLING_FILE = f"{_POOLING_FOLDER}/config.json"
_PLACES = {"Transformer": "", "Pooling": _POOLING_FOLDER, "Normalize": "2_Normalize"}  # where an entry does not say it
# Folders of modules that change no vector, or that are read.
_KNOWN_FOLDERS = re.compile(r"0_Transformer|1_Pooling|\d+_(?:Normalize|Dropout)")
# Similarities that depend on the lengths of vectors.
_OF_LENGTHS = ("dot", "dot_score", "euclidean", "manhattan")
_JSON: dict[type, str] = {dict: "object", list: "list"}


def read_pooling(folder: Path, implemented: Sequence[Pooling], default: Pooling | None) -> Pooling:
    """Return how a checkpoint's sentence embeddings are made of the states of all its tokens.

    Args:
        folder: a checkpoint; the files are optional.
        implemented: what its family can pool by.
        default: the pooling of a checkpoint without the files; None if there must be files.

    Raises:
        CheckpointError: its files ask for another pooling, for further modules or for vectors of other lengths, are malformed, or
            are missing.
    """
    kinds = _check_modules(folder)
    similarity = read_json(folder / "config_sentence_transformers.json").get("similarity_fn_name")
    if similarity in _OF_LENGTHS and "Normalize" not in kinds:
        raise CheckpointError(
            f"{folder}: similarity_fn_name in config_sentence_transformers.json is {similarity!r}, and modules.json has no "
            "Normalize: the model compares vectors with their lengths, and moembed's have length 1, which ranks otherwise"
        )
    path = folder / _POOLING_FOLDER / "config.json"
    pooling = read_json(path)
    if pooling.get("include_prompt", True) is not True:
        raise CheckpointError(
            f"{path} leaves the prompt out of the mean (include_prompt = false), which is not implemented"
        )
    if not pooling:
        if default is None:
            raise CheckpointError(
                f"no {path}: nothing says how the states of a text's tokens become its vector. Copy modules.json and "
                f"{_POOLING_FOLDER}/config.json of the model, or save it with sentence-transformers; or, if its authors state "
                f"the pooling, write that file: {' or '.join(map(_stated, implemented))}; WIDTH is hidden_size of config.json"
            )
        return default
    modes = dict.fromkeys(name for name, value in pooling.items() if name.startswith(f"{_POOLING}_") and value)
    modes |= dict.fromkeys(map(_flag, _words(pooling.get(_POOLING))))
    found = [mode for mode in implemented if list(modes) == [mode.flag]]
    if not found:
        raise CheckpointError(
            f"{path} asks for {' and '.join(modes) or 'no pooling'}; implemented: "
            f"{' or '.join(mode.flag for mode in implemented)}"
        )
    return found[0]


def own_modules(modules: Sequence[Any]) -> list[Any]:
    """Return the entries of a checkpoint's `modules.json` for a bundle; those of a checkpoint that was read.

    Those that do nothing are left out, and there is a Normalize: vectors of a bundle have length 1. Classes have the names that
    every version of sentence-transformers knows, and none of code beside a checkpoint; every entry has a path.
    """
    found: list[Any] = []
    for module in modules:
        kind = _kind(module)
        if kind in _COMPUTED:
            place = {"idx": len(found), "name": str(len(found)), "path": _PLACES[kind]}
            found.append(place | module | {"type": _CLASSES + kind})
        elif kind not in _IDENTITIES:
            found.append(module)
    if list(map(_kind, found)) == _COMPUTED[:2]:
        found.append({"idx": 2, "name": "2", "path": _PLACES["Normalize"], "type": _CLASSES + "Normalize"})
    return found


def _check_modules(folder: Path) -> list[str]:
    """Return the kinds of the modules of a checkpoint that do something; none without a `modules.json`."""
    path = folder / "modules.json"
    listed = read_json(path, list)
    modules = [module for module in listed if _kind(module) not in _IDENTITIES]
    kinds = [_kind(module) for module in modules]
    if modules and kinds not in (_COMPUTED, _COMPUTED[:2]):
        raise CheckpointError(
            f"{path} lists the modules {', '.join(map(_described, listed))}; implemented: {', '.join(_COMPUTED)}: "
            + (
                "vectors without the others would be those of another model"
                if "Pooling" in kinds
                else "without Pooling this is another kind of model, such as SPLADE, ColBERT (a vector of every token), static "
                "embeddings or a Router of several"
            )
        )
    if not modules:
        # Folders in the way of sentence-transformers, whose list was lost.
        names = sorted(entry.name for entry in folder.iterdir() if re.match(r"\d+_", entry.name) and entry.is_dir())
        if other := [name for name in names if not _KNOWN_FOLDERS.fullmatch(name)]:
            raise CheckpointError(
                f"{folder} has no modules.json, but a folder {other[0]}, which may belong to a module behind the pooling: copy "
                "the model's modules.json too, or move the folder away"
            )
        return []
    for module, expected in zip(modules, ("", _POOLING_FOLDER), strict=False):
        if (place := module.get("path", expected)) != expected:
            raise CheckpointError(
                f"{path}: the path of {_kind(module)} is {shown(place)}; expected {expected!r}: move its files there and correct "
                "the path"
            )
    return kinds


def _kind(module: Any) -> str:
    """Return the name of the class of an entry of `modules.json`; "?" if it has none."""
    return str(module.get("type") or "?").rsplit(".", 1)[-1] if isinstance(module, dict) else "?"


def _described(module: Any) -> str:
    path = module.get("path") if isinstance(module, dict) else None
    return f"{_kind(module)} ({path})" if path else _kind(module)


def _stated(mode: Pooling) -> str:
    """Return the content of a file that states a pooling."""
    return f'{{"word_embedding_dimension": WIDTH, "{mode.flag}": true}} for {mode.described}'


def _words(value: Any) -> list[Any]:
    """Return the words of `pooling_mode`, which is one word, several, or null."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _flag(word: Any) -> str:
    """Return the flag that means the same as a word of `pooling_mode`."""
    known = next((mode.flag for mode in Pooling if mode == word), None)
    return known or f"{_POOLING}_{str(word).removesuffix('_tokens')}_tokens"


def read_json(path: Path, kind: type = dict) -> Any:
    """Read an optional JSON file of a checkpoint; a missing file gives an empty `kind`, dict or list.

    Raises:
        CheckpointError: the file cannot be read as JSON, or is of another kind.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return kind()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(found, kind):
        raise CheckpointError(f"{path}: expected a JSON {_JSON[kind]}, found {type(found).__name__}")
    return found
