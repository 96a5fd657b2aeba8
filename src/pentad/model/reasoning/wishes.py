"""What a request wishes of the reasoning, in the terms of one model's template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from pentad.types import Decision, Request

EFFORT_TOKENS: Final[Mapping[str, int | None]] = MappingProxyType(
    {"none": 0, "minimal": 256, "low": 1_024, "medium": 4_096, "high": None, "xhigh": None, "max": None}
)
"""The budget that an effort stands for where the model's template knows no effort; None is no limit."""
SWITCHES: Final = ("enable_thinking", "thinking", "reasoning")
"""Names under which templates ask whether to think; clients say the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningWishes:
    """Template options as the template wants them, and the budget."""

    options: Mapping[str, Any]
    budget_tokens: int | None = None
    """Tokens of reasoning after which its end is forced; 0 leaves none, None sets no limit."""
    decision: Decision | None = None
    """How an effort was understood."""


def wishes_of(request: Request, template: str) -> ReasoningWishes:
    """What the request wishes, for a model that reasons.

    Args:
        request: as it came.
        template: the source of the model's chat template.
    """
    options = dict(request.template_options)
    budget, decision = request.reasoning_tokens, None
    effort = options.get("reasoning_effort")
    if isinstance(effort, str) and "reasoning_effort" not in template and effort in EFFORT_TOKENS:
        if effort == "none":
            options.setdefault(SWITCHES[0], False)
        if budget is None:
            budget = EFFORT_TOKENS[effort]
        decision = Decision(
            layer="model",
            policy="effort",
            subject="reasoning_tokens",
            chosen="unlimited" if budget is None else str(budget),
            candidates=tuple((name, None) for name in EFFORT_TOKENS),
            constraint="the chat template knows no reasoning_effort",
        )
    said = [options[name] for name in SWITCHES if isinstance(options.get(name), bool)]
    if said:
        for name in SWITCHES:
            options.setdefault(name, said[0])
        if not said[0]:
            budget = 0
    return ReasoningWishes(options=options, budget_tokens=budget, decision=decision)
