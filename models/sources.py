"""From what a user names to a checkpoint folder: a path, or a hub name at its pinned revision with checked digests."""

from dataclasses import dataclass, replace
from pathlib import Path

from moembed.bundle import sha256_of
from moembed.errors import CheckpointError, SourceError
from moembed.hub import fetch, is_hub_name
from moembed.models.checkpoint import WEIGHTS_FILE
from moembed.models.config import NomicMoeConfig
from moembed.models.modules import check_modules
from moembed.models.spec import ModelSpec, known_specs, spec_of

REQUIRED_FILES = ("config.json", WEIGHTS_FILE, "tokenizer.json")
OPTIONAL_FILES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint at hand.

    Attributes:
        folder: where its files are.
        config: the network's configuration.
        spec: the model's facts; `spec.repo` and `spec.revision` say where it came from, if anyone knows.
        config_sha256: digest of `config.json`.
        weights_sha256: digest of `model.safetensors`.
    """

    folder: Path
    config: NomicMoeConfig
    spec: ModelSpec
    config_sha256: str
    weights_sha256: str


def locate(
    source: str | Path,
    *,
    revision: str | None = None,
    cache_dir: Path | None = None,
    local_files_only: bool = False,
) -> Checkpoint:
    """Find, and if need be download, a checkpoint.

    Args:
        source: a folder, or a hub name `owner/name`; an existing folder wins.
        revision: commit, tag or branch of a hub name; a known model's is pinned when this is None.
        cache_dir: the hub cache, or None for huggingface_hub's own.
        local_files_only: never touch the network.

    Raises:
        SourceError: neither a folder nor a hub name that can be had.
        CheckpointError: a required file is missing, a digest differs from the pinned one, or its vectors are not means of tokens.
    """
    folder = Path(source)
    if folder.is_dir():
        return _local(folder)
    if isinstance(source, Path) or not is_hub_name(source):
        raise SourceError(f"no folder {source}, and it is not a hub name of the form owner/name")
    pinned = next((spec for spec in known_specs() if spec.repo == source), None)
    if pinned is not None and revision in (None, pinned.revision):
        revision = pinned.revision
    else:
        pinned = None

    folder = fetch(
        source,
        REQUIRED_FILES,
        optional=OPTIONAL_FILES,  # the export writes what is missing
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
    )
    checkpoint = _local(folder)
    if pinned is None:
        # The snapshot folder of huggingface_hub's cache is named after the commit that the revision resolved to.
        spec = replace(checkpoint.spec, name=source.split("/")[1], repo=source, revision=folder.name)
        return replace(checkpoint, spec=spec)
    _check_digests(folder, pinned)
    return replace(checkpoint, spec=pinned)


def _local(folder: Path) -> Checkpoint:
    if missing := [name for name in REQUIRED_FILES if not (folder / name).is_file()]:
        raise CheckpointError(f"{folder} lacks {', '.join(missing)}; a checkpoint has {', '.join(REQUIRED_FILES)}")
    config = NomicMoeConfig.from_file(folder / "config.json")
    check_modules(folder)
    config_sha256, weights_sha256 = (sha256_of(folder / name) for name in ("config.json", WEIGHTS_FILE))
    spec = spec_of(folder, config, config_sha256)
    published = next((s for s in known_specs() if s.sha256.get(WEIGHTS_FILE) == weights_sha256), None)
    if published is not None:
        spec = replace(spec, repo=published.repo, revision=published.revision)
    return Checkpoint(folder, config, spec, config_sha256, weights_sha256)


def _check_digests(folder: Path, pinned: ModelSpec) -> None:
    for name, expected in pinned.sha256.items():
        if (found := sha256_of(folder / name)) != expected:
            raise CheckpointError(
                f"{name} of {pinned.repo} has sha256 {found}, expected {expected}: "
                "the download is damaged or the repository was altered; delete it from the cache and fetch it again"
            )
