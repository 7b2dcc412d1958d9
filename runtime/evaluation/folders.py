"""Retrieval sets on disk: a folder in the layout of BEIR, or the two folders per language of MIRACL.

| | BEIR | MIRACL, language L |
|---|---|---|
| queries | `queries.jsonl`: `_id`, `text` | `miracl-v1.0-L/topics/*-dev.tsv`: id, text |
| judgements | `qrels/test.tsv`: a header; query, document, score | `miracl-v1.0-L/qrels/*-dev.tsv`: query, Q0, document, score |
| documents | `corpus.jsonl`: `_id`, `title`, `text` | `miracl-corpus-v1.0-L/docs-*.jsonl.gz`: `docid`, `title`, `text` |

Every file may be gzipped (`.gz`); columns are separated by tabs. The corpus folder of MIRACL is next to the other folder, or in a
folder `miracl-corpus` next to its parent (the layout of the two cloned repositories), or its files are in the same folder.
"""

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from moembed.errors import InputError
from moembed.evaluation.text_lines import json_objects, numbered_lines, string_field

Judgements = dict[str, dict[str, int]]


class Document(NamedTuple):
    """Document: its id, its text (title, a space, body), and its file and line."""

    id: str
    text: str
    path: Path
    line: int


def is_retrieval(folder: Path) -> bool:
    """Check whether the folder looks like a retrieval set, even an incomplete one."""
    marks = ("queries.jsonl", "queries.jsonl.gz", "corpus.jsonl", "corpus.jsonl.gz", "topics", "qrels")
    return any((folder / name).exists() for name in marks)


def query_files(folder: Path, split: str | None) -> tuple[Path, Path]:
    """Return the files of queries and of judgements of a split (default: `test`; `dev` for MIRACL, whose test is not public).

    Raises:
        InputError: one of them is missing.
    """
    if (folder / "topics").is_dir():
        split = split or "dev"
        return _one(folder / "topics", f"*-{split}.tsv"), _one(folder / "qrels", f"*-{split}.tsv")
    return _one(folder, "queries.jsonl"), _one(folder / "qrels", f"{split or 'test'}.tsv")


def corpus_files(folder: Path) -> tuple[Path, ...]:
    """Return the files of documents, in order.

    Raises:
        InputError: no file is found.
    """
    folders = [folder]
    corpus_name = folder.name.replace("miracl-v1.0-", "miracl-corpus-v1.0-")
    if corpus_name != folder.name:
        folders += [folder.parent / corpus_name, folder.parent.parent / "miracl-corpus" / corpus_name]
    for candidate in folders:
        for pattern in ("corpus.jsonl", "docs-*.jsonl"):
            if found := _matches(candidate, pattern):
                return tuple(sorted(found, key=lambda path: (len(path.name), path.name)))  # docs-2 before docs-10
    raise InputError(f"no corpus.jsonl and no docs-*.jsonl.gz in {', '.join(map(str, folders))}")


def read_queries(path: Path) -> dict[str, str]:
    """Read query id -> text, from `.jsonl` or `.tsv`.

    Raises:
        InputError: a line is malformed or an id occurs twice.
    """
    queries: dict[str, str] = {}
    for number, name, text in _queries(path):
        if name in queries:
            raise InputError(f"{path}:{number}: query id {name!r} occurs twice")
        queries[name] = text
    return queries


def read_judgements(path: Path) -> Judgements:
    """Read query id -> document id -> score, in BEIR's three columns or TREC's four.

    Raises:
        InputError: a line is malformed, a pair is judged twice, or the file is empty.
    """
    judged: Judgements = {}
    for number, line in numbered_lines(path):
        fields = line.split("\t") if line.count("\t") >= 2 else line.split()
        if number == 1 and len(fields) == 3 and fields[2].strip().lower() == "score":
            continue
        if len(fields) not in (3, 4):
            raise InputError(
                f"{path}:{number}: expected query-id, corpus-id and score, or TREC's four columns; found {line!r}"
            )
        query, document, score = fields[0].strip(), fields[-2].strip(), fields[-1].strip()
        try:
            value = int(score)
        except ValueError:
            raise InputError(f"{path}:{number}: score {score!r} is not an integer") from None
        if document in judged.setdefault(query, {}):
            raise InputError(f"{path}:{number}: document {document!r} is judged twice for query {query!r}")
        judged[query][document] = value
    if not judged:
        raise InputError(f"{path} has no judgements")
    return judged


def documents(files: tuple[Path, ...]) -> Iterator[Document]:
    """Read a corpus, one document at a time.

    Raises:
        InputError: a line is malformed.
    """
    for path in files:
        for number, record in json_objects(path):
            name = string_field(record, "_id" if "_id" in record else "docid", path, number)
            title = string_field(record, "title", path, number) if record.get("title") else ""
            yield Document(name, f"{title} {string_field(record, 'text', path, number)}".strip(), path, number)


def check_corpus(files: tuple[Path, ...], wanted: set[str]) -> tuple[int, set[str]]:
    """Read a whole corpus, so that a malformed line is found before hours of embedding; takes 8 bytes per document.

    Returns:
        The number of documents, and the ids of `wanted` that are missing.

    Raises:
        InputError: a line is malformed, an id occurs twice, or the corpus is empty.
    """
    missing, hashes = set(wanted), array("q")
    for document in documents(files):
        missing.discard(document.id)
        hashes.append(hash(document.id))
    if not hashes:
        raise InputError(f"{', '.join(map(str, files))}: the corpus is empty")
    ordered = np.sort(np.frombuffer(hashes, np.int64))
    if suspects := set(ordered[1:][ordered[1:] == ordered[:-1]].tolist()):
        _check_duplicates(files, suspects)
    return len(hashes), missing


def _check_duplicates(files: tuple[Path, ...], suspects: set[int]) -> None:
    # Equal hashes are almost always equal ids; only comparing the ids proves it.
    seen: dict[str, Document] = {}
    for document in documents(files):
        if hash(document.id) not in suspects:
            continue
        if first := seen.get(document.id):
            raise InputError(
                f"{document.path}:{document.line}: document id {document.id!r} occurs twice, first in "
                f"{first.path}:{first.line}"
            )
        seen[document.id] = document


def _queries(path: Path) -> Iterator[tuple[int, str, str]]:
    if ".jsonl" in path.suffixes:
        for number, record in json_objects(path):
            yield number, string_field(record, "_id", path, number), string_field(record, "text", path, number)
        return
    for number, line in numbered_lines(path):
        name, tab, text = line.partition("\t")
        if not tab:
            raise InputError(f"{path}:{number}: expected id TAB query, found {line!r}")
        yield number, name.strip(), text


def _matches(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern)) or sorted(folder.glob(pattern + ".gz"))


def _one(folder: Path, pattern: str) -> Path:
    found = _matches(folder, pattern)
    if len(found) != 1:
        there = ", ".join(sorted(path.name for path in folder.glob("*"))[:8]) or "nothing"
        what = f"{len(found)} files {pattern}" if found else f"no {pattern}"
        raise InputError(f"{what} in {folder} (found {there})")
    return found[0]
