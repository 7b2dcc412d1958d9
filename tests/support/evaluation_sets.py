"""Tiny sets in the layouts that `moembed evaluate` reads, and their figures straight from the definitions."""

import gzip
import json
import math

import numpy as np

from moembed.cli import main
from moembed.evaluation.datasets import find
from moembed.evaluation.embedding_cache import CachedEmbedder
from moembed.evaluation.tasks import Task
from moembed.evaluation.variants import Variant

TEXTS = {
    "d1": ("Bread", "Bake the bread for forty minutes."),
    "d2": ("", "Line 4 goes to the station."),
    "d3": ("Cats", "A cat sleeps sixteen hours a day."),
    "d4": ("", "Tomatoes need sun and water."),
    "d5": ("Rain", "It rains in April."),
}
QUERIES = {
    "q1": "How long does bread stay in the oven?",
    "q2": "Which tram to the station?",
    "q3": "How much do cats sleep?",
}
JUDGED = {"q1": {"d1": 2, "d4": 1}, "q2": {"d2": 1}, "q3": {"d3": 1, "d5": 0}}


def rows(*records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def write_beir(folder, texts=TEXTS, queries=QUERIES, judged=JUDGED):
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(rows(*({"_id": i, "title": t, "text": x} for i, (t, x) in texts.items())))
    (folder / "queries.jsonl").write_text(rows(*({"_id": i, "text": x} for i, x in queries.items())))
    lines = [f"{query}\t{name}\t{score}\n" for query, scores in judged.items() for name, score in scores.items()]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return folder


def write_miracl(root, language, corpus_root):
    asked, corpus = root / f"miracl-v1.0-{language}", corpus_root / f"miracl-corpus-v1.0-{language}"
    for folder in (asked / "topics", asked / "qrels", corpus):
        folder.mkdir(parents=True)
    topics, qrels = (asked / kind / f"{kind}.miracl-v1.0-{language}-dev.tsv" for kind in ("topics", "qrels"))
    topics.write_text("".join(f"{i}\t{x}\n" for i, x in QUERIES.items()))
    qrels.write_text("".join(f"{q}\tQ0\t{d}\t{s}\n" for q, scores in JUDGED.items() for d, s in scores.items()))
    (topics.parent / f"topics.miracl-v1.0-{language}-train.tsv").write_text("x\tother split\n")
    for number, part in enumerate((list(TEXTS.items())[:3], list(TEXTS.items())[3:])):
        with gzip.open(corpus / f"docs-{number}.jsonl.gz", "wt") as out:
            out.write(rows(*({"docid": i, "title": t, "text": x} for i, (t, x) in part)))


def evaluate(capsys, *argv):
    """Run the command: exit code, stdout, stderr."""
    code = main(["evaluate", *map(str, argv)])
    return code, *capsys.readouterr()


def only(names, root, **options) -> Task:
    (dataset,) = find(names, root, **options)
    (task,) = dataset.tasks()
    return task


def measured(task, embedder, *chosen):
    task.check()
    return figures_of(
        task.measure(CachedEmbedder(embedder, lambda _: None), chosen or (Variant(embedder.dim, "float32"),))
    )


def figures_of(measured):
    return {variant: scores.figures for variant, scores in measured.items()}


def by_hand(judged, ranked, depth=100):
    """nDCG@10, recall and MRR@10, straight from their definitions."""
    totals = np.zeros(3)
    for query, scores in judged.items():
        found = ranked.get(query, [])
        gains = [scores.get(name, 0) for name in found[:10]]
        ideal = sorted((score for score in scores.values() if score > 0), reverse=True)[:10]
        dcg, best = (sum(g / math.log2(rank + 2) for rank, g in enumerate(row)) for row in (gains, ideal))
        relevant = {name for name, score in scores.items() if score > 0}
        first = next((1 / (rank + 1) for rank, name in enumerate(found[:10]) if name in relevant), 0.0)
        totals += (dcg / best if best else 0, len(relevant & set(found[:depth])) / max(len(relevant), 1), first)
    return dict(zip(("nDCG@10", "Recall@100", "MRR@10"), totals / len(judged), strict=True))
