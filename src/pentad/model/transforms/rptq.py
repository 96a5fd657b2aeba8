"""RPTQ: channels of like range stand together and share a scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pentad.errors import InvalidRequest
from pentad.execution.formats.base import Floats
from pentad.execution.input_rounding import InputRule, fixed
from pentad.execution.taps import Tap
from pentad.execution.weights import TensorFormat
from pentad.model.transforms.base import Unit
from pentad.model.transforms.equivalence import permute, sites
from pentad.model.transforms.input_quantizing import InputQuantizer, ranges
from pentad.model.transforms.quantizing import Moved

Labels = npt.NDArray[np.int64]
_ROUNDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RPTQ(InputQuantizer):
    """Clusters the channels of inputs by their least and largest number and gives each cluster a scale.

    Channels between up and down stand in the order of their clusters afterwards, a permutation of the
    one's rows and the other's columns. Behind a norm they keep their places, since the stream that a
    norm reads has its order from all layers; there a cluster is a list of columns.

    Exactness: lossy; the metric is perplexity. Cost: two passes of the calibration text, and twenty
    rounds of k-means over the columns of each matrix.

    Source: Yuan et al., "RPTQ: Reorder-based Post-training Quantization for Large Language Models",
    2023, section 4. Our difference: the paper's norms write their results in another order at run
    time; ours do not.
    """

    format: TensorFormat = "Q4_0"
    compensate: bool = False
    clusters: int = 8
    """Scales of what enters a matrix; 1: one for all."""

    name: ClassVar[str] = "rptq"

    def __post_init__(self) -> None:
        InputQuantizer.__post_init__(self)
        if self.clusters < 1:
            raise InvalidRequest(f"clusters is {self.clusters}, must be at least 1", param="clusters")

    def moved(self, unit: Unit) -> Moved:
        moved = Moved()
        for site in sites(unit):
            if site.norm_offset is None and site.shared == 1 and site.head_dim == 1:
                labels = clustered(*ranges(site.tap(unit)), self.clusters)
                permute(site, unit, moved, np.argsort(labels, kind="stable"))
        return moved

    def rule(self, unit: Unit, name: str, tap: Tap) -> InputRule:
        del unit, name
        low, high = ranges(tap)
        labels = clustered(low, high, self.clusters)
        lows, highs = low.copy(), high.copy()
        for label in range(labels.max() + 1):
            members = labels == label
            lows[members], highs[members] = low[members].min(), high[members].max()
        return fixed(lows, highs, self.input_bits)


def clustered(low: Floats, high: Floats, clusters: int) -> Labels:
    """The cluster of each column, by k-means over its range; narrow ranges have low numbers."""
    points = np.stack((low, high), axis=1).astype(np.float64)
    count = min(clusters, len(np.unique(points, axis=0)))
    order = np.argsort(high - low, kind="stable")
    # Starts far apart: logarithmic ranks of the span, so that the few widest columns get clusters too.
    ranks = len(order) - np.geomspace(1, len(order), count)
    centres = points[order[np.unique(np.clip(ranks, 0, len(order) - 1).astype(int))]]
    labels = np.zeros(len(points), np.int64)
    for _ in range(_ROUNDS):
        distances = np.square(points[:, None] - centres[None]).sum(-1)
        found = distances.argmin(1)
        if (found == labels).all():
            break
        labels = found
        for i in range(len(centres)):
            if (labels == i).any():
                centres[i] = points[labels == i].mean(0)
    used = np.unique(labels)
    spans = [(points[labels == i, 1] - points[labels == i, 0]).mean() for i in used]
    rank = {int(used[at]): place for place, at in enumerate(np.argsort(spans, kind="stable"))}
    return np.array([rank[int(label)] for label in labels], np.int64)
