"""Datasets by name: groups, folders, files, and QUERIES:CORPUS.

A name is a group of `groups.toml`, a path relative to the data root with or without its suffix, or any path. A folder of pair
files (STS, bitext) is a group of its files. `xquad-de:xquad-en` searches the corpus of one retrieval set with the queries and
judgements of another whose ids are the same: retrieval across languages.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Protocol, TypeVar

from moembed.errors import InputError
from moembed.evaluation.folders import corpus_files, is_retrieval, query_files
from moembed.evaluation.pairs import SUFFIXES, pair_files, read_pairs, stem
from moembed.evaluation.tasks import Retrieval, Task
from moembed.files.records import read_toml

ROOT_VARIABLE = "MOEMBED_DATASETS"
_MIRACL = re.compile(r"miracl-(\w+)")


@dataclass(frozen=True)
class Dataset:
    """Task, or group of datasets whose figures are averaged."""

    name: str
    task: Task | None = None
    members: tuple["Dataset", ...] = ()

    def tasks(self) -> Iterator[Task]:
        """Yield all tasks, in order."""
        if self.task:
            yield self.task
        for member in self.members:
            yield from member.tasks()


class _OfKind(Protocol):
    @property
    def kind(self) -> str: ...


_Found = TypeVar("_Found", bound=_OfKind)


def group_means(
    datasets: Sequence[Dataset], found: Mapping[str, _Found], mean: Callable[[str, Sequence[_Found]], _Found]
) -> Iterator[_Found]:
    """Yield the mean of every group whose members are of one kind; a nested group counts once.

    Args:
        datasets: tasks and groups.
        found: what was measured, by the name of the task.
        mean: returns that of a group, from its name and the results of its members.
    """

    def of(dataset: Dataset) -> _Found | None:
        if dataset.task:
            return found.get(dataset.name)
        parts = [part for member in dataset.members if (part := of(member)) is not None]
        if len(parts) < len(dataset.members) or len({part.kind for part in parts}) != 1:
            return None
        return mean(dataset.name, parts)

    for dataset in datasets:
        if dataset.members:
            yield from group_means(dataset.members, found, mean)
            if (whole := of(dataset)) is not None:
                yield whole


@dataclass(frozen=True)
class PublishedSet:
    """Properties of a published set that differ from the usual ones.

    Attributes:
        split: of the judgements, if not the usual one.
        absent: judged documents that are missing from the published corpus.
    """

    split: str | None = None
    absent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Published:
    """Published benchmarks, the content of `groups.toml`.

    Attributes:
        same_id_is_query: sets in which a document with the query's id is not a result.
        groups: names of the members of each group.
        sets: sets that differ from the usual, by name.
        versions: counts of the version that published figures are of, by name: of retrieval numbers of documents, judged queries
            and judgements, of pairs their number.
    """

    same_id_is_query: tuple[str, ...]
    groups: dict[str, tuple[str, ...]]
    sets: dict[str, PublishedSet]
    versions: dict[str, tuple[int, ...]]


@cache
def published() -> Published:
    """Read `groups.toml`."""
    text = resources.files("moembed.evaluation").joinpath("groups.toml").read_text("utf-8")
    return read_toml(
        Published, text, "groups.toml", error=InputError, remedy="install moembed again", use_defaults=True
    )


def find(names: Sequence[str], root: Path | None, *, allow_absent: bool = False) -> list[Dataset]:
    """Find all datasets; pair files are read, the files of retrieval sets are only located.

    Args:
        names: groups, names, paths, or QUERIES:CORPUS.
        root: folder that names are relative to, or None.
        allow_absent: whether documents that are judged relevant may be missing from a corpus.

    Raises:
        InputError: a dataset is missing or not usable; the error lists all of them, with the paths that were tried.
    """
    problems: list[str] = []
    found = [_find(name, root, allow_absent, problems) for name in names]
    if not problems:
        return found
    if root is None:
        problems.append(f"names are relative to --data FOLDER or ${ROOT_VARIABLE}, and neither is set")
    raise InputError(problems[0] if len(problems) == 1 else "\n  ".join(["these datasets cannot be used:", *problems]))


def _find(name: str, root: Path | None, allow_absent: bool, problems: list[str]) -> Dataset:
    if members := published().groups.get(name):
        return Dataset(name, members=tuple(_find(member, root, allow_absent, problems) for member in members))
    try:
        return _open(name, root, allow_absent)
    except InputError as error:
        problems.append(f"{name}: {error}")
        return Dataset(name)


def _open(name: str, root: Path | None, allow_absent: bool) -> Dataset:
    # A colon before a slash or backslash is part of a path (C:\data).
    queries_name, *other = re.split(r":(?![\\/])", name, maxsplit=1)
    path = _locate(queries_name, root)
    if path.is_file():
        if other:
            raise InputError(f"QUERIES:CORPUS takes two retrieval sets, found the file {path}")
        return Dataset(name, read_pairs(name, path))
    if not is_retrieval(path) and not other and (files := pair_files(path)):
        members = ((f"{name}/{stem(file)}", file) for file in files)
        return Dataset(name, members=tuple(Dataset(member, read_pairs(member, file)) for member, file in members))
    known = _published_name(path)
    published_set = published().sets.get(known or "", PublishedSet())
    queries, judgements = query_files(path, published_set.split)
    return Dataset(
        name,
        Retrieval(
            name,
            queries,
            judgements,
            corpus_files(_locate(other[0], root) if other else path),
            same_id_is_query=known in published().same_id_is_query,
            absent=None if allow_absent else frozenset(published_set.absent),
        ),
    )


def _locate(name: str, root: Path | None) -> Path:
    folders = [folder for folder in (root, Path()) if folder is not None]
    candidates = list(dict.fromkeys(candidate for folder in folders for candidate in _candidates(folder, name)))
    for candidate in candidates:
        if candidate.exists():
            return candidate
    shown = ", ".join(
        str(candidate) for candidate in candidates if not candidate.name.endswith(SUFFIXES) or name.endswith(SUFFIXES)
    )
    raise InputError(f"no such folder or file: looked for {shown}")


def _candidates(folder: Path, name: str) -> list[Path]:
    candidates = [folder / name, *(folder / f"{name}{suffix}" for suffix in SUFFIXES)]
    if match := _MIRACL.fullmatch(name):
        candidates += [folder / f"miracl-v1.0-{match[1]}", folder / "miracl" / f"miracl-v1.0-{match[1]}"]
    return candidates


def _published_name(path: Path) -> str | None:
    """Return the published name of a folder, from the end of its path."""
    names = [*published().sets, *published().same_id_is_query]
    return next((name for name in names if f"/{path.absolute().as_posix()}".endswith(f"/{name}")), None)
