"""Late chunking against windows that are read alone: nDCG@10 on retrieval sets.

    python tests/benchmarks/late_chunking.py --data EVALUATION_SETS --windows cranfield-en --joined xquad-en ... --publish

`--windows`: documents are cut into windows, the same for both ways, and a document's score is that of its best window.
`--joined`: five documents that follow each other become one text with a span for each; in XQuAD they are paragraphs of one
article. Differences are in points, hundredths of nDCG@10, with the standard error of the mean of the paired differences.
Results are kept in the folder `--work`, so that an interrupted measurement goes on. `--publish` writes the tables into
docs/usage.md.
"""

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from blocks import ROOT, Block
from numpy.typing import NDArray

from moembed import Chunk, Embedder
from moembed.evaluation.folders import Judgements, corpus_files, documents, query_files, read_judgements, read_queries
from moembed.evaluation.metrics import DEPTH, Found, ranked_figures, standard_error

PAGE = ROOT / "docs" / "usage.md"
_COMMAND = (
    "python tests/benchmarks/late_chunking.py --data EVALUATION_SETS --windows cranfield-en "
    "--joined xquad-{ar,de,en,es,ru,zh} --publish"
)
WINDOWS = Block(PAGE, "late windows", _COMMAND)
JOINED = Block(PAGE, "late spans", _COMMAND)
WINDOW_TOKENS = (64, 128)
PARAGRAPHS, SEPARATOR = 5, "\n\n"
Floats = NDArray[np.float32]
Figures = NDArray[np.float64]  # nDCG@10 of each query


class Retrieval(NamedTuple):
    """Retrieval set.

    Attributes:
        names: ids of the documents.
        texts: their texts.
        queries: texts of the judged queries, by id.
        judged: judgements of these queries.
    """

    names: list[str]
    texts: list[str]
    queries: dict[str, str]
    judged: Judgements


class Windows(NamedTuple):
    """Windows of texts, in order.

    Attributes:
        owners: `[windows]` int64, the text of each, ascending, every text at least once.
        texts: text of each window.
        vectors: `[windows, dim]` float32.
    """

    owners: NDArray[np.int64]
    texts: list[str]
    vectors: Floats


def read(folder: Path) -> Retrieval:
    """Read the judged queries and all documents of a folder."""
    found = list(documents(corpus_files(folder)))
    of_queries, of_judgements = query_files(folder, None)
    asked, judged = read_queries(of_queries), read_judgements(of_judgements)
    return Retrieval(
        [one.id for one in found], [one.text for one in found], {name: asked[name] for name in judged}, judged
    )


def late(embedder: Embedder, texts: Sequence[str], policy: Chunk) -> Windows:
    """Embed texts by late chunking."""
    found = list(embedder.embed(texts, prompt=embedder.prompt_for("document"), overlong=policy))
    return Windows(
        np.array([one.index for one in found], np.int64),
        [one.text[one.start : one.end] for one in found],
        np.stack([one.vector for one in found]),
    )


def ndcg(queries: Floats, vectors: Floats, owners: NDArray[np.int64], own: Retrieval) -> Figures:
    """Return nDCG@10 of each query `[queries]`; the score of a document is that of its best window.

    Args:
        queries: `[queries, dim]`.
        vectors: `[windows, dim]`.
        owners: `[windows]`, the document of each window, ascending, every document at least once.
        own: names and judgements.
    """
    scores = (queries.astype(np.float64) @ vectors.astype(np.float64).T).astype(np.float32)
    best = np.maximum.reduceat(scores, np.searchsorted(owners, np.arange(len(own.names))), axis=1)
    order = np.argsort(-best, axis=1, kind="stable")[:, :DEPTH]
    found = {
        name: Found([own.names[column] for column in row], row_best[row])
        for name, row, row_best in zip(own.queries, order, best, strict=True)
    }
    each = ranked_figures(own.judged, found).each
    assert each is not None
    return each


def joined(texts: Sequence[str]) -> tuple[list[str], dict[str, list[tuple[int, int]]]]:
    """Join every five texts, and return the joined ones and the span of each part."""
    together: list[str] = []
    spans: dict[str, list[tuple[int, int]]] = {}
    for first in range(0, len(texts), PARAGRAPHS):
        parts = texts[first : first + PARAGRAPHS]
        starts = np.cumsum([0, *(len(part) + len(SEPARATOR) for part in parts)])[:-1].tolist()
        together.append(SEPARATOR.join(parts))
        spans[together[-1]] = [(start, start + len(part)) for start, part in zip(starts, parts, strict=True)]
    return together, spans


class Keeper:
    """Keeps results in a folder under a digest of what they depend on.

    Attributes:
        folder: the folder; None to keep nothing.
        model: digest of the model.
    """

    def __init__(self, folder: Path | None, model: str) -> None:
        self.folder, self.model = folder, model

    def kept(self, make: Callable[[], dict[str, Figures]], *about: object) -> dict[str, Figures]:
        """Return what `make` returns, or what it returned for the same arguments and model before."""
        if self.folder is None:
            return make()
        digest = hashlib.sha256(json.dumps([self.model, *about], default=str).encode()).hexdigest()
        path = self.folder / f"{digest[:32]}.npz"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            with path.with_suffix(".partial").open("wb") as out:
                np.savez(out, **make())
            path.with_suffix(".partial").replace(path)
        with np.load(path, allow_pickle=False) as found:
            return dict(found)


def measure_whole(embedder: Embedder, own: Retrieval) -> dict[str, Figures]:
    """Return nDCG@10 of whole texts."""
    queries = embedder.encode_query(list(own.queries.values()), overlong="truncate")
    vectors = embedder.encode_document(own.texts, overlong="mean")
    return {"whole": ndcg(queries, vectors, np.arange(len(own.names)), own)}


def measure_windows(embedder: Embedder, own: Retrieval, tokens: int) -> dict[str, Figures]:
    """Return nDCG@10 of windows alone and of late windows, and the number of windows."""
    queries = embedder.encode_query(list(own.queries.values()), overlong="truncate")
    windows = late(embedder, own.texts, Chunk(late=True, tokens=tokens))
    alone = embedder.encode_document(windows.texts, overlong="truncate")
    return {
        "alone": ndcg(queries, alone, windows.owners, own),
        "late": ndcg(queries, windows.vectors, windows.owners, own),
        "windows": np.array(len(windows.texts), np.float64),
    }


def measure_joined(embedder: Embedder, own: Retrieval) -> dict[str, Figures]:
    """Return nDCG@10 of paragraphs alone and of spans in joined texts, and the number of joined texts."""
    queries = embedder.encode_query(list(own.queries.values()), overlong="truncate")
    together, spans = joined(own.texts)
    found = late(embedder, together, Chunk(late=True, spans=spans.__getitem__))
    rows = np.arange(len(own.names))
    return {
        "alone": ndcg(queries, embedder.encode_document(own.texts, overlong="mean"), rows, own),
        "late": ndcg(queries, found.vectors, rows, own),
        "texts": np.array(len(together), np.float64),
    }


def difference(one: Figures, other: Figures) -> str:
    """Return the mean of `one - other` in points, with its standard error."""
    return f"{100 * float((one - other).mean()):+.2f} ± {100 * standard_error(one, other):.2f}"


def window_rows(found: Mapping[tuple[str, int], tuple[Retrieval, dict[str, Figures]]]) -> Iterator[str]:
    """Yield the lines of the table of windows."""
    yield (
        "| set | documents | queries | tokens of a window | windows | whole text | windows alone | late windows "
        "| late - alone | late - whole |"
    )
    yield "|---" + "|---:" * 9 + "|"
    for (name, tokens), (own, each) in found.items():
        figures = " | ".join(f"{each[way].mean():.4f}" for way in ("whole", "alone", "late"))
        yield (
            f"| {name} | {len(own.names):,} | {len(own.queries):,} | {tokens} | {int(each['windows']):,} | {figures} "
            f"| {difference(each['late'], each['alone'])} | {difference(each['late'], each['whole'])} |"
        )


def joined_rows(found: Mapping[str, tuple[Retrieval, dict[str, Figures]]]) -> Iterator[str]:
    """Yield the lines of the table of joined paragraphs."""
    yield "| set | paragraphs | joined texts | queries | paragraph alone | late span | late - alone |"
    yield "|---" + "|---:" * 6 + "|"
    for name, (own, each) in found.items():
        figures = " | ".join(f"{each[way].mean():.4f}" for way in ("alone", "late"))
        yield (
            f"| {name} | {len(own.names):,} | {int(each['texts']):,} | {len(own.queries):,} | {figures} "
            f"| {difference(each['late'], each['alone'])} |"
        )


def main() -> None:
    """Measure, print the tables, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", nargs="+", default=[], metavar="SET", help="sets whose documents are cut")
    parser.add_argument(
        "--joined", nargs="+", default=[], metavar="SET", help="sets whose documents are joined by five"
    )
    parser.add_argument("--data", type=Path, default=Path(), help="folder that names are relative to")
    parser.add_argument("--model", help="a bundle (default: the built-in model)")
    parser.add_argument("--work", type=Path, help="folder in which results are kept")
    parser.add_argument("--publish", action="store_true", help="rewrite docs/usage.md")
    chosen = parser.parse_args()
    embedder = Embedder.from_pretrained(chosen.model)
    keeper = Keeper(chosen.work, f"{embedder.bundle.fingerprint} {embedder.kernels}")
    model = f"{embedder.bundle.manifest.name}, nDCG@10.\n\n"
    by_windows, by_spans = {}, {}
    for name in chosen.windows:
        own = read(chosen.data / name)
        whole = keeper.kept(lambda own=own: measure_whole(embedder, own), "whole", name)
        for tokens in WINDOW_TOKENS:
            make = lambda own=own, tokens=tokens: measure_windows(embedder, own, tokens)  # noqa: E731
            by_windows[Path(name).name, tokens] = own, whole | keeper.kept(make, "windows", name, tokens)
    for name in chosen.joined:
        own = read(chosen.data / name)
        make = lambda own=own: measure_joined(embedder, own)  # noqa: E731
        by_spans[Path(name).name] = own, keeper.kept(make, "joined", name, PARAGRAPHS)
    for block, found, rows in ((WINDOWS, by_windows, window_rows), (JOINED, by_spans, joined_rows)):
        if found:
            table = model + "\n".join(rows(found)) + "\n"
            print(table)
            if chosen.publish:
                block.write(table)


if __name__ == "__main__":
    main()
