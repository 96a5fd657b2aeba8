"""Deep Q-learning decides where a request goes and how much of a machine it gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from pentad.resource.offloading.learning.learnt import LearntOffload


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepQ(LearntOffload):
    """Takes the site, and the share of it, to which a trained network gives the highest value.

    The value is that of the request's own delay, deadline, energy and money and, discounted, of what it
    leaves to the requests behind it. Shares and clocks are sites of their own (`variants.py`). Lossless.

    Source: Tong et al., "Adaptive computation offloading and resource allocation strategy in a mobile edge
    computing environment", Information Sciences 2020. Ours scores each site by the same small network, so
    that it holds for any number of them.
    """

    name: ClassVar[str] = "deep-q"
    training: ClassVar[Mapping[str, Any]] = MappingProxyType({"scenario": "mobile-edge"})
