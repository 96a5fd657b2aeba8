"""How much a memory matters now: similarity, keywords, recency and importance, weighted."""

from __future__ import annotations

from dataclasses import dataclass, replace

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The weighted mean of four scores, each 0 to 1.

    Source: Park et al. 2023, "Generative Agents", section 4.1: similarity, recency that decays
    exponentially per hour, importance. Ours adds the keyword score of full-text search and takes
    similarity as the cosine itself rather than scaled by the best candidate, so that a score
    means the same in every query.
    """

    similarity: float = 1.0
    """Weight of the nearness in meaning, the cosine of the vectors."""
    keyword: float = 0.3
    """Weight of shared words, BM25 as a share of the best hit's."""
    recency: float = 0.05
    """Weight of how new an item is."""
    importance: float = 0.1
    """Weight of the importance that an item was written with."""
    decay_per_hour: float = 0.995
    """What recency is multiplied by each hour; above 0, at most 1."""
    unspaced_keyword: float = 2.0
    """What `keyword` becomes for a cue in a script without spaces, which few small embedders can read."""

    def __post_init__(self) -> None:
        parts = (self.similarity, self.keyword, self.recency, self.importance)
        if min(parts) < 0 or sum(parts) <= 0:
            raise ValueError(f"weights must be 0 or more and not all 0: {parts}")
        if not 0 < self.decay_per_hour <= 1:
            raise ValueError(f"decay_per_hour is {self.decay_per_hour}, must be above 0 and at most 1")

    def for_cue(self, unspaced: float) -> Weights:
        """The weights for a cue of which that share, 0 to 1, is of scripts without spaces."""
        return replace(self, keyword=self.keyword + unspaced * max(0.0, self.unspaced_keyword - self.keyword))

    def fresh(self, age_s: float) -> float:
        """The recency score of something that old."""
        return float(self.decay_per_hour ** (max(0.0, age_s) / HOUR_S))

    def score(self, *, similarity: float, keyword: float, recency: float, importance: float) -> float:
        """The weighted mean."""
        total = self.similarity + self.keyword + self.recency + self.importance
        weighted = self.similarity * similarity + self.keyword * keyword
        return (weighted + self.recency * recency + self.importance * importance) / total
