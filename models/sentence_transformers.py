"""Files of sentence-transformers beside a checkpoint: what makes one vector of a text, which the graph must compute too.

A checkpoint that was fine-tuned with another pooling, or with a layer behind it, would otherwise be exported without either. The
files are `modules.json` and `1_Pooling/config.json`, whose modes are flags, or one word in newer files.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moembed.errors import CheckpointError, shown
from moembed.models.pooling import Pooling

_COMPUTED = ["Transformer", "Pooling", "Normalize"]
_POOLING, _POOLING_FOLDER = "pooling_mode", "1_Pooling"
_DOT_PRODUCTS = ("dot", "dot_score")
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
    path = folder / "modules.json"
    modules = read_json(path, list)
    kinds = [str(module.get("type", "")).rsplit(".", 1)[-1] if isinstance(module, dict) else "?" for module in modules]
    if modules and kinds not in (_COMPUTED, _COMPUTED[:2]):
        raise CheckpointError(
            f"{path} lists the modules {', '.join(kinds)}; implemented: {', '.join(_COMPUTED)}: "
            "vectors without the others would be those of another model"
        )
    place = modules[1].get("path", _POOLING_FOLDER) if modules else _POOLING_FOLDER
    if place != _POOLING_FOLDER:
        raise CheckpointError(f"{path}: the path of Pooling is {shown(place)}; expected {_POOLING_FOLDER!r}: rename it")
    similarity = read_json(folder / "config_sentence_transformers.json").get("similarity_fn_name")
    if similarity in _DOT_PRODUCTS and "Normalize" not in kinds:
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
                "1_Pooling/config.json of the model, or save it with sentence-transformers"
            )
        return default
    modes = [name for name, value in pooling.items() if name.startswith(f"{_POOLING}_") and value is True]
    if _POOLING in pooling:
        modes.append(_flag(pooling[_POOLING]))
    found = [mode for mode in implemented if modes == [mode.flag]]
    if not found:
        raise CheckpointError(
            f"{path} asks for {' and '.join(modes) or 'no pooling'}; implemented: "
            f"{' or '.join(mode.flag for mode in implemented)}"
        )
    return found[0]


def _flag(word: Any) -> str:
    """Return the flag that means the same as a word of `pooling_mode`."""
    return next((mode.flag for mode in Pooling if mode == word), f"{_POOLING}_{word}_tokens")


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
