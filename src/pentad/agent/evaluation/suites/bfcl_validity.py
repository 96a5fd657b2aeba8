"""Suite bfcl-validity: one function is offered, and has to be called in a form that it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.agent.environment.base import Score
from pentad.agent.evaluation.base import Case
from pentad.agent.evaluation.bfcl import as_name, as_schema
from pentad.agent.evaluation.suites.bfcl_simple import BfclSimple
from pentad.agent.state import RunState
from pentad.json_text import parse_json


@dataclass(frozen=True, slots=True, kw_only=True)
class BfclValidity(BfclSimple):
    """One function is offered; calls have to name it and fit its schema, right or not (BFCL v4).

    Source: Patil et al. 2025, "The Berkeley Function Calling Leaderboard"; the judge is our own.
    """

    name: ClassVar[str] = "bfcl-validity"

    async def judge(self, case: Case, state: RunState) -> Score:
        """1 where there is a call and all calls are valid, else 0 with the reason."""
        import jsonschema

        calls = next((e.calls for e in state.exchanges if e.calls), ())
        if not calls:
            return Score(value=0.0, about="no call")
        function, _ = case.gold
        for call in calls:
            if call.name != as_name(function["name"]):
                return Score(value=0.0, about=f"called {call.name!r}, which is not offered")
            try:
                jsonschema.validate(parse_json(call.arguments or "{}"), as_schema(function["parameters"]))
            except ValueError:
                return Score(value=0.0, about="the arguments are no JSON")
            except jsonschema.ValidationError as error:
                return Score(value=0.0, about=f"the arguments do not fit: {error.message:.200}")
        return Score(value=1.0, about="valid")
