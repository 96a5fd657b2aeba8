"""The evaluation itself: each case that has no result yet is one run of the runtime, judged at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from pentad.agent.coordination.base import MEMBERS
from pentad.agent.environment.base import Score
from pentad.agent.evaluation.base import Case, Suite
from pentad.agent.evaluation.results import CaseResult, Contender, Key, ResultFile
from pentad.agent.parallel import together
from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec
from pentad.agent.state import RunState
from pentad.choice import Choice, build


class EnergyMeter(Protocol):
    """Counts the energy that a machine uses."""

    def joules(self) -> float | None:
        """Since some fixed moment; None where nothing can be read."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One contender on the cases of one suite."""

    suite: Suite
    cases: Sequence[Case]
    seed: int
    contender: Contender
    chosen: str
    """The suite as it was chosen, with its options."""
    at_once: int = 1
    """Cases under way at any time, at most. Above 1 none has joules, and its seconds include company."""

    def key(self, case: Case) -> Key:
        """Under which the result of a case is kept."""
        who = self.contender
        return (self.chosen, case.id, self.seed, who.model, who.planner, who.coordinator)

    def agent(self, case: Case) -> AgentSpec:
        """The suite's agent under the contender's strategies; a team has two members like its lead."""
        spec = replace(
            self.suite.setting.agent(self.suite.name, case, Choice.of(self.contender.planner)),
            coordinator=Choice.of(self.contender.coordinator),
        )
        return _with_team(spec)

    async def run(
        self,
        runtime: AgentRuntime,
        results: ResultFile,
        meter: EnergyMeter,
        *,
        begun: Callable[[Case], None],
        done: Callable[[CaseResult], None],
    ) -> list[CaseResult]:
        """The results of all cases, in order; those that are kept already are not run again.

        Args:
            begun, done: told of each case that is run.

        Raises what starting a run raises. A run that fails is a result.
        """
        keys = [self.key(case) for case in self.cases]
        places = asyncio.Semaphore(self.at_once)

        async def one(case: Case) -> None:
            async with places:
                begun(case)
                result = await self._play(case, runtime, meter)
                results.add(result)
                done(result)

        await together(one(case) for case, key in zip(self.cases, keys, strict=True) if key not in results)
        return results.of(keys)

    async def _play(self, case: Case, runtime: AgentRuntime, meter: EnergyMeter) -> CaseResult:
        before = meter.joules() if self.at_once == 1 else None
        # What is served alone is the default, by whatever name or path it was asked for.
        run_id = await runtime.start(self.agent(case), case.goal, foreground=True)
        state = await runtime.wait(run_id)
        after = meter.joules()
        used = None if before is None or after is None else round(after - before, 3)
        return self._result(case, state, await self.suite.judge(case, state), used)

    def _result(self, case: Case, state: RunState, score: Score, joules: float | None) -> CaseResult:
        return CaseResult(
            suite=self.chosen,
            case=case.id,
            seed=self.seed,
            model=self.contender.model,
            planner=self.contender.planner,
            coordinator=self.contender.coordinator,
            success=score.value >= 1,
            score=score.value,
            about=score.about,
            status=state.status,
            steps=state.step - 1,
            model_calls=state.totals.model_calls,
            tool_calls=state.ledger.used.tool_calls,
            tokens=state.ledger.used.tokens,
            prompt_tokens=state.totals.prompt_tokens,
            cached_tokens=state.totals.cached_tokens,
            completion_tokens=state.totals.completion_tokens,
            seconds=round(state.active_s, 3),
            joules=joules,
            run=state.run_id,
            error=state.error,
        )


HELPER = "Has the same tools and skills as you; give it a part of the task."


def _with_team(spec: AgentSpec) -> AgentSpec:
    """The agent with members where its coordinator needs some."""
    if MEMBERS not in build("coordinator", spec.coordinator).needs:
        return spec
    alone = replace(spec, coordinator=Choice(name="single"))
    members = {f"helper{i}": replace(alone, name=f"helper{i}", description=HELPER) for i in (1, 2)}
    return replace(spec, agents=members)
