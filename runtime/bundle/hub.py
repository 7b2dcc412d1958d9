"""Files from a hub by name, through huggingface_hub: its cache first, its offline switches respected.

huggingface_hub comes with `tokenizers` and is imported only here, when a name rather than a folder is asked for.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from moembed.errors import SourceError, extra

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_hub_name(source: str) -> bool:
    """Whether a string has the form `owner/name`."""
    return _NAME.fullmatch(source) is not None


def is_snapshot(folder: Path) -> bool:
    """Whether a folder is a snapshot in the hub's cache, which belongs to every program that uses it."""
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
    """Bring files of a hub repository into the local cache, all of one commit.

    Args:
        repo: `owner/name`.
        filenames: paths inside the repository.
        optional: further paths, which the repository need not hold.
        revision: commit, tag or branch; None is the default branch.
        cache_dir: the cache, or None for huggingface_hub's own.
        local_files_only: never touch the network.

    Returns:
        The snapshot folder that holds the files; its name is the commit.

    Raises:
        SourceError: a file, the revision or the repository cannot be had.
        MissingExtraError: huggingface_hub is not installed.
    """
    folder = None
    may_lack, filenames = tuple(optional), tuple(filenames)
    cache_dir = _cache(repo, cache_dir)
    if (*may_lack, *filenames) and not local_files_only:
        _reach(repo, (*may_lack, *filenames)[0], revision, cache_dir)
    # The optional files are small: an interrupted download should lack the weights, not them.
    for name in (*may_lack, *filenames):
        try:
            path = _file(repo, name, revision, cache_dir, local_files_only)
        except AbsentError:
            if name in may_lack:
                continue
            raise
        folder = path.parents[len(Path(name).parts) - 1]
        revision = folder.name  # a branch may move between two files; its commit does not
    if folder is None:
        raise SourceError(f"nothing was asked of {repo}")
    return folder


def _cache(repo: str, chosen: Path | None) -> Path | None:
    """The chosen cache, None for huggingface_hub's own; either may be said to lie in a home folder that there is not."""
    with extra("cpu", f"Fetching {repo}"):
        from huggingface_hub import constants
    try:
        if chosen is None:
            Path(constants.HF_HUB_CACHE).expanduser()  # it would make a folder "~" in the current one
            return None
        return chosen.expanduser()
    except RuntimeError:
        raise SourceError(
            f"{repo} cannot be kept: the cache is in a home folder, and this user has none; set HF_HOME or HOME, "
            "or give a cache folder"
        ) from None


def _reach(repo: str, name: str, revision: str | None, cache_dir: Path | None) -> None:
    """Ask the hub once for a file of which nothing is cached: hf_hub_download would try for half a minute.

    A name such as `models/x` may be meant as a folder, and there may be no network: then this is said at once.
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
        return  # it answers, or will never; the download says what is wrong
    except Exception as error:  # errors of the HTTP library, and which library it is has changed twice
        raise SourceError(
            f"{name} of {repo} at revision {revision or 'main'} is not in the cache and the network was not reachable "
            f"({error}); no folder {repo} is here either: check the name, or download it once while online"
        ) from error


class AbsentError(SourceError):
    """The repository, or the cache where it alone may be asked, does not hold the file."""


def file_names(repo: str, revision: str | None) -> list[str]:
    """Paths of all files of a hub repository, or none where the hub does not tell; asked only to explain an error."""
    try:
        from huggingface_hub import HfApi

        return HfApi().list_repo_files(repo, revision=revision)
    except Exception:  # whatever it is, the error that it was to explain is raised
        return []


def _file(repo: str, name: str, revision: str | None, cache_dir: Path | None, local_files_only: bool) -> Path:
    with extra("cpu", f"Fetching {repo}"):
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
        f"{name} of {at} is not in the cache and the network was not allowed or not reachable: "
        f"download it once while online, or give a local folder (there is none of the name {repo})"
    )
    offline = local_files_only or constants.HF_HUB_OFFLINE
    # Even for a cached file hf_hub_download asks the hub for a list of coding agents, its telemetry: look first.
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
        raise SourceError(f"{repo} has no revision {revision}: give a commit, tag or branch of it") from error
    except EntryNotFoundError as error:
        raise AbsentError(f"{at} holds no {name}") from error
    except Exception as error:  # errors of the HTTP library pass through, and which library it is has changed twice
        raise SourceError(f"{name} of {at} could not be downloaded: {error}") from error


def _cached(repo: str, name: str, revision: str | None, cache_dir: Path | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repo, name, cache_dir=cache_dir, revision=revision)
    except HFValidationError as error:
        raise SourceError(f"{repo} is not a hub name: {error}") from error
    if found is None or isinstance(found, str):
        return Path(found) if found else None
    raise AbsentError(f"{repo} at revision {revision} holds no {name}")  # huggingface_hub keeps note of that
