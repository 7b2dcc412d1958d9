"""Check of sentence-transformers' list of modules beside a checkpoint: the graph must compute what it asks for.

A checkpoint that was fine-tuned with another pooling, or with a layer behind it, would otherwise be exported without either. The
files are `modules.json` and `1_Pooling/config.json`, whose modes are flags, or one word in newer files.
"""

import json
from pathlib import Path
from typing import Any

from moembed.errors import CheckpointError

_COMPUTED = ["Transformer", "Pooling", "Normalize"]
_POOLING = "pooling_mode"
_JSON: dict[type, str] = {dict: "object", list: "list"}


def check_modules(folder: Path) -> None:
    """Make sure that a checkpoint's sentence embeddings are masked means of all its tokens.

    Args:
        folder: a checkpoint; the files are optional.

    Raises:
        CheckpointError: its files ask for another pooling or for further modules, or are malformed.
    """
    path = folder / "modules.json"
    modules = read_json(path, list)
    kinds = [str(module.get("type", "")).rsplit(".", 1)[-1] if isinstance(module, dict) else "?" for module in modules]
    if modules and kinds not in (_COMPUTED, _COMPUTED[:2]):
        raise CheckpointError(
            f"{path} lists the modules {', '.join(kinds)}; implemented: {', '.join(_COMPUTED)}: "
            "vectors without the others would be those of another model"
        )
    path = folder / "1_Pooling" / "config.json"
    pooling = read_json(path)
    modes = [name for name, value in pooling.items() if name.startswith(f"{_POOLING}_") and value is True]
    if _POOLING in pooling:
        modes.append(f"{_POOLING}_{pooling[_POOLING]}_tokens")
    if pooling and modes != [f"{_POOLING}_mean_tokens"]:
        raise CheckpointError(
            f"{path} asks for {' and '.join(modes) or 'no pooling'}; implemented: {_POOLING}_mean_tokens"
        )
    if pooling.get("include_prompt", True) is not True:
        raise CheckpointError(
            f"{path} leaves the prompt out of the mean (include_prompt = false), which is not implemented"
        )


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
