"""The agent's loop: ask the model, read its answer, act on it, end the step; until the run ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace

from pentad.agent.coordination.base import Assigns, Concludes, Coordinator, GivesUp, LeadActs, Team
from pentad.agent.coordination.delegate import as_call, delegate_action
from pentad.agent.delegation import Delegation
from pentad.agent.endings import partial
from pentad.agent.events import BranchOutcome, Planned, PlannerDecided, RunEnded, StepEnded, StepOutcome
from pentad.agent.exchange import Exchange, sampled
from pentad.agent.memories import Memories
from pentad.agent.model_calls import ModelCalls
from pentad.agent.model_events import SampleSelected
from pentad.agent.parallel import Branch, Turns, together
from pentad.agent.planning.base import (
    Alternatives,
    Answers,
    Decided,
    MadePlan,
    ModelCallDraft,
    ParallelDraft,
    Planner,
    Reading,
    Refuses,
    Thought,
    Unusable,
    View,
    WantsTools,
)
from pentad.agent.planning.progress import problem_of, unsuccessful
from pentad.agent.result_reduction import ResultReduction
from pentad.agent.run import Run
from pentad.agent.run_memory import Remembering
from pentad.agent.sub_run_events import Coordinated
from pentad.agent.tool_calls import ToolCalls, worst
from pentad.agent.tool_events import ToolsWithheld
from pentad.agent.tool_offers import ToolOffers
from pentad.agent.tools.base import Tool
from pentad.agent.tools.invocation import ToolRules, shown
from pentad.agent.values import changed
from pentad.errors import Forbidden
from pentad.types import Decision

FindTools = Callable[[], Awaitable[Mapping[str, Tool]]]
"""The tools that the agent may use now; asked before every step, so new ones are seen at once."""


class Loop:
    """Works on one run until it ends."""

    def __init__(
        self,
        run: Run,
        planner: Planner,
        coordinator: Coordinator,
        rules: ToolRules,
        find_tools: FindTools,
        memory: Memories | None,
        delegation: Delegation,
    ) -> None:
        self._run = run
        self._coordinator = coordinator
        self._planner = planner
        self._rules = rules
        self._find_tools = find_tools
        self._offers = ToolOffers(run)
        self._asker = ModelCalls(run)
        self._reduction = ResultReduction(run, self._asker.surprise)
        kept = memory.of(run.state.spec) if memory else None
        self._remembering = Remembering(run, kept, self._asker.memory_ask, self._asker.memory_sample)
        self._actor = ToolCalls(run, rules, self._asker, coordinator, delegation)

    async def work(self) -> None:
        """Steps until the answer, a refusal, too many failures or the last step."""
        await self._remembering.recall()
        while not self._run.state.ended:
            ending = self._ending()
            if ending is not None:
                await self._run.append(await self._remembering.keep(ending))
            else:
                await self.step()

    async def step(self) -> None:
        """One step: ask (unless a crash came after the answer), read, act, end."""
        self._run.start_step()
        await self._reduction.reduce()
        if await self._coordinated():
            return
        tools = await self._find_tools()
        with self._run.span("agent", "tools"):
            actions = {action.name: action for action in self._coordinator.actions(self._team)}
            tools = {**tools, **actions}
            withheld = self._withheld(tools)
        if tuple(withheld.items()) != self._run.state.withheld:
            event = ToolsWithheld(step=self._run.state.step, tools=tuple(withheld.items()))
            await self._run.append(event)
        allowed = [tool for tool in tools.values() if tool.name not in withheld]
        team = tuple(tool for tool in allowed if tool.name in actions)
        # The policy is about the agent's own tools; who leads a team can always do so.
        own = await self._offers.choose([tool for tool in allowed if tool.name not in actions])
        offered = (*own, *team)
        presented = self._offers.presented(allowed)
        view = View(
            state=self._run.state,
            tools=offered,
            withheld=self._run.state.withheld,
            presented=None if presented is None else (*presented, *(tool.spec for tool in team)),
        )
        answers = await self._answers(view)
        with self._run.span("agent", "planner"):
            readings = [self._planner.read(self._alone(view, e), e) for e in answers]
        outcomes = await self._follow(readings, answers, tools, actions)
        self._asker.judge({e.branch: o.outcome for e, o in zip(answers, outcomes, strict=True)})
        wanted = [reading for reading in readings if isinstance(reading, WantsTools)]
        explained = [r for r in readings if isinstance(r, WantsTools | Answers | Thought)]
        await self._run.note(
            StepEnded(
                step=answers[0].step,
                outcome=outcomes[-1].outcome,
                detail=outcomes[-1].detail,
                decisions=(
                    *(self._choice(reading, offered) for reading in wanted),
                    *(replace(d, at_s=self._run.around.clock()) for r in explained for d in r.decisions),
                ),
                branches=outcomes if len(outcomes) > 1 else (),
            )
        )

    def _withheld(self, tools: Mapping[str, Tool]) -> dict[str, str]:
        """Which of the agent's tools may not be called now, and why: said to the model and in the record."""
        reasons: dict[str, str] = {}
        for tool in tools.values():
            if tool.blocked:
                reasons[tool.name] = tool.blocked
            try:
                self._rules.check(tool.name)
            except Forbidden as error:
                reasons[tool.name] = str(error)
        others = [tool for tool in tools.values() if tool.name not in reasons]
        return reasons | dict(self._planner.withholds(self._run.state, others))

    async def _answers(self, view: View) -> tuple[Exchange, ...]:
        """The step's answers, one or one for each parallel call; those left by a crash are not asked anew."""
        answered = self._run.state.open
        if not answered or len(answered) < answered[-1].branches or not answered[-1].selected:
            before = self._alone(view, None)
            with self._run.span("agent", "planner"):
                draft = self._planner.draft(before)
            if isinstance(draft, Decided):
                decided = PlannerDecided(
                    step=view.state.step,
                    purpose=draft.purpose,
                    text=draft.text,
                    calls=draft.calls,
                    label=draft.label,
                )
                await self._run.append(decided)
            else:
                await self._ask(before, draft.calls if isinstance(draft, ParallelDraft) else (draft,))
        return self._run.state.open

    async def _ask(self, view: View, drafts: Sequence[ModelCallDraft | Alternatives]) -> None:
        """Makes the calls that have no answer yet, at once; answers are journaled in their order."""
        there = self._run.state.open
        missing = [n for n in range(len(drafts)) if n >= len(there) or not there[n].selected]
        turns, waiting = Turns(missing), {n for n in missing if n >= len(there)}

        async def one(number: int) -> None:
            branch = Branch(number=number, of=len(drafts), turns=turns, waiting=waiting)
            if number >= len(there):
                await self._asker.ask(drafts[number], branch)
            newest = self._run.state.open[number]
            if not newest.selected:
                await self._select(view, newest)
            branch.over()

        await together(one(number) for number in missing)

    async def _select(self, view: View, exchange: Exchange) -> None:
        """Has the planner take one of several samples, and journals which and why."""
        with self._run.span("agent", "planner"):
            taken = self._planner.select(view, sampled(exchange))
        event = SampleSelected(
            step=exchange.step,
            attempt=exchange.attempt,
            index=taken.index,
            branch=exchange.branch,
            decisions=(replace(taken.decision, at_s=self._run.around.clock()),),
        )
        await self._run.append(event)

    def _alone(self, view: View, exchange: Exchange | None) -> View:
        """The view in which this exchange, or none, is all that the step under way has."""
        state = self._run.state
        only = (*state.closed, exchange) if exchange is not None else state.closed
        return replace(view, state=changed(state, exchanges=only))

    @property
    def _team(self) -> Team:
        state = self._run.state
        return Team(state=state, members=self._coordinator.members(state))

    async def _coordinated(self) -> bool:
        """A step that the coordinator decides without the lead; False when the lead has the step."""
        state = self._run.state
        if state.current is None:
            with self._run.span("agent", "coordinator"):
                move = self._coordinator.next(self._team)
            match move:
                case LeadActs():
                    return False
                case Assigns():
                    given = enumerate(move.assignments)
                    calls = tuple(as_call(number, state.step, each) for number, each in given)
                    event = Coordinated(step=state.step, calls=calls)
                case Concludes():
                    event = Coordinated(step=state.step, answer=move.answer)
                case GivesUp():
                    event = Coordinated(step=state.step, answer=move.answer, problem=move.why)
            now_s = self._run.around.clock()
            decisions = tuple(replace(decision, at_s=now_s) for decision in move.decisions)
            await self._run.append(replace(event, decisions=decisions))
        current = self._run.state.current
        assert current is not None, "a move opens an exchange"
        if not current.coordinated:
            return False
        outcome: StepOutcome = "refused" if current.detail else "answered"
        if current.calls:
            action = delegate_action(self._team.members)
            await self._actor.act((current,), {action.name: action}, (action.name,))
            current = self._run.state.current
            assert current is not None, "acting leaves the step open"
            outcome = "called_tools" if worst(current) == "ok" else "failed"
        await self._run.note(StepEnded(step=current.step, outcome=outcome, detail=current.detail))
        return True

    async def _follow(
        self,
        readings: Sequence[Reading],
        answers: Sequence[Exchange],
        tools: Mapping[str, Tool],
        actions: Collection[str],
    ) -> tuple[BranchOutcome, ...]:
        """What each answer came to, once all that they want has been done."""
        both = list(zip(readings, answers, strict=True))
        acting = [e for reading, e in both if isinstance(reading, WantsTools)]
        needs = {e.branch: r.needs for r, e in both if isinstance(r, WantsTools) and r.needs is not None}
        if acting:
            await self._actor.act(acting, tools, actions, needs)
        return tuple([await self._outcome(reading, answer) for reading, answer in both])

    async def _outcome(self, reading: Reading, answer: Exchange) -> BranchOutcome:
        state = self._run.state
        match reading:
            case MadePlan():
                again = any(e.outcome in ("planned", "replanned") for e in state.closed)
                planned = Planned(
                    step=answer.step, goals=reading.goals, needs=reading.needs, decisions=reading.decisions
                )
                await self._run.append(planned)
                return BranchOutcome(outcome="replanned" if again else "planned")
            case WantsTools():
                done = next(e for e in state.open if e.branch == answer.branch)
                return BranchOutcome(outcome="called_tools" if worst(done) == "ok" else "failed")
            case Answers():
                cut = f"the answer reached its limit of tokens ({answer.reason})"
                return BranchOutcome(outcome="answered", detail=cut if answer.reason == "length" else "")
            case Thought():
                return BranchOutcome(outcome="thought")
            case Unusable():
                return BranchOutcome(outcome="failed", detail=reading.problem)
            case Refuses():
                return BranchOutcome(outcome="refused", detail=reading.why)

    def _choice(self, reading: WantsTools, offered: Sequence[Tool]) -> Decision:
        """The model's choice of tools, for the record."""
        return Decision(
            layer="agent",
            policy=self._planner.name,
            subject="tool",
            chosen=", ".join(call.name for call in reading.calls),
            candidates=tuple((tool.name, None) for tool in offered),
            at_s=self._run.around.clock(),
        )

    def _ending(self) -> RunEnded | None:
        """How the run ends now, or None while it goes on."""
        state = self._run.state
        last = state.closed[-1] if state.closed else None
        if last is None or state.open:
            return None
        lost = unsuccessful(state) if last.outcome == "answered" else ""
        if lost:
            error = f"the last tools called had no success: {lost}"
            return RunEnded(status="failed", answer=last.text.strip(), error=error)
        if last.outcome == "answered":
            return RunEnded(status="answered", answer=last.text.strip(), error=last.detail or None)
        if last.outcome == "refused":
            return RunEnded(status="refused", answer=partial(state.closed), error=last.detail)
        if self._planner.exhausted(state):
            error = problem_of(last) or "the step failed"
            return RunEnded(status="failed", answer=partial(state.closed), error=shown(error))
        if state.step > state.spec.max_steps:
            error = f"no answer within {state.spec.max_steps} steps; raise max_steps"
            return RunEnded(status="out_of_steps", answer=partial(state.closed), error=error)
        return None
