"""Files from a hub by name, through huggingface_hub: its cache first, its offline switches respected.

huggingface_hub comes with `tokenizers` and is imported only here, when a name rather than a folder is asked for.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from moembed.errors import MissingExtraError, SourceError

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def is_hub_name(source: str) -> bool:
    """Whether a string has the form `owner/name`."""
    return _NAME.fullmatch(source) is not None


def fetch(
    repo: str,
    filenames: Iterable[str],
    *,
    revision: str | None,
    cache_dir: Path | None,
    local_files_only: bool,
) -> Path:
    """Bring files of a hub repository into the local cache.

    Args:
        repo: `owner/name`.
        filenames: paths inside the repository.
        revision: commit, tag or branch; None is the default branch.
        cache_dir: the cache, or None for huggingface_hub's own.
        local_files_only: never touch the network.

    Returns:
        The snapshot folder that holds the files.

    Raises:
        SourceError: a file, the revision or the repository cannot be had.
        MissingExtraError: huggingface_hub is not installed.
    """
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError:
        raise MissingExtraError("huggingface_hub", "cpu", f"Fetching {repo}") from None
    at = f"{repo} at revision {revision or 'main'}"
    folder = None
    for name in filenames:
        try:
            path = hf_hub_download(
                repo, name, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
            )
        except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
            raise SourceError(
                f"{name} of {at} is not in the cache and the network was not allowed or not reachable: "
                "download it once while online, or give a local folder"
            ) from error
        except RepositoryNotFoundError as error:
            raise SourceError(f"no repository {repo} on the hub (or it is private and no token is set)") from error
        except RevisionNotFoundError as error:
            raise SourceError(f"{repo} has no revision {revision}: give a commit, tag or branch of it") from error
        except EntryNotFoundError as error:
            raise SourceError(f"{at} holds no {name}") from error
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise SourceError(f"{name} of {at} could not be downloaded: {error}") from error
        folder = Path(path)
        for _ in Path(name).parts:
            folder = folder.parent
    if folder is None:
        raise SourceError(f"nothing was asked of {at}")
    return folder
