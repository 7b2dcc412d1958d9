"""Small JSON files by which other loaders recognize the model of a bundle: those of the checkpoint, made safe to open.

They name no code to run: transformers and sentence-transformers would offer to fetch and run it. `config.json` also has the sizes
of the network under the names of transformers 5, which would otherwise use its own defaults.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from moembed.models.config_fields import SAME_AS
from moembed.models.sentence_transformers import read_json

# Fields, at any depth, that name code of the checkpoint or its hub repository, or allow it to run.
_CODE = frozenset({"auto_map", "custom_generate", "custom_pipelines", "trust_remote_code"})
_OWN_MODULES = "sentence_transformers."
# transformers' name -> that of the published config.json. `rope_parameters` holds the base of the rotary positions.
_NAMES = {name: field for name, field in SAME_AS.items() if name != "rope_theta"}


def copy_interop_file(source: Path, target: Path, *, name: str) -> None:
    """Copy a small file of a checkpoint or a bundle into a bundle.

    Args:
        source: the file.
        target: destination, in a folder that exists.
        name: path of the file inside the checkpoint, with slashes.

    Raises:
        CheckpointError: the file is not JSON of the expected form.
    """
    if source.suffix != ".json" or name == "tokenizer.json":  # read by the library tokenizers only
        shutil.copyfile(source, target)
        return
    content = read_json(source, list if name == "modules.json" else dict)
    safe = _without_code(content)
    if name == "config.json":
        safe = with_common_names(safe)
    elif name == "modules.json":
        safe = [_with_own_class(module) for module in safe]
    if safe == content:
        shutil.copyfile(source, target)
    else:
        target.write_text(json.dumps(safe, indent=2, ensure_ascii=False) + "\n", "utf-8")


def with_common_names(raw: dict[str, Any]) -> dict[str, Any]:
    """Add the sizes in a `config.json` under the names of transformers 5; return all fields."""
    common = {name: raw[field] for name, field in _NAMES.items()}
    return raw | common | {"rope_parameters": {"rope_type": "default", "rope_theta": raw["rotary_emb_base"]}}


def _without_code(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _without_code(value) for name, value in content.items() if name not in _CODE}
    return [_without_code(value) for value in content] if isinstance(content, list) else content


def _with_own_class(module: Any) -> Any:
    """Return an entry of `modules.json` with sentence-transformers' own class; `check_modules` has checked the class name."""
    kind = module.get("type") if isinstance(module, dict) else None
    if not isinstance(kind, str) or kind.startswith(_OWN_MODULES):
        return module
    return module | {"type": f"{_OWN_MODULES}models.{kind.rsplit('.', 1)[-1]}"}
