"""The small JSON files of a bundle, by which other loaders recognize the model: the checkpoint's, made safe to open.

None of them names code to run: transformers and sentence-transformers would offer to fetch and run it. `config.json` has the
sizes of the network under the names of transformers 5 too, which would otherwise take its own defaults for them.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from moembed.models.config_fields import SAME_AS
from moembed.models.sentence_transformers import side_file

# Fields, at any depth, that name code of the checkpoint's or its hub's, or allow it.
_CODE = frozenset({"auto_map", "custom_generate", "custom_pipelines", "trust_remote_code"})
_OWN_MODULES = "sentence_transformers."
# transformers' name -> that of the published config.json. `rope_parameters` holds the base of the rotary positions.
_NAMES = {name: field for name, field in SAME_AS.items() if name != "rope_theta"}


def copy_companion(source: Path, target: Path, *, name: str) -> None:
    """Copy one of a checkpoint's, or an older bundle's, small files into a bundle.

    Args:
        source: the file.
        target: where to; its folder exists.
        name: path of the file inside its folder, with slashes.

    Raises:
        CheckpointError: the file is not JSON of the form that its name asks for.
    """
    if source.suffix != ".json" or name == "tokenizer.json":  # which only the library tokenizers reads
        shutil.copyfile(source, target)
        return
    content = side_file(source, list if name == "modules.json" else dict)
    safe = _without_code(content)
    if name == "config.json":
        safe = with_common_names(safe)
    elif name == "modules.json":
        safe = [_own(module) for module in safe]
    if safe == content:
        shutil.copyfile(source, target)
    else:
        target.write_text(json.dumps(safe, indent=2, ensure_ascii=False) + "\n", "utf-8")


def with_common_names(raw: dict[str, Any]) -> dict[str, Any]:
    """The fields of a `config.json`, and the sizes among them under the names of transformers 5 as well."""
    common = {name: raw[field] for name, field in _NAMES.items()}
    return raw | common | {"rope_parameters": {"rope_type": "default", "rope_theta": raw["rotary_emb_base"]}}


def _without_code(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _without_code(value) for name, value in content.items() if name not in _CODE}
    return [_without_code(value) for value in content] if isinstance(content, list) else content


def _own(module: Any) -> Any:
    """An entry of `modules.json` with sentence-transformers' own class; `check_modules` has seen what the class is called."""
    kind = module.get("type") if isinstance(module, dict) else None
    if not isinstance(kind, str) or kind.startswith(_OWN_MODULES):
        return module
    return module | {"type": f"{_OWN_MODULES}models.{kind.rsplit('.', 1)[-1]}"}
