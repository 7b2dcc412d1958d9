"""`moembed search`."""

import argparse
import hashlib
import json
import unicodedata
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moembed.cli.common import Subparsers, add_model, emit, open_embedder, say
from moembed.errors import InputError
from moembed.files.paths import cache_file, readable
from moembed.progress import progress
from moembed.search.passages import Passage, passages
from moembed.search.text_files import Skipped
from moembed.truncation import Chunk

if TYPE_CHECKING:
    from moembed.embedder import Embedder
    from moembed.search.store import VectorStore, Window

_SHOWN_LINES = 6
_SHOWN_SKIPPED = 5
_SAVED_AT_ONCE = 64


def add_parser(commands: "Subparsers[Any]") -> argparse.ArgumentParser:
    """Describe the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "search",
        help="the passages of your files that answer a question",
        description="Embed the paragraphs of the text and Markdown files under the paths, and print those that answer the query "
        "best. Vectors are kept in the user's cache, so that a repeated search embeds only what changed.",
    )
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="file, or folder with .md, .txt and .rst files"
    )
    parser.add_argument("query", metavar="QUERY", help="what to look for")
    parser.add_argument("-k", "--top-k", type=int, default=5, metavar="N", help="passages to print (default: 5)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--no-cache", action="store_true", help="neither read nor write the cache")
    add_model(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Search."""
    import numpy as np

    from moembed.search.store import VectorStore

    if arguments.top_k < 1:
        raise InputError(f"--top-k {arguments.top_k}: expected at least 1")
    skipped: list[Skipped] = []
    found = list(passages(arguments.paths, skipped=skipped.append))
    if skipped:
        say(_summary(skipped))
    if not found:
        raise InputError(
            f"no text in {', '.join(map(str, arguments.paths))} (looked for .md, .markdown, .txt and .rst files)"
        )
    embedder = open_embedder(arguments)
    query = embedder.encode_query(unicodedata.normalize("NFC", arguments.query))
    path = None if arguments.no_cache else cache_file("search.sqlite3")
    if path is None and not arguments.no_cache:
        say("moembed: vectors are not kept: this user has no home folder; MOEMBED_CACHE names a folder to keep them in")
    with VectorStore(path, log=lambda text: say(f"moembed: {text}")) as store:
        windows = _windows(embedder, store, found)
    rows = [(passage, window) for passage, own in zip(found, windows, strict=True) for window in own]
    scores = np.array([vector @ query for _, (_, _, vector) in rows])
    order = np.argsort(-scores, kind="stable")[: arguments.top_k]
    for rank, index in enumerate(order, 1):
        passage, (start, end, _) = rows[index]
        _print(rank, float(scores[index]), passage, passage.text[start:end], start, as_json=arguments.json)
    return 0


def _windows(embedder: "Embedder", store: "VectorStore", found: Sequence[Passage]) -> list[list["Window"]]:
    """The windows of every passage, from the store or freshly computed; spans are in the passage's own text."""
    prompt = embedder.prompt_for("document")
    model = embedder.bundle.fingerprint
    keys = [_key(model, prompt, passage) for passage in found]
    known = store.read(set(keys), embedder.dim)
    fresh = list({key: passage for key, passage in zip(keys, found, strict=True) if key not in known}.items())
    with progress(len(fresh), "passage", show=None) as advance:
        for first in range(0, len(fresh), _SAVED_AT_ONCE):
            part = fresh[first : first + _SAVED_AT_ONCE]
            texts = [f"{p.heading}\n{p.text}" if p.heading else p.text for _, p in part]
            results = embedder.embed(texts, prompt=prompt, overlong=Chunk(pooled=False))
            for index, group in groupby(results, key=lambda result: result.index):
                key, passage = part[index]
                lead = len(texts[index]) - len(passage.text)
                known[key] = [(max(r.start - lead, 0), max(r.end - lead, 0), r.vector) for r in group]
            store.write((key, known[key]) for key, _ in part)
            advance(len(part))
    say(f"moembed: {len(found)} passages, {len(fresh)} embedded now")
    return [known[key] for key in keys]


def _key(model: str, prompt: str, passage: Passage) -> bytes:
    """Digest of everything that a passage's windows depend on."""
    return hashlib.sha256(json.dumps([model, prompt, passage.heading, passage.text]).encode()).digest()


def _summary(skipped: Sequence[Skipped]) -> str:
    listed = ", ".join(f"{readable(one.path)} ({one.reason})" for one in skipped[:_SHOWN_SKIPPED])
    more = f" and {len(skipped) - _SHOWN_SKIPPED} more" if len(skipped) > _SHOWN_SKIPPED else ""
    return f"moembed: skipped what is not text: {listed}{more}"


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
    for shown in lines[:_SHOWN_LINES]:
        emit(f"       {shown}")
    if len(lines) > _SHOWN_LINES:
        emit(f"       … {len(lines) - _SHOWN_LINES} more lines")
