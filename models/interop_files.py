"""Small JSON files by which other loaders recognize the model of a bundle: those of the checkpoint, made safe to open.

They name no code to run: transformers and sentence-transformers would offer to fetch and run it. `config.json` also has the sizes
of the network under the names of transformers 5, which would otherwise use its own defaults.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from moembed.models.families import family_of_raw
from moembed.models.sentence_transformers import POOLING_FILE, own_modules, read_json
from moembed.models.tokenizer_files import with_tokenizer_class, without_limits

_WIDTHS = {"word_embedding_dimension", "embedding_dimension"}  # sentence-transformers must have one
# Fields, at any depth, that name code of the checkpoint or its hub repository, or allow it to run.
_CODE = frozenset({"auto_map", "custom_generate", "custom_pipelines", "trust_remote_code"})


def copy_interop_file(source: Path, target: Path, *, name: str) -> None:
    """Copy a small file of a checkpoint or a bundle into a bundle.

    Args:
        source: the file.
        target: destination, in a folder that exists.
        name: path of the file inside the checkpoint, with slashes.

    Raises:
        CheckpointError: the file is not JSON of the expected form.
    """
    if name == "tokenizer.json":
        found = source.read_text("utf-8")
        if (text := without_limits(found)) != found:
            target.write_text(text, "utf-8")
        else:
            shutil.copyfile(source, target)
        return
    if source.suffix != ".json":
        shutil.copyfile(source, target)
        return
    content = read_json(source, list if name == "modules.json" else dict)
    safe = _without_code(content)
    if name == "config.json":
        safe = family_of_raw(safe).common_names(safe)
    elif name == "modules.json":
        safe = own_modules(safe)
    elif name == POOLING_FILE and any(field.startswith("pooling_mode") for field in safe) and not _WIDTHS & safe.keys():
        raw = read_json(source.parents[1] / "config.json")
        safe |= {"word_embedding_dimension": family_of_raw(raw).common_names(raw)["hidden_size"]}
    elif name == "tokenizer_config.json":
        safe = with_tokenizer_class(safe, source.parent)
    if safe == content:
        shutil.copyfile(source, target)
    else:
        target.write_text(json.dumps(safe, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _without_code(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _without_code(value) for name, value in content.items() if name not in _CODE}
    return [_without_code(value) for value in content] if isinstance(content, list) else content
