"""Plans: what the objective alone changes in a recorded decision, in every layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from pentad.model.control.situation import Situation
from pentad.model.control.what_if import Outcome, expected
from pentad.model.routing.elastic import Elastic
from pentad.resource.offloading.base import LOCAL_LABEL
from pentad.types import Decision, Objective

LEVERS: Final = (
    "agent: way",
    "agent: samples",
    "agent: context",
    "model: answer tokens",
    "resource: queue",
    "execution: place",
)
"""Parts of a decision that say what was chosen beside the model."""
OBJECTIVES: Final[Mapping[str, Objective]] = MappingProxyType(
    {
        "fastest": Objective(prefer="latency"),
        "best": Objective(prefer="quality"),
        "cheapest": Objective(prefer="cost"),
        "greenest": Objective(prefer="energy"),
        "local only": Objective(prefer="quality"),
    }
)
"""Five aims, nothing else said; `local only` is the best that stays on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What would be chosen with one objective, and what is expected of it."""

    objective: str
    decision: Decision
    expected: Outcome

    @property
    def levers(self) -> dict[str, str]:
        """The choice in every layer; tokens of the context are part of the way's."""
        parts = dict(self.decision.parts)
        return {"model": self.decision.chosen} | {name: parts[name] for name in LEVERS if name in parts}


def plans(situation: Situation, policy: Elastic) -> list[Plan]:
    """The plan for each of the five objectives in this situation; nothing holds to what was at work.

    An objective for which no model may serve is left out.
    """
    found = []
    for name, objective in OBJECTIVES.items():
        local = name == "local only"
        arms = tuple(arm for arm in situation.arms if not (local and arm.remote))
        if not arms:
            continue
        label = LOCAL_LABEL if local else situation.data_label
        changed = replace(situation, objective=objective, arms=arms, last=None, data_label=label)
        decision = policy.again(changed)
        found.append(Plan(objective=name, decision=decision, expected=expected(changed, decision)))
    return found
