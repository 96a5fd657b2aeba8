"""Evaluations in this process: models and scripted policies wired one after another, cases run, sums made."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from pentad import registry
from pentad.agent.evaluation.base import Case, CaseSource, Suite
from pentad.agent.evaluation.figures import Figures, figures
from pentad.agent.evaluation.policies import POLICIES, ScriptedPolicy
from pentad.agent.evaluation.results import CaseResult, Contender, ResultFile
from pentad.agent.evaluation.runner import Evaluation
from pentad.agent.evaluation.summary import Summary, summarize
from pentad.agent.journal import Journal
from pentad.agent.prompt_store import PromptRetention
from pentad.agent.runtime import AgentRuntime
from pentad.application import wiring
from pentad.application.config import Settings
from pentad.application.folders import use_data_home
from pentad.choice import Choice, build
from pentad.errors import InvalidRequest, Unavailable
from pentad.resource.energy import PackageEnergy

Tell = Callable[[Contender, int, int, CaseResult | None], None]
"""Told of progress: who, how many cases are done, of how many, and the newest result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be evaluated: every model under every planner and coordinator."""

    suite: str
    models: Sequence[str]
    planners: Sequence[str] = ()
    """Empty: the one that the suite takes."""
    coordinators: Sequence[str] = ()
    """Empty: the agent alone."""
    source: CaseSource
    skip: int = 0
    """Cases left out at the start, so that what was chosen on those can be judged on others."""
    at_once: int = 1
    """Cases under way at any time, 1 or more. A scripted policy plays one."""

    def cases(self, suite: Suite) -> Sequence[Case]:
        """The cases, at least one. Raises InvalidRequest where there is none."""
        limit = self.source.limit
        reach = replace(self.source, limit=None if limit is None else self.skip + limit)
        if cases := suite.cases(reach)[self.skip :]:
            return cases
        hint = "lower --skip" if self.skip else "give a file with some"
        raise InvalidRequest("there are no cases", hint=hint, param="skip" if self.skip else "data")

    def contenders(self, suite: Suite) -> list[Contender]:
        """Each once, models outermost, since one is loaded at a time.

        Raises UnknownName for a strategy that there is not; InvalidRequest for a policy that cannot play it.
        """
        planners = [str(Choice.of(name)) for name in self.planners] or [str(suite.setting.planner)]
        coordinators = [str(Choice.of(name)) for name in self.coordinators]
        coordinators = coordinators or [registry.FAMILIES["coordinator"].baseline]
        for planner in planners:
            build("planner", Choice.of(planner))
        for coordinator in coordinators:
            build("coordinator", Choice.of(coordinator))
        found = []
        for model, planner, coordinator in itertools.product(self.models, planners, coordinators):
            if model in POLICIES:
                _check_policy(model, suite, self.planners, self.coordinators)
            found.append(Contender(model=model, planner=planner, coordinator=coordinator))
        return list(dict.fromkeys(found))


async def evaluate(
    order: Order, settings_for: Callable[[str], Settings], results: ResultFile, tell: Tell
) -> list[Summary]:
    """One line for each contender. Cases whose result is kept are not run again.

    Args:
        settings_for: the settings that serve the model of that name and nothing else.

    Raises what building the services and starting a run raises.
    """
    suite: Suite = build("suite", Choice.of(order.suite))
    contenders = order.contenders(suite)
    cases = order.cases(suite)
    lines = []
    for model, group in itertools.groupby(contenders, key=lambda contender: contender.model):
        own = list(group)
        evaluations = [
            Evaluation(
                suite=suite,
                cases=cases,
                seed=order.source.seed,
                contender=contender,
                chosen=str(Choice.of(order.suite)),
                at_once=1 if model in POLICIES else order.at_once,
            )
            for contender in own
        ]
        if all(each.key(case) in results for each in evaluations for case in cases):
            # Nothing is left to run, so nothing is loaded.
            lines += [summarize(results.of([each.key(case) for case in cases])) for each in evaluations]
            continue
        async with _runtime(model, settings_for(model)) as (runtime, begun):
            for each in evaluations:
                lines.append(summarize(await _one(each, runtime, results, begun, tell)))
    return lines


def figures_of(order: Order, results: ResultFile) -> dict[str, Figures]:
    """By model, what each planner reached and spent by difficulty. For results of `order` that are there."""
    suite: Suite = build("suite", Choice.of(order.suite))
    cases, chosen = order.cases(suite), str(Choice.of(order.suite))
    found: dict[str, list[CaseResult]] = {}
    for who in order.contenders(suite):
        keys = [(chosen, c.id, order.source.seed, who.model, who.planner, who.coordinator) for c in cases]
        found.setdefault(who.model, []).extend(results.of(keys))
    return {model: figures(cases, of_model) for model, of_model in found.items()}


async def _one(
    evaluation: Evaluation,
    runtime: AgentRuntime,
    results: ResultFile,
    begun: Callable[[Case], None],
    tell: Tell,
) -> list[CaseResult]:
    who, total = evaluation.contender, len(evaluation.cases)
    kept = sum(evaluation.key(case) in results for case in evaluation.cases)
    tell(who, kept, total, None)

    def done(result: CaseResult) -> None:
        nonlocal kept
        kept += 1
        tell(who, kept, total, result)

    return await evaluation.run(runtime, results, PackageEnergy(), begun=begun, done=done)


@asynccontextmanager
async def _runtime(
    model: str, settings: Settings
) -> AsyncIterator[tuple[AgentRuntime, Callable[[Case], None]]]:
    """A runtime that thinks with the model, and what is told of each case before it is run."""
    if model not in POLICIES:
        async with wiring.build(settings) as services:
            if services.agents is None:
                raise Unavailable("this configuration runs no agents")
            yield services.agents, lambda _: None
        return
    policy = ScriptedPolicy(model)
    use_data_home(settings)
    retention = PromptRetention(days=settings.prompt_days, labels=settings.prompt_labels)
    runtime = AgentRuntime(policy.models, Journal(settings.journal_path, retention=retention))
    try:
        yield runtime, policy.begin
    finally:
        await runtime.close()


def _check_policy(model: str, suite: Suite, planners: Sequence[str], coordinators: Sequence[str]) -> None:
    alone = all(name == "single" for name in coordinators)
    if not alone or any(Choice.of(name) != suite.setting.planner for name in planners):
        raise InvalidRequest(
            f"{model!r} is a scripted policy and plays turn by turn, alone",
            hint="leave --planner and --coordinator out, or evaluate a model",
            param="planner",
        )
