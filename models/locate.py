"""Location of a checkpoint that a user names: a folder, or a hub name at its pinned revision with checked digests."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moembed.arguments import source_name
from moembed.bundle.bundle import sha256_of
from moembed.errors import CheckpointError, SourceError
from moembed.files.untrusted import lfs_advice
from moembed.hub.client import AbsentError
from moembed.hub.fetch import Fetched, Reporter, fetch, file_names
from moembed.hub.names import HubName, parse
from moembed.models.config import NetworkConfig
from moembed.models.families import read_config
from moembed.models.spec import ModelSpec, known_names, known_specs, spec_of
from moembed.models.weights import INDEX_FILE, WEIGHTS_FILE, advice, find_weights, paths_in, read_index

REQUIRED_FILES = ("config.json", "tokenizer.json")
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
    """Checkpoint in a local folder.

    Attributes:
        folder: folder of its files.
        config: the network's configuration.
        spec: the model's facts; `spec.repo` and `spec.revision` are its origin, or None if it is unknown.
        config_sha256: digest of `config.json`.
        weights_sha256: digest of `model.safetensors`, or of its shards together; see `moembed.models.weights`.
        weights_size: bytes of the weight files.
    """

    folder: Path
    config: NetworkConfig
    spec: ModelSpec
    config_sha256: str
    weights_sha256: str
    weights_size: int


def locate(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: Path | None = None,
    local_files_only: bool = False,
    into: Path | None = None,
    reporter: Reporter | None = None,
) -> Checkpoint:
    """Find a checkpoint, and download it if necessary.

    Args:
        source: a folder, or a hub name `owner/name`; an existing folder takes precedence.
        revision: commit, tag or branch of a hub name; a known model's is pinned when this is None.
        cache_dir: the hub cache, or None for huggingface_hub's own.
        local_files_only: do not use the network.
        into: folder to fetch the files of a hub name into; None for the hub cache. Files that are in a cache are linked.
        reporter: functions that hear of downloads.

    Raises:
        SourceError: the source is not a folder, and not a hub name that can be downloaded.
        CheckpointError: a required file is missing, a digest differs from the pinned one, or it is of no network that is
            implemented.
    """
    source = source_name(source)
    if os.path.isdir(source):  # noqa: PTH112  (Path.is_dir raises where a name is too long)
        return _local(Path(source))
    name = None if isinstance(source, Path) else parse(source, revision, known=known_names())
    if name is None:
        raise SourceError(f"no folder {source}, and it is not a hub name of the form owner/name")
    pinned = next((spec for spec in known_specs() if spec.repo == name.repo), None)
    if pinned is not None and name.revision in (None, pinned.revision):
        name = replace(name, revision=pinned.revision)
    else:
        pinned = None
    where: dict[str, Any] = {
        "cache_dir": cache_dir,
        "local_files_only": local_files_only,
        "into": into,
        "reporter": reporter,
    }
    try:
        fetched = _fetched(name, pinned, where)
    except AbsentError as error:
        found = [] if local_files_only else file_names(name.repo, name.revision)
        raise SourceError(f"{error}{advice(found)}") from error
    checkpoint = _local(fetched.folder)
    if pinned is None:
        spec = replace(checkpoint.spec, name=name.repo.split("/")[1], repo=name.repo, revision=fetched.commit)
        return replace(checkpoint, spec=spec)
    if checkpoint.weights_sha256 != (expected := pinned.sha256.get(WEIGHTS_FILE, checkpoint.weights_sha256)):
        raise CheckpointError(
            f"{WEIGHTS_FILE} in {fetched.folder} has sha256 {checkpoint.weights_sha256}, expected {expected}: the file was "
            "altered after it was fetched; delete it and fetch it again"
        )
    return replace(checkpoint, spec=pinned)


def _local(folder: Path) -> Checkpoint:
    missing = [name for name in REQUIRED_FILES if not (folder / name).is_file()]
    weights = find_weights(folder)
    if missing or weights is None:
        if weights is None:
            missing.append(WEIGHTS_FILE)
        required = ", ".join((*REQUIRED_FILES, WEIGHTS_FILE))
        raise CheckpointError(
            f"{folder} lacks {', '.join(missing)}; a checkpoint has {required}{advice(paths_in(folder))}"
        )
    for name in REQUIRED_FILES:
        if advised := lfs_advice(folder / name):
            raise CheckpointError(f"{folder / name} cannot be read{advised}")
    config = read_config(folder)
    config_sha256, weights_sha256 = sha256_of(folder / "config.json"), weights.sha256()
    spec = spec_of(folder, config, config_sha256, weights_sha256)
    published = next((s for s in known_specs() if s.sha256.get(WEIGHTS_FILE) == weights_sha256), None)
    if published is not None:
        spec = replace(spec, repo=published.repo, revision=published.revision)
    return Checkpoint(folder, config, spec, config_sha256, weights_sha256, weights.size)


def _fetched(name: HubName, pinned: ModelSpec | None, where: dict[str, Any]) -> Fetched:
    """Fetch the files of a checkpoint on the hub, its weights in one file or in shards."""
    repo, digests = name.repo, pinned.sha256 if pinned else {}
    # The export writes the optional files that are missing.
    optional = OPTIONAL_FILES if pinned else (*OPTIONAL_FILES, INDEX_FILE)
    first = fetch(repo, REQUIRED_FILES, optional=optional, revision=name.revision, sha256=digests, **where)
    commit, index = first.commit, first.folder / INDEX_FILE
    if pinned or not index.is_file():
        return fetch(repo, [WEIGHTS_FILE], revision=commit, sha256=digests, **where)
    fetch(repo, REQUIRED_FILES, optional=[WEIGHTS_FILE], revision=commit, **where)
    if not (first.folder / WEIGHTS_FILE).is_file():
        fetch(repo, sorted(set(read_index(index).values())), revision=commit, **where)
    return first
