"""A strategy in a package of its own: one frozen dataclass, named by an entry point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.model.routing.base import RouterInput, fit
from pentad.model.routing.fixed import Fixed
from pentad.types import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class LongestContext:
    """Gives a request that names no model to the one with the longest context.

    A request that names a model is served by it, as `fixed` does.
    """

    least_tokens: int = 0
    """Models whose context is shorter are left out."""

    name: ClassVar[str] = "longest-context"
    enforces: ClassVar[frozenset[str]] = frozenset()

    def route(self, state: RouterInput) -> tuple[str, Decision]:
        """The named model, else the one with the longest context; ties go to the first."""
        if state.request.model:
            return Fixed().route(state)
        sizes = {name: candidate.can.context_length for name, candidate in fit(state).items()}
        long = [name for name, size in sizes.items() if size >= self.least_tokens] or list(sizes)
        chosen = max(long, key=lambda name: sizes[name])
        return chosen, Decision(
            layer="model",
            policy=self.name,
            subject="model",
            chosen=chosen,
            candidates=tuple((name, float(size)) for name, size in sizes.items()),
            at_s=state.now_s,
        )
