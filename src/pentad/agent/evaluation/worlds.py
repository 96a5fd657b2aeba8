"""Suites out of simulated environments: every seed is a case, and the world's state is the judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pentad.agent.environment.base import Environment, EnvironmentServices, Score
from pentad.agent.environment.simulated import Simulated
from pentad.agent.evaluation.base import GENERATED, Case, CaseSource, Setting, Turn
from pentad.agent.events import Record
from pentad.agent.state import RunState
from pentad.choice import Choice, build

_APART = 100_003
"""Between the seeds of two evaluations, so that their cases do not meet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldSuite:
    """Base of the suites of one environment: a subclass names it and its agent's setting.

    The oracle calls what the world says solves it, a call a turn.
    """

    files: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    environment: ClassVar[str]
    setting: ClassVar[Setting]

    def options(self) -> dict[str, Any]:
        """Options of the environment, beside the seed."""
        return {}

    def cases(self, source: CaseSource) -> Sequence[Case]:
        """As many as are asked for, each a world of its own seed."""
        count = GENERATED if source.limit is None else source.limit
        return [self._case(source.seed * _APART + i) for i in range(count)]

    async def judge(self, case: Case, state: RunState) -> Score:  # noqa: ARG002
        """What the world says of its state, after all that the run did there."""
        return await world_score(state)

    def _case(self, seed: int) -> Case:
        choice = Choice(name=self.environment, options={**self.options(), "seed": seed})
        environment: Simulated = build("environment", choice)
        task = environment.world().task
        calls: list[Turn] = [(each,) for each in task.solution]
        solution = (*calls, "Done.")
        return Case(id=f"{self.environment}_{seed}", goal=task.goal, environment=choice, solution=solution)


async def world_score(state: RunState) -> Score:
    """What the world of a run says about it: all that the run did there is done again, and looked at."""
    environment: Environment = build("environment", state.spec.environment)
    world = await environment.open(EnvironmentServices(state=state, read=_unread))
    return world.score()


async def _unread(run_id: str) -> Sequence[Record]:
    raise AssertionError(f"a simulated world reads no other run, not {run_id!r}")
