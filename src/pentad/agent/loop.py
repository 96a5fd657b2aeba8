"""The agent's loop: ask the model, read its answer, act on it, end the step; until the run ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from pentad.agent.events import Planned, RunEnded, StepEnded, StepOutcome
from pentad.agent.memory.base import Memory
from pentad.agent.model_calls import ModelCalls
from pentad.agent.planning.base import (
    Answers,
    MadePlan,
    ModelCallDraft,
    Planner,
    Reading,
    Refuses,
    Unusable,
    View,
    WantsTools,
)
from pentad.agent.planning.progress import call_shaped, problem_of, unsuccessful
from pentad.agent.run import Run
from pentad.agent.run_memory import Remembering
from pentad.agent.state import Exchange
from pentad.agent.tool_calls import ToolCalls, worst
from pentad.agent.tool_events import ToolsWithheld
from pentad.agent.tool_offers import ToolOffers
from pentad.agent.tools.base import Tool
from pentad.agent.tools.invocation import ToolRules, shown
from pentad.errors import Forbidden
from pentad.types import Decision

FindTools = Callable[[], Awaitable[Mapping[str, Tool]]]
"""The tools that the agent may use now; asked before every step, so new ones are seen at once."""


class Loop:
    """Works on one run until it ends."""

    def __init__(
        self, run: Run, planner: Planner, rules: ToolRules, find_tools: FindTools, memory: Memory | None
    ) -> None:
        self._run = run
        self._remembering = Remembering(run, memory)
        self._planner = planner
        self._rules = rules
        self._find_tools = find_tools
        self._offers = ToolOffers(run)
        self._asker = ModelCalls(run)
        self._actor = ToolCalls(run, rules, self._asker)

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
        with self._run.span("agent", "tools"):
            tools = await self._find_tools()
            withheld = self._withheld(tools)
        if tuple(withheld.items()) != self._run.state.withheld:
            event = ToolsWithheld(step=self._run.state.step, tools=tuple(withheld.items()))
            await self._run.append(event)
        allowed = [tool for tool in tools.values() if tool.name not in withheld]
        offered = await self._offers.choose(allowed)
        view = View(state=self._run.state, tools=offered, withheld=self._run.state.withheld)
        answer = self._run.state.current or await self._ask(view)
        with self._run.span("agent", "planner"):
            reading = self._planner.read(view, answer)
        outcome, detail = await self._follow(reading, answer, tools)
        decisions = (self._choice(reading, offered),) if isinstance(reading, WantsTools) else ()
        await self._run.append(
            StepEnded(step=answer.step, outcome=outcome, detail=detail, decisions=decisions)
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

    async def _ask(self, view: View) -> Exchange:
        with self._run.span("agent", "planner"):
            draft = self._planner.draft(view)
        assert isinstance(draft, ModelCallDraft), "no registered planner asks several at once yet"
        await self._asker.ask(draft)
        answer = self._run.state.current
        assert answer is not None, "an answer to a draft opens an exchange"
        return answer

    async def _follow(
        self, reading: Reading, answer: Exchange, tools: Mapping[str, Tool]
    ) -> tuple[StepOutcome, str]:
        state = self._run.state
        match reading:
            case MadePlan():
                again = any(e.outcome in ("planned", "replanned") for e in state.closed)
                await self._run.append(
                    Planned(step=answer.step, goals=reading.goals, decisions=reading.decisions)
                )
                return ("replanned" if again else "planned"), ""
            case WantsTools():
                await self._actor.act(answer, tools)
                current = self._run.state.current
                assert current is not None, "acting leaves the step open"
                return ("called_tools" if worst(current) == "ok" else "failed"), ""
            case Answers():
                cut = f"the answer reached its limit of tokens ({answer.reason})"
                return "answered", cut if answer.reason == "length" else ""
            case Unusable():
                return "failed", reading.problem
            case Refuses():
                return "refused", reading.why

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
        if last is None or state.current is not None:
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


def partial(exchanges: tuple[Exchange, ...]) -> str:
    """The best that an unfinished run has: its last text, or else what its tools returned."""
    for exchange in reversed(exchanges):
        said = exchange.text.strip() if exchange.purpose in ("act", "answer") else ""
        if said and not call_shaped(said):
            return said
    found = [r.content for e in exchanges for _, r in sorted(e.results.items()) if r.status == "ok"]
    return shown("\n".join(found))
