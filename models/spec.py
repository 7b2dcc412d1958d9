"""What is known of a model besides its tensors: prompts, widths, limits, origin. Data, in `specs/*.toml` or in its folder."""

import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from moembed.errors import CheckpointError
from moembed.models.config import NomicMoeConfig
from moembed.models.sentence_transformers import side_file


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model's facts.

    Attributes:
        name: what to call it.
        max_tokens: most tokens of a text, prompt and special tokens included.
        dims: widths it was trained to be cut to, widest first.
        prompts: prompt name -> text in front.
        prompt_required: whether it is wrong without a prompt.
        repo: hub name, or None.
        revision: pinned commit, or None.
        sha256: file name -> expected digest; empty for a model that is not pinned.
    """

    name: str
    max_tokens: int
    dims: tuple[int, ...]
    prompts: dict[str, str]
    prompt_required: bool
    repo: str | None = None
    revision: str | None = None
    sha256: dict[str, str] = field(default_factory=dict)


@cache
def known_specs() -> tuple[ModelSpec, ...]:
    """The specs that come with the package, one per file in `specs/`."""
    folder = resources.files("moembed.models") / "specs"
    specs = []
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".toml"):
            raw: dict[str, Any] = tomllib.loads(entry.read_text("utf-8"))
            specs.append(ModelSpec(**(raw | {"dims": tuple(raw["dims"])})))
    return tuple(specs)


def spec_of(folder: Path, config: NomicMoeConfig, config_sha256: str) -> ModelSpec:
    """Facts of a local checkpoint: from its own sentence-transformers files, and from a known spec of the same config.

    Args:
        folder: the checkpoint.
        config: its configuration.
        config_sha256: digest of its `config.json`; the published file's brings the published dims and prompts.

    Raises:
        CheckpointError: a file is not JSON, or its limits contradict the network.
    """
    known = next((s for s in known_specs() if s.sha256.get("config.json") == config_sha256), None)
    st = side_file(folder / "config_sentence_transformers.json")
    prompts = st.get("prompts") or (known.prompts if known else {})
    limit = (
        side_file(folder / "sentence_bert_config.json").get("max_seq_length")
        or (known.max_tokens if known else None)
        or side_file(folder / "tokenizer_config.json").get("model_max_length")
        or config.max_positions
    )
    if not isinstance(prompts, dict) or not all(isinstance(v, str) for v in prompts.values()):
        raise CheckpointError(
            f"{folder}/config_sentence_transformers.json: prompts = {prompts!r}; expected name -> text"
        )
    if not isinstance(limit, int) or not 3 <= limit <= config.max_positions:
        raise CheckpointError(f"{folder}: a limit of {limit} tokens; the network has {config.max_positions} positions")
    dims = st.get("matryoshka_dims", [config.hidden_size])
    if not _are_widths(dims, config.hidden_size):
        raise CheckpointError(
            f"{folder}/config_sentence_transformers.json: matryoshka_dims = {dims!r}; expected widths of at most "
            f"{config.hidden_size}, widest first"
        )
    return ModelSpec(
        name=known.name if known else folder.resolve().name,
        max_tokens=limit,
        dims=known.dims if known else tuple(dims),
        prompts=prompts,
        prompt_required=bool(prompts) and st.get("default_prompt_name") is None,
    )


def _are_widths(dims: Any, hidden: int) -> bool:
    whole = isinstance(dims, list) and bool(dims) and all(type(dim) is int and 0 < dim <= hidden for dim in dims)
    return whole and dims == sorted(set(dims), reverse=True)
