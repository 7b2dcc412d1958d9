"""The figures: ir-measures for rankings (trec_eval's code; MS MARCO's for MRR@10), scipy for correlation."""

from collections.abc import Mapping, Sequence

import ir_measures
import numpy as np
from ir_measures import RR, R, nDCG
from numpy.typing import NDArray
from scipy import stats

DEPTH = 100  # documents of a query that any of the figures looks at
_RANKED = {"nDCG@10": nDCG @ 10, "Recall@100": R @ DEPTH, "MRR@10": RR @ 10}


def ranked_figures(judged: Mapping[str, Mapping[str, int]], found: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Means over all judged queries of nDCG@10 (linear gain), Recall@100 and MRR@10, in 0 to 1.

    Args:
        judged: query id -> document id -> score; above 0 is relevant.
        found: query id -> document ids, best first; a query that is missing scores 0.
    """
    # The library sorts by score; scores that fall by one keep the order as it is, ties included.
    run = {query: {name: float(-rank) for rank, name in enumerate(names)} for query, names in found.items()}
    means = ir_measures.calc_aggregate(list(_RANKED.values()), judged, run)
    return {name: float(means[measure]) for name, measure in _RANKED.items()}


def correlation(scores: Sequence[float], similarities: NDArray[np.float32]) -> dict[str, float]:
    """Spearman's rank correlation, in -1 to 1; 0 if all similarities are equal and say nothing."""
    if len(np.unique(similarities)) < 2:
        return {"Spearman": 0.0}
    return {"Spearman": float(stats.spearmanr(scores, similarities).statistic)}
