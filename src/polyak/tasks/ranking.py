"""Metrics of rankings, one score per query."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

METRIC = re.compile(r"(ndcg|recall|mrr)@([1-9][0-9]{0,4})")


def measure(metric: str, ranking: Sequence[int], relevance: Mapping[int, float]) -> float:
    """The score of one ranking.

    ndcg@k: sum over the first k of relevance / log2(rank + 1), divided by that of the best ranking (Järvelin and
    Kekäläinen, 2002, with linear gain).  recall@k: the share of relevant documents among the first k.  mrr@k: one over
    the rank of the first relevant document, 0 if it is beyond k.

    Args:
        metric: `ndcg@K`, `recall@K` or `mrr@K`, as matched by `METRIC`.
        ranking: Documents, best first.
        relevance: Relevance of each relevant document, above 0; at least one.
    """
    parsed = METRIC.fullmatch(metric)
    assert parsed is not None
    k = int(parsed[2])
    gains = np.array([relevance.get(document, 0.0) for document in ranking[:k]])
    if parsed[1] == "recall":
        return float((gains > 0).sum() / len(relevance))
    if parsed[1] == "mrr":
        hits = np.flatnonzero(gains > 0)
        return 1.0 / float(hits[0] + 1) if len(hits) else 0.0
    best = np.sort(np.array(list(relevance.values())))[::-1][:k]
    return float(_discounted(gains) / _discounted(best))


def _discounted(gains: np.ndarray) -> float:
    return float((gains / np.log2(np.arange(2, len(gains) + 2))).sum())
