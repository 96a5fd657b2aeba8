"""Contestant: a policy with the models and the runtime that its runs go through."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from pentad.agent.environment.base import Score
from pentad.agent.evaluation.base import ONE_CALL
from pentad.agent.evaluation.workload import Task, TaskClass, Workload
from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec
from pentad.agent.state import RunState
from pentad.application.bench.elastic.policy import BenchPolicy
from pentad.application.bench.elastic.run_line import RunLine, missed
from pentad.choice import Choice
from pentad.errors import PentadError
from pentad.model.service import ModelService
from pentad.types import Budget, Clock, Decision, Objective

Judge = Callable[[Task, RunState], Awaitable[Score]]
_STEPS = 4


async def checked(task: Task, state: RunState) -> Score:
    """What the task's own check says."""
    return await task.check.judge(state, task.functions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One policy on models of its own service, so that nothing which one learns helps another."""

    policy: BenchPolicy
    models: ModelService
    runtime: AgentRuntime
    clock: Clock
    judge: Judge = checked
    simulated: bool = False

    def objective(self, of: TaskClass) -> Objective:
        """What a class is promised, less what this policy's router cannot act upon; all is judged anyhow."""
        enforces = self.models.enforces
        return replace(
            of.objective,
            min_quality=of.quality if "min_quality" in enforces else None,
            max_energy_j=of.max_energy_j if "max_energy_j" in enforces else None,
        )

    def agent(self, task: Task, of: TaskClass) -> AgentSpec:
        """Who works on a task. One with tools is a single turn, whatever the strategy."""
        spec = AgentSpec(
            name=of.name,
            model=self.policy.model,
            instructions=of.instructions,
            planner=ONE_CALL if task.tools else self.policy.planner(of),
            max_steps=1 if task.tools else _STEPS,
            max_tokens=of.max_tokens,
            budget=Budget(tokens=of.max_run_tokens),
            objective=self.objective(of),
            data_label=of.data_label,
        )
        if not task.tools:
            return spec
        return replace(spec, environment=Choice(name="offered", options={"functions": task.functions}))

    async def run(self, task: Task, of: TaskClass, *, arrival: int, load: float, arrived_s: float) -> RunLine:
        """Works on a task to its end, and judges it. Cancelled, the run is cancelled too."""
        try:
            run_id = await self.runtime.start(
                self.agent(task, of),
                task.prompt,
                history=task.history,
                priority=of.priority or 0,
                foreground=True,
            )
        except PentadError as error:
            return self._line(task, of, None, (), arrival, load, arrived_s, Score(value=0, about=str(error)))
        try:
            state = await self.runtime.wait(run_id)
        except BaseException:
            await self.runtime.cancel(run_id)
            raise
        score = await self.judge(task, state)
        decisions = self.runtime.explain(run_id).decisions
        return self._line(task, of, state, decisions, arrival, load, arrived_s, score)

    def _line(
        self,
        task: Task,
        of: TaskClass,
        state: RunState | None,
        decisions: Sequence[Decision],
        arrival: int,
        load: float,
        arrived_s: float,
        score: Score,
    ) -> RunLine:
        chosen = next((one for one in decisions if one.subject == "model"), None)
        way = "" if chosen is None else dict(chosen.parts).get("agent: way", "")
        seconds = round(self.clock() - arrived_s, 4)
        tokens = 0 if state is None else state.ledger.used.tokens
        cost = 0.0 if state is None else state.ledger.used.cost
        metered = None if state is None or state.totals.energy is None else state.totals.energy.joules
        return RunLine(
            policy=self.policy.name,
            load=load,
            arrival=arrival,
            task=task.id,
            slo_class=of.name,
            model="" if chosen is None else chosen.chosen,
            way=self.policy.way(of) if way in ("", "as asked") else way,
            right=score.value >= 1,
            about=score.about,
            status="refused" if state is None else str(state.status),
            seconds=seconds,
            tokens=tokens,
            prompt_tokens=0 if state is None else state.totals.prompt_tokens,
            completion_tokens=0 if state is None else state.totals.completion_tokens,
            model_calls=0 if state is None else state.totals.model_calls,
            cost=cost,
            joules=metered,
            missed=missed(
                of,
                answered=state is not None and state.status == "answered",
                seconds=seconds,
                tokens=tokens,
                cost=cost,
                joules=metered,
            ),
            run="" if state is None else state.run_id,
            simulated=self.simulated,
        )


def teach(models: ModelService, lines: Sequence[RunLine], workload: Workload) -> None:
    """Tells a service how earlier runs went, right or not and how long, by class, model and way."""
    several = {one.name for one in workload.classes if len(one.ways) > 1}
    for line in lines:
        if not line.model or not line.judges:
            continue
        way = line.way if line.slo_class in several else ""
        models.outcomes.judged(line.slo_class, line.model, way, right=line.right)
        if line.model_calls and line.completion_tokens:
            drawn = re.search(r"samples=(\d+)", way)
            answers = line.model_calls * (int(drawn.group(1)) if drawn else 1)
            models.outcomes.answered(line.slo_class, line.model, way, line.completion_tokens / answers)
