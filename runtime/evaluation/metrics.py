"""Metrics: ir-measures for rankings (trec_eval's code; MS MARCO's for MRR@10), scipy for correlation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import ir_measures
import numpy as np
from ir_measures import RR, R, nDCG
from numpy.typing import NDArray
from scipy import stats

DEPTH = 100  # documents per query; no metric looks deeper
_COUNTED = 10  # documents that the main figure counts
_RANKED = {"nDCG@10": nDCG @ _COUNTED, "Recall@100": R @ DEPTH, "MRR@10": RR @ 10}
Figures = dict[str, float]


class Found(NamedTuple):
    """Documents that a query found, best first: ids, and scores [documents] float32."""

    names: Sequence[str]
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class Scores:
    """Figures of one variant of a model on one task.

    Attributes:
        figures: name -> value.
        each: the main figure of every query or sentence, in the task's order, [n] float64; None if the figure is defined for the
            whole set only, like a correlation.
        ties: number of queries whose main figure depends on the order of documents with equal scores.
    """

    figures: Figures
    each: NDArray[np.float64] | None = None
    ties: int = 0


def ranked_figures(judged: Mapping[str, Mapping[str, int]], found: Mapping[str, Found]) -> Scores:
    """Return the means of nDCG@10 (linear gain), Recall@100 and MRR@10 over all judged queries, 0 to 1.

    Args:
        judged: query id -> document id -> score; above 0 is relevant.
        found: query id -> its documents; a query that is missing scores 0.
    """
    # The library sorts by score; scores that decrease by one keep the given order, including that of ties.
    run = {query: {name: float(-rank) for rank, name in enumerate(own.names)} for query, own in found.items()}
    means = ir_measures.calc_aggregate(list(_RANKED.values()), judged, run)
    first = next(iter(_RANKED.values()))
    own = {metric.query_id: metric.value for metric in ir_measures.iter_calc([first], judged, run)}
    return Scores(
        {name: float(means[measure]) for name, measure in _RANKED.items()},
        np.array([own.get(query, 0.0) for query in judged], np.float64),
        sum(_depends_on_ties(judged[query], documents) for query, documents in found.items()),
    )


def _depends_on_ties(grades: Mapping[str, int], found: Found) -> bool:
    """Tell whether documents with equal scores, of which the first is among those that count, have different grades."""
    gains = [max(grades.get(name, 0), 0) for name in found.names]
    begin = 0
    while begin < min(len(gains), _COUNTED):
        end = begin + 1
        while end < len(gains) and found.scores[end] == found.scores[begin]:
            end += 1
        if len(set(gains[begin:end])) > 1:
            return True
        begin = end
    return False


def correlation(scores: Sequence[float], similarities: NDArray[np.float32]) -> Scores:
    """Return Spearman's rank correlation, -1 to 1; 0 if all similarities are equal."""
    if len(np.unique(similarities)) < 2:
        return Scores({"Spearman": 0.0})
    return Scores({"Spearman": float(stats.spearmanr(scores, similarities).statistic)})


def standard_error(each: NDArray[np.float64], baseline: NDArray[np.float64]) -> float:
    """Return the standard error of the mean difference between two models on the same queries.

    Args:
        each: a figure of every query, [n].
        baseline: the same for the other model, [n].
    """
    return float(np.std(each - baseline, ddof=1) / np.sqrt(len(each))) if len(each) > 1 else 0.0
