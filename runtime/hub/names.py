"""Names of models on a hub, as people type them: `owner/name`, a web address, or either with spaces or a slash too many."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from urllib.parse import unquote, urlsplit

from moembed.errors import SourceError, shown
from moembed.hub.access import DEFAULT_ENDPOINT, endpoint

_SHAPE = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REVISION = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.+/-]*[A-Za-z0-9_+-])?")
_SCHEME = re.compile(r"https?://", re.IGNORECASE)
# Hosts of the public hub, with or without `https://` in front.
_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
# First part of the address of something that is not a model.
_OTHER_KINDS = ("datasets", "spaces", "collections", "papers", "docs", "blog", "kernels", "buckets")
_MAX_LENGTH = 96  # characters of a name, the hub's own limit


@dataclass(frozen=True)
class HubName:
    """Repository on a hub.

    Attributes:
        repo: `owner/name`.
        revision: commit, tag or branch; None for the default branch.
    """

    repo: str
    revision: str | None = None


def parse(source: str, revision: str | None = None, *, known: Iterable[str] = ()) -> HubName | None:
    """Parse what a user typed as the name of a model.

    Args:
        source: `owner/name`, or a web address such as `https://huggingface.co/owner/name/tree/v1`.
        revision: commit, tag or branch that was passed beside it.
        known: names whose capitals are corrected.

    Returns:
        The repository, or None if the text has another form and may be a path. Nothing is asked of the network.

    Raises:
        SourceError: the text is an address of something else, or the name or the revision is invalid.
    """
    text = source.strip()
    path = _path_of(text)
    if path is not None:
        repo, found = _from_address(path, source)
        if None not in (found, revision) and found != revision:
            raise SourceError(
                f"{shown(source)} names the revision {found}, but revision = {shown(revision)} was passed too"
            )
        revision = found or revision
    else:
        repo = text.rstrip("/") if not text.startswith("/") else text
        if _SHAPE.fullmatch(repo) is None or {".", ".."} & set(repo.split("/")):
            return None
    repo = next((name for name in known if name.casefold() == repo.casefold()), repo)
    _check_repo(repo)
    if revision is not None:
        check_revision(repo, revision)
    return HubName(repo, revision)


def is_commit(revision: str | None) -> bool:
    """Check whether a revision is a full commit, which never changes."""
    return _COMMIT.fullmatch(revision or "") is not None


def check_revision(repo: str, revision: str) -> None:
    """Make sure that a revision is safe as part of a path and of an address.

    Raises:
        SourceError: it is not a name of a commit, tag or branch.
    """
    parts = revision.split("/")
    if _REVISION.fullmatch(revision) is None or ".." in revision or any(not part or part[0] == "." for part in parts):
        raise SourceError(
            f"revision = {shown(revision)} of {repo} is not the name of a commit, tag or branch, such as 'main' or 'refs/pr/1'"
        )


def check_file_name(repo: str, name: str) -> None:
    """Make sure that a file of a repository stays inside any folder that it is written to.

    Raises:
        SourceError: the name is absolute, leaves the folder, or means something else on another system.
    """
    path, other = PurePosixPath(name), PureWindowsPath(name)
    if (
        path.as_posix() != name
        or ".." in path.parts
        or other.anchor
        or "\\" in name
        or ":" in name
        or not name.isprintable()
    ):
        raise SourceError(
            f"{repo} names the file {shown(name)}, which is not a path inside its folder: it is not fetched"
        )


def _path_of(text: str) -> str | None:
    """Return the path of a web address on the public hub or on `HF_ENDPOINT`; None if the text is no address."""
    if text.startswith("hf://"):
        repo, at, revision = text.removeprefix("hf://").partition("@")
        return f"{repo}/tree/{revision}" if at else repo
    if _SCHEME.match(text) is None:
        host, slash, path = text.partition("/")
        return path if slash and host.lower() in _HOSTS else None
    own, address = urlsplit(endpoint()), urlsplit(text)
    prefix = own.path.strip("/")
    path = address.path.strip("/")
    if address.netloc.rpartition("@")[2].lower() == own.netloc.lower() and (f"{path}/").startswith(
        f"{prefix}/" if prefix else ""
    ):
        return path.removeprefix(prefix).strip("/")
    if address.hostname in _HOSTS:
        return path
    raise SourceError(
        f"{shown(address.hostname or text)} is not the hub ({own.netloc or DEFAULT_ENDPOINT}): pass owner/name, and name "
        "another hub in HF_ENDPOINT"
    )


def _from_address(path: str, source: str) -> tuple[str, str | None]:
    parts = [unquote(part) for part in path.split("?")[0].split("#")[0].strip("/").split("/")]
    if parts[0] == "models" and len(parts) > 2:
        parts = parts[1:]
    if len(parts) < 2 or parts[0] in _OTHER_KINDS:
        raise SourceError(f"{shown(source)} is not the address of a model: pass owner/name")
    repo, kind, rest = "/".join(parts[:2]), "".join(parts[2:3]), parts[3:]
    if not kind:
        return repo, None
    length = 3 if rest[:1] == ["refs"] else 1
    revision, inside = "/".join(rest[:length]), rest[length:]
    if kind not in ("tree", "blob", "resolve", "commit") or not revision:
        if kind in ("discussions", "commits", "files"):
            return repo, None
        raise SourceError(f"{shown(source)} is not the address of a model: pass owner/name")
    if inside and kind == "tree":
        raise SourceError(f"{shown(source)} names a folder inside {repo}: pass {repo}, whose model is at its top")
    return repo, revision


def _check_repo(repo: str) -> None:
    owner, _, name = repo.partition("/")
    problem = next(
        (
            problem
            for broken, problem in (
                (len(repo) > _MAX_LENGTH, f"it has {len(repo)} characters, more than {_MAX_LENGTH}"),
                ("--" in repo or ".." in repo, "it contains -- or .."),
                (not (_PART.fullmatch(owner) and _PART.fullmatch(name)), "a part of it begins or ends with - or ."),
                (repo.endswith(".git"), "it ends with .git"),
            )
            if broken
        ),
        None,
    )
    if problem:
        raise SourceError(f"{repo} is not a valid hub name: {problem}")
