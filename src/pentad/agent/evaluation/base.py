"""What the evaluation asks of a suite."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

from pentad.agent.environment.base import Score
from pentad.agent.environment.simulated import Act
from pentad.agent.spec import AgentSpec
from pentad.agent.state import RunState
from pentad.choice import Choice

Turn = str | tuple[Act, ...]
"""One answer of a scripted policy: text, or calls."""
ONE_TURN = Choice(name="react", options={"max_plan": 0})
"""Without a plan: the model calls tools or answers, step by step."""
ONE_CALL = Choice(name="react", options={"max_plan": 0, "answer_last": False})
"""As that; with one step, the run ends with the calls of the first answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One task whose outcome can be judged without asking anybody."""

    id: str
    """The same for the same seed and data; never two alike in a suite."""
    goal: str
    """As the agent is told it."""
    environment: Choice | None = None
    """Where the agent acts; None: where its tools are, which are none."""
    gold: Any = None
    """What the answer is compared with, where the state of an environment does not say it."""
    solution: tuple[Turn, ...] = ()
    """What solves it: the oracle's turns, the last of them text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseSource:
    """What cases are made from."""

    data: pathlib.Path | None = None
    """The folder of data files that the user named."""
    seed: int = 0
    """Of the cases that are generated, 0 or more."""
    limit: int | None = None
    """Cases at most; None takes all, or `GENERATED` where they are made without end."""


GENERATED = 50
"""Cases of a suite that makes its own, where nobody says how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How a suite wants its agent, where nobody says otherwise."""

    instructions: str = ""
    max_steps: int = 8
    max_tokens: int = 256
    planner: Choice = field(default_factory=lambda: ONE_TURN)
    """What is taken where nobody chooses."""
    own_steps: int | None = None
    """Steps with that planner, where they are others than with a chosen one."""

    def agent(self, suite: str, case: Case, planner: Choice) -> AgentSpec:
        """The agent for one case."""
        own = self.own_steps is not None and planner == self.planner
        spec = AgentSpec(
            name=f"eval-{suite}",
            instructions=self.instructions,
            planner=planner,
            max_steps=self.own_steps if own and self.own_steps else self.max_steps,
            max_tokens=self.max_tokens,
        )
        return spec if case.environment is None else replace(spec, environment=case.environment)


class Suite(Protocol):
    """Cases, how an agent is set up for them, and the judge. Holds nothing that changes."""

    files: ClassVar[tuple[str, ...]]
    """Names of the data files that must lie in the folder; empty where the cases are generated."""
    extra: ClassVar[str]
    """The extra of the package that it needs; empty for none."""

    @property
    def name(self) -> str: ...

    @property
    def setting(self) -> Setting:
        """How its agent is set up."""
        ...

    def cases(self, source: CaseSource) -> Sequence[Case]:
        """The cases, the same for the same source.

        Raises InvalidRequest for data that are not there or are not as they should be; MissingExtra.
        """
        ...

    async def judge(self, case: Case, state: RunState) -> Score:
        """How well a run that has ended did; 1 is a success and anything below is none."""
        ...
