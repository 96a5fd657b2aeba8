"""The plain router: the model that the request names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.errors import ModelNotFound
from pentad.model.routing.base import RouterInput, refuse_unfit
from pentad.types import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """Serves each request with the model it names; an empty name means the default.

    Lossless: it changes nothing about the answer. Costs one dictionary look-up. A model that may
    not or cannot serve the request is an error, never a silent change to another.
    """

    name: ClassVar[str] = "fixed"
    enforces: ClassVar[frozenset[str]] = frozenset()

    def route(self, state: RouterInput) -> tuple[str, Decision]:
        """The named model, checked against the request."""
        request = state.request
        chosen = request.model or state.default
        if chosen not in state.candidates:
            raise ModelNotFound(
                f"no model {chosen!r} here",
                hint=f"set `model` to one of: {', '.join(state.candidates)}",
                param="model",
            )
        refuse_unfit(state, chosen)
        return chosen, Decision(
            layer="model",
            policy=self.name,
            subject="model",
            chosen=chosen,
            candidates=tuple((name, None) for name in state.candidates),
            constraint=request.context.data_label,
            at_s=state.now_s,
        )
