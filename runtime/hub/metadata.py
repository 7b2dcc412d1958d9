"""Facts that a hub states about a file before it sends it: commit, size and digest; and the list of a repository's files."""

import json
import re
from dataclasses import dataclass
from urllib.parse import quote

from moembed.errors import SourceError
from moembed.hub.client import Answer, Client, refuse_web_page
from moembed.hub.download import Source
from moembed.hub.names import is_commit
from moembed.hub.transport import header, origin

_SHA256, _SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")
_MAX_LISTING = 8 << 20  # bytes
_NO_HEAD = (405, 501)


@dataclass(frozen=True)
class Metadata:
    """Answer of the hub to a HEAD request.

    Attributes:
        source: the file at its commit.
        commit: commit of the revision.
        blob: name of the file in huggingface_hub's cache; None if the hub states no usable ETag.
    """

    source: Source
    commit: str
    blob: str | None


def look_up(client: Client, repo: str, file: str, revision: str | None) -> Metadata:
    """Ask the hub for a file without its content.

    Args:
        client: the hub.
        repo: `owner/name`.
        file: path in the repository.
        revision: commit, tag or branch; None for the default branch.

    Raises:
        AbsentError: the repository does not hold the file.
        UnreachableError: the hub does not answer.
        SourceError: it refuses, or does not state the commit.
    """
    named = revision or "main"
    answer = client.ask("HEAD", _address(client, repo, named, file))
    status = answer.response.status
    answer.response.close()
    if status >= 400 and not _answers_no_head(client, answer):
        raise client.refusal(answer, file, repo, named)
    commit = answer.hub_headers.get("x-repo-commit", "")
    from_hub = is_commit(commit)
    if not from_hub:
        refuse_web_page(answer, file, repo)
        if not is_commit(revision):
            raise SourceError(
                f"{answer.host} does not send the header X-Repo-Commit, so that the commit of {named} of {repo} is unknown: pass "
                "a commit as the revision, or name another mirror in HF_ENDPOINT"
            )
    elif is_commit(revision) and commit != revision:
        raise SourceError(
            f"{answer.host} answered with the commit {commit} of {repo} in place of {revision}: check HF_ENDPOINT"
        )
    else:
        revision = commit
    etag = _plain(answer.hub_headers.get("x-linked-etag") or answer.hub_headers.get("etag"))
    return Metadata(
        Source(
            address=_address(client, repo, str(revision), file),
            file=file,
            repo=repo,
            revision=str(revision),
            size=_size(answer),
            sha256=etag if from_hub and _SHA256.fullmatch(etag) else None,
            git_sha1=etag if from_hub and _SHA1.fullmatch(etag) else None,
        ),
        str(revision),
        etag if from_hub and (_SHA256.fullmatch(etag) or _SHA1.fullmatch(etag)) else None,
    )


def list_files(client: Client, repo: str, revision: str | None) -> list[str]:
    """List the files of a repository, to explain an error; empty if the hub does not answer."""
    address = f"{client.endpoint}/api/models/{repo}/tree/{quote(revision or 'main', safe='')}?recursive=true"
    try:
        with client.open("GET", address).response as response:
            found = json.loads(response.read(_MAX_LISTING)) if response.status == 200 else []
        return [str(entry["path"]) for entry in found if entry["type"] == "file"]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _answers_no_head(client: Client, answer: Answer) -> bool:
    """Check whether a host refuses HEAD requests as such: a simple mirror, or a storage whose signed addresses are for GET."""
    stored = origin(answer.address) != origin(client.endpoint) and "x-error-code" not in answer.hub_headers
    return answer.response.status in ((403, *_NO_HEAD) if stored else _NO_HEAD)


def _address(client: Client, repo: str, revision: str, file: str) -> str:
    return f"{client.endpoint}/{repo}/resolve/{quote(revision, safe='')}/{quote(file)}"


def _plain(etag: str | None) -> str:
    """Return an ETag without quotes and the mark of a weak one, which some proxies add."""
    return (etag or "").strip().removeprefix("W/").strip('"')


def _size(answer: Answer) -> int | None:
    text = answer.hub_headers.get("x-linked-size")
    if text is None and answer.response.status == 200:
        text = header(answer.response.headers, "Content-Length")
    return int(text) if text and text.isascii() and text.isdigit() else None
