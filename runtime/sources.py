"""From what a user names to a bundle folder: a path, a hub name, or the model inside the package."""

from pathlib import Path

from moembed.errors import SourceError
from moembed.hub import fetch, is_hub_name
from moembed.manifest import MANIFEST_FILE

DEFAULT_FOLDER = Path(__file__).parent / "default"


def resolve(
    source: str | Path | None,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """Find, and if need be download, a bundle.

    Args:
        source: a folder, a hub name `owner/name`, or None for the default model; an existing folder wins over a name.
        revision: commit, tag or branch of a hub name.
        cache_dir: the hub cache, or None for huggingface_hub's own.
        local_files_only: never touch the network.

    Raises:
        SourceError: neither a folder nor a hub name that can be had.
        BundleError: the repository's manifest is not usable.
    """
    if source is None:
        return DEFAULT_FOLDER
    folder = Path(source)
    if folder.exists():
        return folder
    if isinstance(source, Path) or not is_hub_name(source):
        raise SourceError(f"no folder {source}, and it is not a hub name of the form owner/name")
    cache = None if cache_dir is None else Path(cache_dir)

    def get(names: list[str]) -> Path:
        return fetch(source, names, revision=revision, cache_dir=cache, local_files_only=local_files_only)

    try:
        snapshot = get([MANIFEST_FILE])
    except SourceError as error:
        hint = f"; if {source} is a checkpoint, make a bundle of it: moembed export {source} -o BUNDLE"
        raise SourceError(f"{error}{hint if MANIFEST_FILE in str(error) else ''}") from error
    from moembed.bundle import read_manifest

    return get([MANIFEST_FILE, *read_manifest(snapshot).files])
