"""Facts of a model beside its tensors: prompts, widths, limits, origin. In `specs/` of its family, or its folder."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from moembed.bundle.manifest import Source
from moembed.errors import CheckpointError, shown
from moembed.files.records import Positive, Sha256, read_toml
from moembed.models.config import NetworkConfig
from moembed.models.examples import Examples
from moembed.models.families import FAMILIES
from moembed.models.limits import token_limit
from moembed.models.published import PublishedFigure
from moembed.models.sentence_transformers import read_json
from moembed.models.weights import WEIGHTS_FILE

_DOCUMENTS = {"document", "passage", "corpus"}  # names that sentence-transformers looks for


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Facts of one model.

    Attributes:
        name: its name.
        max_tokens: largest number of tokens of a text, prompt and special tokens included.
        limit_source: what states `max_tokens` of a local checkpoint, such as a field of a file.
        dims: widths that its vectors were trained to be cut to (Matryoshka), widest first.
        prompts: prompt name -> text that precedes a text.
        prompt_required: True if vectors without a prompt are wrong.
        pooled_layer_norm: True if a LayerNorm without weights normalizes the pooled states before they are cut.
        repo: hub name, or None.
        revision: pinned commit, or None.
        sha256: file name -> expected digest; empty for a model that is not pinned.
        examples: numbers that others published for these weights.
        published: quality that others published for these weights.
    """

    name: str
    max_tokens: Positive
    dims: tuple[Positive, ...]
    prompts: dict[str, str]
    prompt_required: bool
    limit_source: str = "the limit of the known model"
    pooled_layer_norm: bool = False
    repo: str | None = None
    revision: str | None = None
    sha256: dict[str, Sha256] = field(default_factory=dict)
    examples: Examples = field(default_factory=Examples)
    published: tuple[PublishedFigure, ...] = ()

    @property
    def pins_weights(self) -> bool:
        """True if the digest of the weights is known."""
        return WEIGHTS_FILE in self.sha256


@cache
def known_specs() -> tuple[ModelSpec, ...]:
    """Read the specs in the package, one per file in `specs/` of the families' rooms.

    Raises:
        CheckpointError: a file is malformed.
    """
    entries = (entry for family in FAMILIES for entry in family.specs.iterdir())
    files = sorted((entry for entry in entries if entry.name.endswith(".toml")), key=lambda entry: entry.name)
    return tuple(
        read_toml(
            ModelSpec,
            file.read_text("utf-8"),
            file.name,
            error=CheckpointError,
            remedy="correct the spec",
            use_defaults=True,
        )
        for file in files
    )


def known_model(source: Source) -> ModelSpec | None:
    """Return the known model that a bundle was made from; None for any other.

    It is told by the digest of its weights. Where none is known, a checkpoint that was found by the model's name at the commit of
    its spec is taken for it; a folder never is.
    """

    def made_from(spec: ModelSpec) -> bool:
        if spec.pins_weights:
            return spec.sha256[WEIGHTS_FILE] == source.weights_sha256
        return spec.repo is not None and (spec.repo, spec.revision) == (source.repo, source.revision)

    return next(filter(made_from, known_specs()), None)


def published_figures(repo: str | None, weights_sha256: str) -> tuple[PublishedFigure, ...]:
    """Return the figures published for the known model of a hub name or of these weights; none for other models."""
    known = (
        spec.published
        for spec in known_specs()
        if spec.sha256.get(WEIGHTS_FILE) == weights_sha256 or (repo is not None and spec.repo == repo)
    )
    return next(known, ())


def known_names() -> list[str]:
    """Return the hub names of the known models."""
    return [spec.repo for spec in known_specs() if spec.repo]


def spec_of(folder: Path, config: NetworkConfig, config_sha256: str, weights_sha256: str = "") -> ModelSpec:
    """Collect the facts of a local checkpoint: from its sentence-transformers files, and from a known spec of the same files.

    Args:
        folder: the checkpoint.
        config: its configuration.
        config_sha256: digest of its `config.json`; that of the published file gives the published dims and prompts.
        weights_sha256: digest of its weights, which does the same.

    Raises:
        CheckpointError: a file is not JSON, its limits contradict the network, or the weights are those of a known model with a
            LayerNorm behind the pooling, and the config is not.
    """
    digests = {("config.json", config_sha256), (WEIGHTS_FILE, weights_sha256)}
    known = next((s for s in known_specs() if digests & s.sha256.items()), None)
    if known and known.pooled_layer_norm and not config.pooled_layer_norm:
        raise CheckpointError(
            f"{folder}: the weights are those of {known.name}, whose pooled states are normalized by a LayerNorm before vectors "
            'are cut. config.json is not the published one, and does not say so: add "pooled_layer_norm": true to it'
        )
    st = read_json(folder / "config_sentence_transformers.json")
    prompts = st.get("prompts") or {}
    limit = token_limit(folder, config.most_tokens, known.max_tokens if known else None)
    if not isinstance(prompts, dict) or not all(isinstance(v, str) for v in prompts.values()):
        raise CheckpointError(
            f"{folder}/config_sentence_transformers.json: prompts = {shown(prompts)}; expected an object of texts by name"
        )
    if known and not any(prompts.values()):
        prompts = known.prompts
    elif "query" in prompts and not _DOCUMENTS & prompts.keys():
        prompts = prompts | {"document": ""}  # as sentence-transformers does, which then has no prompt to put in front
    dims = st.get("matryoshka_dims", [config.hidden_size])
    if not _are_widths(dims, config.hidden_size):
        raise CheckpointError(
            f"{folder}/config_sentence_transformers.json: matryoshka_dims = {shown(dims)}; expected widths of at most "
            f"{config.hidden_size}, widest first"
        )
    return ModelSpec(
        name=known.name if known else folder.resolve().name,
        max_tokens=limit.tokens,
        limit_source=limit.source,
        dims=known.dims if known else tuple(dims),
        prompts=prompts,
        pooled_layer_norm=config.pooled_layer_norm,
        prompt_required=bool(prompts) and all(prompts.values()) and st.get("default_prompt_name") is None,
    )


def _are_widths(dims: Any, hidden: int) -> bool:
    if not isinstance(dims, list) or not dims or not all(type(dim) is int and 0 < dim <= hidden for dim in dims):
        return False
    return dims == sorted(set(dims), reverse=True)
