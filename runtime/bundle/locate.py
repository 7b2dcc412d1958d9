"""Opening the bundle that a user names: a folder, a hub name, or the built-in model."""

import os
from dataclasses import replace
from pathlib import Path

from moembed.arguments import flag, optional_string, path, source_name
from moembed.bundle.bundle import Bundle, read_manifest
from moembed.bundle.manifest import MANIFEST_FILE
from moembed.errors import SourceError
from moembed.hub.layout import is_snapshot

DEFAULT_FOLDER = Path(__file__).parents[1] / "default"


def open_bundle(
    source: str | os.PathLike[str] | None,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    rehash: bool = False,
) -> Bundle:
    """Find a bundle, download it if necessary, and check it.

    Args:
        source: a folder, a hub name `owner/name`, or None for the built-in model. An existing folder takes precedence.
        revision: commit, tag or branch of a hub name.
        cache_dir: cache folder of hub files; None for huggingface_hub's default.
        local_files_only: do not use the network.
        rehash: hash all files, even those that have not changed since they were hashed.

    Raises:
        InputError: an argument has the wrong type.
        SourceError: no such folder, and the hub name cannot be fetched.
        BundleError: the bundle is incomplete, altered, or not a bundle.
    """
    revision, cache = optional_string("revision", revision), path("cache_dir", cache_dir)
    local_files_only = flag("local_files_only", local_files_only)
    if source is None:
        return Bundle.open(DEFAULT_FOLDER, rehash=rehash)
    source = source_name(source)
    if os.path.exists(source):  # noqa: PTH110  (Path.exists raises if a name is too long or a folder is not readable)
        return Bundle.open(Path(source), rehash=rehash, exclusive=not is_snapshot(Path(source)))
    # Imported here, since most calls name a folder.
    from moembed.hub.fetch import fetch
    from moembed.hub.names import parse

    found = None if isinstance(source, Path) else parse(source, revision)
    if found is None:
        raise SourceError(f"no folder {source}, and it is not a hub name of the form owner/name")
    repo = found.repo
    try:
        first = fetch(
            repo, [MANIFEST_FILE], revision=found.revision, cache_dir=cache, local_files_only=local_files_only
        )
    except SourceError as error:
        hint = f"; if {repo} is a checkpoint, convert it: moembed export {repo} -o BUNDLE"
        raise SourceError(f"{error}{hint if MANIFEST_FILE in str(error) else ''}") from error
    files = read_manifest(first.folder).files
    whole = fetch(repo, files, revision=first.commit, cache_dir=cache, local_files_only=local_files_only)
    # Other programs share the snapshot, and may have fetched more files of the repository.
    return replace(Bundle.open(whole.folder, rehash=rehash, exclusive=False), hub=(repo, whole.commit))
