"""`moembed search`."""

import argparse
import hashlib
import json
import unicodedata
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moembed.cli.common import Subparsers, add_model, emit, log, open_embedder
from moembed.errors import InputError
from moembed.files.paths import cache_file, readable
from moembed.progress import progress
from moembed.search.passages import Passage, passages
from moembed.search.text_files import Skipped

if TYPE_CHECKING:
    from moembed.embedder import Embedder
    from moembed.search.store import VectorStore, Window

_MAX_LINES = 6
_MAX_SKIPPED = 5
_SAVE_EVERY = 64


def add_parser(commands: "Subparsers[Any]") -> argparse.ArgumentParser:
    """Define the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "search",
        help="search text files for passages that answer a question",
        description="Embed the paragraphs of text and Markdown files, and print those that answer the query best. Vectors are "
        "kept in the user's cache, so that a repeated search embeds only changed passages.",
    )
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="a file, or a folder with .md, .txt and .rst files"
    )
    parser.add_argument("query", metavar="QUERY", help="question or keywords")
    parser.add_argument(
        "-k", "--top-k", type=int, default=5, metavar="N", help="number of passages to print (default: 5)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.add_argument("--no-cache", action="store_true", help="do not read or write the cache")
    add_model(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Search the files and print the best passages."""
    import numpy as np

    from moembed.search.store import VectorStore

    if arguments.top_k < 1:
        raise InputError(f"--top-k {arguments.top_k}: expected at least 1")
    skipped: list[Skipped] = []
    found = list(passages(arguments.paths, skipped=skipped.append))
    if skipped:
        log(_summary(skipped))
    if not found:
        raise InputError(
            f"no text found in {', '.join(map(str, arguments.paths))} (searched .md, .markdown, .txt and .rst files)"
        )
    embedder = open_embedder(arguments)
    query = embedder.encode_query(unicodedata.normalize("NFC", arguments.query))
    path = None if arguments.no_cache else cache_file("search.sqlite3")
    if path is None and not arguments.no_cache:
        log("moembed: vectors are not kept: this user has no home folder; set MOEMBED_CACHE to a folder to keep them")
    with VectorStore(path, log=lambda text: log(f"moembed: {text}")) as store:
        windows = _windows(embedder, store, found)
    rows = [(passage, window) for passage, some in zip(found, windows, strict=True) for window in some]
    scores = np.array([vector @ query for _, (_, _, vector) in rows])
    order = np.argsort(-scores, kind="stable")[: arguments.top_k]
    for rank, index in enumerate(order, 1):
        passage, (start, end, _) = rows[index]
        _print(rank, float(scores[index]), passage, passage.text[start:end], start, as_json=arguments.json)
    return 0


def _windows(embedder: "Embedder", store: "VectorStore", found: Sequence[Passage]) -> list[list["Window"]]:
    """Return the windows of each passage, from the store or computed now; their spans count from the passage's text."""
    from moembed.stamps.making import stamp_of
    from moembed.stamps.stamp import deciding

    prompt = embedder.prompt_for("document")
    stamp = deciding(stamp_of(embedder, prompt, overlong="chunk"))
    keys = [_key(stamp, passage) for passage in found]
    known = store.read(set(keys), embedder.dim)
    fresh = list({key: passage for key, passage in zip(keys, found, strict=True) if key not in known}.items())
    with progress(len(fresh), "passage", show=None) as advance:
        for first in range(0, len(fresh), _SAVE_EVERY):
            part = fresh[first : first + _SAVE_EVERY]
            texts = [f"{p.heading}\n{p.text}" if p.heading else p.text for _, p in part]
            results = embedder.embed(texts, prompt=prompt, overlong="chunk")
            for index, group in groupby(results, key=lambda result: result.index):
                key, passage = part[index]
                lead = len(texts[index]) - len(passage.text)  # characters of the heading
                known[key] = [(max(r.start - lead, 0), max(r.end - lead, 0), r.vector) for r in group]
            store.write((key, known[key]) for key, _ in part)
            advance(len(part))
    log(f"moembed: {len(found)} passages, {len(fresh)} embedded now")
    return [known[key] for key in keys]


def _key(stamp: dict[str, object], passage: Passage) -> bytes:
    """Return a digest of everything that the windows of a passage depend on."""
    return hashlib.sha256(json.dumps([stamp, passage.heading, passage.text]).encode()).digest()


def _summary(skipped: Sequence[Skipped]) -> str:
    listed = ", ".join(f"{readable(one.path)} ({one.reason})" for one in skipped[:_MAX_SKIPPED])
    more = f" and {len(skipped) - _MAX_SKIPPED} more" if len(skipped) > _MAX_SKIPPED else ""
    return f"moembed: skipped files that are not text: {listed}{more}"


def _print(rank: int, score: float, passage: Passage, text: str, start: int, *, as_json: bool) -> None:
    line = passage.line + passage.text.count("\n", 0, start)
    if as_json:
        record = {
            "rank": rank,
            "score": round(score, 6),
            "path": readable(passage.path),
            "line": line,
            "heading": passage.heading,
        }
        emit(json.dumps(record | {"text": text}, ensure_ascii=False))
        return
    emit(f"{score:.3f}  {readable(passage.path)}:{line}" + (f"  ({passage.heading})" if passage.heading else ""))
    lines = text.strip("\n").splitlines()
    for shown in lines[:_MAX_LINES]:
        emit(f"       {shown}")
    if len(lines) > _MAX_LINES:
        emit(f"       … {len(lines) - _MAX_LINES} more lines")
