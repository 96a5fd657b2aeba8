"""Texts of one kind use the same experts: what earlier ones used is kept and brought."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pentad.execution.expert_cache.base import Expert, ExpertRun, Mixture

Counts = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """Keeps and brings the experts that earlier texts with the most similar use of experts have used.

    How often a text has used which expert is compared, as it grows, with what is known of `kept` earlier
    texts. The nearest one's counts say what comes: the experts of the layers next to come first, often used
    ones in front.

    Exactness: lossless.
    Cost: a product of all kept traces with the present one at each layer, some 10 microseconds.
    Source: Xue et al. 2024 (MoE-Infinity), sections 4 and 5. There traces are clustered to choose which are
    kept; here a new one takes the place of the one that it is nearest to. All texts of a batch are one trace.
    """

    name: ClassVar[str] = "traced"
    guesses: ClassVar[bool] = False
    kept: int = 64
    """Traces of earlier texts."""
    ahead: int = 4
    """Experts that are brought while a layer is computed."""

    def start(self, mixture: Mixture) -> ExpertRun:
        return _TracedRun(mixture, self.kept, self.ahead)


class _TracedRun(ExpertRun):
    def __init__(self, mixture: Mixture, kept: int, ahead: int) -> None:
        super().__init__(mixture)
        self._layers = {layer: i for i, layer in enumerate(sorted(mixture.counts))}
        shape = len(self._layers), max(mixture.counts.values())
        self._now = np.zeros(shape)
        self._traces: Any = np.zeros((0, *shape))
        self._expected: Counts = np.zeros(shape)
        self._kept, self._ahead, self._at = kept, ahead, 0

    def begin(self, *, started: bool) -> None:
        self._at = 0
        if started and self._now.any():
            self._keep(self._now)
            self._now = np.zeros_like(self._now)

    def _keep(self, trace: Counts) -> None:
        if len(self._traces) < self._kept:
            self._traces = np.concatenate((self._traces, trace[None]))
        else:
            self._traces[int(np.argmax(self._likeness(trace)))] = trace

    def _likeness(self, trace: Counts) -> Counts:
        """The cosine of each kept trace with this one, of the layers that it has."""
        seen = trace.any(axis=1)
        kept, own = self._traces[:, seen].reshape(len(self._traces), -1), trace[seen].ravel()
        norms = np.linalg.norm(kept, axis=1) * np.linalg.norm(own)
        found: Counts = kept @ own / np.maximum(norms, 1e-12)
        return found

    def used(self, layer: int, rows: Mapping[int, int]) -> None:
        self._at = self._layers[layer]
        for number, count in rows.items():
            self._now[self._at, number] += count
        nearest = self._traces[int(np.argmax(self._likeness(self._now)))] if len(self._traces) else self._now
        whole = nearest.sum(axis=1, keepdims=True)
        own = self._now / np.maximum(self._now.sum(axis=1, keepdims=True), 1)
        # What this text did counts as well: it is the nearest of all to itself, as far as it has come.
        self._expected = nearest / np.maximum(whole, 1) + own

    def _worth(self, expert: Expert) -> float:
        """Expected use, less the farther away its layer is from the one that is computed."""
        place = self._layers[expert[0]]
        distance = (place - self._at) % len(self._layers)
        return float(self._expected[place, expert[1]] + 1e-6) * (1 - distance / len(self._layers))

    def victim(self, layer: int, resident: Collection[Expert]) -> Expert:  # noqa: ARG002
        return min(resident, key=lambda expert: (self._expected[self._layers[expert[0]], expert[1]], expert))

    def ahead(self, layer: int, rows: Mapping[int, int], guessed: Sequence[int]) -> Sequence[Expert]:  # noqa: ARG002
        found = [
            (other, int(number))
            for other in self.mixture.after(layer)
            for number in np.flatnonzero(self._expected[self._layers[other]])
        ]
        return sorted(found, key=self._worth, reverse=True)[: self._ahead]
