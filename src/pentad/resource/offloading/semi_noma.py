"""Answers as meaning or as bits: how two receivers of one band share it, and where that lets a request go."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from pentad.ranges import in_range
from pentad.resource.offloading.base import OffloadTask, ScoredOffload, Site, estimate
from pentad.resource.offloading.radio import SharedBand
from pentad.resource.offloading.semantic import Access, SimilarityCurve, best_division

WORDS_PER_TOKEN = 0.75
"""Of English text."""
BYTES_PER_WORD = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SemiNoma(ScoredOffload):
    """Takes the site that is soonest to answer, its band divided between meaning and bits as suits it best.

    A site with a shared band sends its answer as a stream of meaning on top of another receiver's bits. Band
    and power are divided so that the meaning flows fastest while the other keeps what it needs; the time that
    the words of the answer then take is part of the estimate. `access` keeps to the two divisions that it
    contains. Lossy for such answers: the metric is the similarity of a word, which is at least
    `least_similarity`.

    Source: Mu et al., "Heterogeneous semantic and bit communications: A semi-NOMA scheme", IEEE JSAC 2023.
    Ours finds the division on a grid that is narrowed down in place of their closed forms.
    """

    access: Access = "semi-noma"
    """semi-noma, or only noma (one band, both on top of each other) or oma (each its own part)."""
    least_similarity: float = 0.7
    """Of what is received to what was sent, 0 to 1."""

    name: ClassVar[str] = "semi-noma"

    def __post_init__(self) -> None:
        in_range("least_similarity", self.least_similarity, least=0, most=1)

    def score(self, task: OffloadTask, site: Site) -> float:
        found_s = estimate(task, site).completion_s
        if site.band is None:
            return found_s
        rate = self.words_per_s(site.band, site.band_bits_per_s)
        words = task.answer_tokens * WORDS_PER_TOKEN
        return found_s + (words / rate if rate > 0 else 1e9)

    def words_per_s(self, band: SharedBand, bits_per_s: float) -> float:
        """Words of the answer per second, while the other receiver has that many bits; 0 where it cannot."""
        return best_division(
            band,
            bits_per_s,
            access=self.access,
            curve=replace(SimilarityCurve(), least=self.least_similarity),
        ).words_per_s

    def cost(self, sites: int) -> float:
        return 6e-6 * sites
