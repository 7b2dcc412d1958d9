"""Files of a hub repository, through huggingface_hub: its cache first, and its offline switches respected.

huggingface_hub comes with `tokenizers`. It is imported only here, for a hub name.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from moembed.errors import SourceError, extra

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class AbsentError(SourceError):
    """File that the repository does not have, or, without the network, the cache."""


def is_hub_name(source: str) -> bool:
    """Check whether a string has the form `owner/name`."""
    return _NAME.fullmatch(source) is not None


def is_snapshot(folder: Path) -> bool:
    """Check whether a folder is a snapshot in the hub's cache, which other programs share."""
    real = folder.resolve()
    return real.parent.name == "snapshots" and (real.parent.parent / "blobs").is_dir()


def fetch(
    repo: str,
    filenames: Iterable[str],
    *,
    optional: Iterable[str] = (),
    revision: str | None,
    cache_dir: Path | None,
    local_files_only: bool,
) -> Path:
    """Fetch files of a hub repository into the local cache, all of one commit.

    Args:
        repo: `owner/name`.
        filenames: paths in the repository.
        optional: further paths, which the repository may lack.
        revision: commit, tag or branch; None for the default branch.
        cache_dir: cache folder; None for huggingface_hub's default.
        local_files_only: do not use the network.

    Returns:
        The snapshot folder with the files; its name is the commit.

    Raises:
        SourceError: a file, the revision or the repository cannot be fetched.
        MissingExtraError: huggingface_hub is not installed.
    """
    may_lack, filenames = tuple(optional), tuple(filenames)
    # Optional files first, since they are small: an interrupted download should lack the weights, not them.
    names = (*may_lack, *filenames)
    cache_dir = _cache(repo, cache_dir)
    if names and not local_files_only:
        _check_connection(repo, names[0], revision, cache_dir)
    folder = None
    for name in names:
        try:
            path = _file(repo, name, revision, cache_dir, local_files_only)
        except AbsentError:
            if name in may_lack:
                continue
            raise
        folder = path.parents[len(Path(name).parts) - 1]
        revision = folder.name  # the commit, since a branch may move between two files
    if folder is None:
        raise SourceError(f"no file was requested from {repo}")
    return folder


def file_names(repo: str, revision: str | None) -> list[str]:
    """List the files of a hub repository, to explain an error; empty if the hub does not answer."""
    try:
        from huggingface_hub import HfApi

        return HfApi().list_repo_files(repo, revision=revision)
    except Exception:  # of any class: the caller raises the error that this was to explain
        return []


def _cache(repo: str, cache_dir: Path | None) -> Path | None:
    """Expand the cache folder; None for huggingface_hub's default. Either may need a home folder that does not exist."""
    with extra("cpu", f"Fetching {repo}"):
        from huggingface_hub import constants
    try:
        if cache_dir is None:
            Path(constants.HF_HUB_CACHE).expanduser()  # huggingface_hub would create a folder named "~"
            return None
        return cache_dir.expanduser()
    except RuntimeError:
        raise SourceError(
            f"{repo} cannot be cached: the cache is in the home folder, and this user has none; set HF_HOME or HOME, or pass a "
            "cache folder"
        ) from None


def _check_connection(repo: str, name: str, revision: str | None, cache_dir: Path | None) -> None:
    """Ask the hub once for a file that is not cached: hf_hub_download would retry for half a minute.

    A name such as `models/x` may be meant as a folder, and there may be no network: the error should come at once.
    """
    import logging

    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if constants.HF_HUB_OFFLINE or _cached(repo, name, revision or "main", cache_dir):
        return
    logging.getLogger("moembed").warning("moembed: no folder %s here: asking the hub for it", repo)
    try:
        address = hf_hub_url(repo, name, revision=revision)
        get_hf_file_metadata(address, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except (HfHubHTTPError, HFValidationError):
        return  # the hub answered, or the name is invalid; the download reports the error
    except Exception as error:  # of the HTTP library, which has changed twice
        raise SourceError(
            f"{name} of {repo} at revision {revision or 'main'} is not in the cache and the network was not reachable "
            f"({error}); no folder {repo} is here either: check the name, or download it once while online"
        ) from error


def _file(repo: str, name: str, revision: str | None, cache_dir: Path | None, local_files_only: bool) -> Path:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = f"{repo} at revision {revision or 'main'}"
    uncached = (
        f"{name} of {at} is not in the cache and the network was not allowed or not reachable: download it once while online, or "
        f"pass a local folder (there is no folder {repo} here)"
    )
    offline = local_files_only or constants.HF_HUB_OFFLINE
    # Look into the cache first: even for a cached file, hf_hub_download asks the hub for a list of coding agents (telemetry).
    if (offline or _COMMIT.fullmatch(revision or "")) and (found := _cached(repo, name, revision, cache_dir)):
        return found
    if offline:
        raise AbsentError(uncached)
    try:
        return Path(hf_hub_download(repo, name, revision=revision, cache_dir=cache_dir))
    except LocalEntryNotFoundError as error:
        raise SourceError(uncached) from error
    except GatedRepoError as error:
        raise SourceError(f"{repo} is gated: accept its terms on the hub and log in (hf auth login)") from error
    except RepositoryNotFoundError as error:
        raise SourceError(f"no repository {repo} on the hub (or it is private and no token is set)") from error
    except RevisionNotFoundError as error:
        raise SourceError(f"{repo} has no revision {revision}: pass one of its commits, tags or branches") from error
    except EntryNotFoundError as error:
        raise AbsentError(f"{at} holds no {name}") from error
    except Exception as error:  # of the HTTP library, which has changed twice
        raise SourceError(f"{name} of {at} could not be downloaded: {error}") from error


def _cached(repo: str, name: str, revision: str | None, cache_dir: Path | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repo, name, cache_dir=cache_dir, revision=revision)
    except HFValidationError as error:
        raise SourceError(f"{repo} is not a valid hub name: {error}") from error
    if found is None:
        return None
    if isinstance(found, str):
        return Path(found)
    raise AbsentError(f"{repo} at revision {revision} holds no {name}")  # as the cache remembers
