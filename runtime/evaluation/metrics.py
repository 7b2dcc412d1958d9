"""The figures: ir-measures for rankings (trec_eval's code; MS MARCO's for MRR@10), scipy for correlation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ir_measures
import numpy as np
from ir_measures import RR, R, nDCG
from numpy.typing import NDArray
from scipy import stats

DEPTH = 100  # documents of a query that any of the figures looks at
_RANKED = {"nDCG@10": nDCG @ 10, "Recall@100": R @ DEPTH, "MRR@10": RR @ 10}
Figures = dict[str, float]


@dataclass(frozen=True)
class Scores:
    """What one variant of a model reaches on one task.

    Attributes:
        figures: name -> value.
        each: the first figure of every query or sentence, in an order that is the task's, [n] float64; None where the figure is
            one of the whole set, as a correlation is.
    """

    figures: Figures
    each: NDArray[np.float64] | None = None


def ranked_figures(judged: Mapping[str, Mapping[str, int]], found: Mapping[str, Sequence[str]]) -> Scores:
    """Means over all judged queries of nDCG@10 (linear gain), Recall@100 and MRR@10, in 0 to 1.

    Args:
        judged: query id -> document id -> score; above 0 is relevant.
        found: query id -> document ids, best first; a query that is missing scores 0.
    """
    # The library sorts by score; scores that fall by one keep the order as it is, ties included.
    run = {query: {name: float(-rank) for rank, name in enumerate(names)} for query, names in found.items()}
    means = ir_measures.calc_aggregate(list(_RANKED.values()), judged, run)
    first = next(iter(_RANKED.values()))
    own = {metric.query_id: metric.value for metric in ir_measures.iter_calc([first], judged, run)}
    return Scores(
        {name: float(means[measure]) for name, measure in _RANKED.items()},
        np.array([own.get(query, 0.0) for query in judged], np.float64),
    )


def correlation(scores: Sequence[float], similarities: NDArray[np.float32]) -> Scores:
    """Spearman's rank correlation, in -1 to 1; 0 if all similarities are equal and say nothing."""
    if len(np.unique(similarities)) < 2:
        return Scores({"Spearman": 0.0})
    return Scores({"Spearman": float(stats.spearmanr(scores, similarities).statistic)})


def standard_error(each: NDArray[np.float64], baseline: NDArray[np.float64]) -> float:
    """Of the mean difference between two models on the same queries: what another sample of queries would change it by.

    Args:
        each: a figure of every query, [n].
        baseline: the same of the other model, [n].
    """
    return float(np.std(each - baseline, ddof=1) / np.sqrt(len(each))) if len(each) > 1 else 0.0
