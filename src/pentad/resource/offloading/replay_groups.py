"""Deep Q-learning whose experience is kept in several memories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from pentad.resource.offloading.learning.learnt import LearntOffload


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayGroups(LearntOffload):
    """As `deep-q`, trained from one replay memory per kind of site in place of a single one.

    Each memory gives an equal part of every batch, so that what is seldom done is not lost among what is done
    often. Once it is trained it chooses as `deep-q` does. Lossless.

    Source: Xiong et al., "Resource allocation based on deep reinforcement learning in IoT edge computing",
    IEEE JSAC 2020; theirs tells experience apart by its effect on the queue.
    """

    name: ClassVar[str] = "replay-groups"
    training: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"scenario": "mobile-edge", "memories": "by-kind"}
    )
