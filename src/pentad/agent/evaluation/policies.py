"""Scripted policies in a model's place: the oracle that solves each case, and one that does nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pentad.agent.evaluation.base import Case, Turn
from pentad.execution.backend import Capabilities
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.testing.backends import Item, ScriptedBackend
from pentad.types import Request, ToolCall

ORACLE, IDLE = "oracle", "idle"
POLICIES = (ORACLE, IDLE)
"""Names that stand for no model."""


class ScriptedPolicy:
    """A model service that plays, turn by turn, what is known to solve the case under way.

    It goes through the runtime as a model does, so it shows that task, tools, state and judge fit together.

    Args:
        name: `oracle`, or `idle`, which only says that it does nothing.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._turns: list[Turn] = []
        capabilities = Capabilities(model=name, context_length=1_000_000)
        backend = ScriptedBackend([self._next], capabilities=capabilities, repeat=True)
        self.models = ModelService({name: backend}, router=Fixed())

    def begin(self, case: Case) -> None:
        """What is asked from now on belongs to this case."""
        self._turns = list(case.solution) if self._name == ORACLE else []

    def _next(self, request: Request) -> Sequence[Item]:  # noqa: ARG002
        turn: Turn = self._turns.pop(0) if self._turns else "I do nothing."
        if isinstance(turn, str):
            return [turn]
        return [
            ToolCall(id=f"call_{len(self._turns)}_{i}", name=each.tool, arguments=json.dumps(each.arguments))
            for i, each in enumerate(turn)
        ]
