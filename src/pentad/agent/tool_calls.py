"""Tool calls of a run: intent journaled before the effect, result after; each effect exactly once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from pentad.agent.approval import WAITING
from pentad.agent.budget import Amount
from pentad.agent.chained_calls import in_order
from pentad.agent.coordination.base import Coordinator
from pentad.agent.delegation import Delegation, Terms
from pentad.agent.exchange import Exchange
from pentad.agent.model_calls import ModelCalls
from pentad.agent.off_loop import off_loop
from pentad.agent.parallel import Turns, together
from pentad.agent.planning.base import Needs
from pentad.agent.run import Run
from pentad.agent.run_places import tool_call
from pentad.agent.taint import tainted
from pentad.agent.tool_events import ApprovalAnswered, ToolIntended, ToolReturned, ToolStatus
from pentad.agent.tool_places import WAIT
from pentad.agent.tools.base import Question, Reply, Tool, ToolContext
from pentad.agent.tools.invocation import Outcome, ToolRules, call, in_doubt, parse
from pentad.agent.tools.schema import plain
from pentad.errors import Forbidden, PentadError
from pentad.tracing.context import CURRENT
from pentad.types import ToolCall

MAX_AT_ONCE = 8
NONE_WAITS: Mapping[int, Needs] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """A call that can be made."""

    exchange: Exchange
    place: int
    """In the exchange."""
    tool: Tool
    wanted: ToolCall
    arguments: dict[str, Any]
    """Checked."""

    @property
    def number(self) -> int:
        """The call's number in the step, over all of its branches."""
        return self.exchange.first + self.place


class ToolCalls:
    """Carries out the tool calls of one run."""

    def __init__(
        self, run: Run, rules: ToolRules, asker: ModelCalls, team: Coordinator, delegation: Delegation
    ) -> None:
        self._run = run
        self._team = team
        self._delegation = delegation
        self._rules = rules
        self._asker = asker
        self._most = run.state.spec.max_result_bytes
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)

    async def act(
        self,
        exchanges: Sequence[Exchange],
        tools: Mapping[str, Tool],
        actions: Collection[str] = (),
        needs: Mapping[int, Needs] = NONE_WAITS,
    ) -> None:
        """Completes every call of a step's exchanges that has no result yet.

        Calls that cannot be made (no such tool, bad arguments, denied) get their result at once.
        The others are reserved together, so that a turn is carried out whole or not at all. Results of
        `actions`, the tools that give tasks to members, are journaled in the order of the calls, whatever
        finishes first; so are all those of parallel branches, but for effects that cannot be repeated: a
        result that waits to be written is in doubt after a crash.

        Args:
            needs: by branch, where calls wait for others of the same exchange. Such results are journaled
                as they come.

        Raises BudgetExceeded when they cannot be afforded.
        """
        tasks = sum(wanted.name in actions for e in exchanges for wanted in e.calls)
        chained = [e for e in exchanges if e.branch in needs]
        if chained:
            one = partial(self._single, tools=tools, actions=actions, tasks=tasks)
            await together(in_order(self._run, e, needs[e.branch], tools, one) for e in chained)
        ready: list[_Ready] = []
        for exchange in exchanges:
            if exchange not in chained:
                for place in exchange.open_calls:
                    ready += await self._ready(exchange, place, exchange.calls[place], tools)
        fresh = [r for r in ready if (r.exchange.step, r.number) not in self._run.state.intents]
        self._run.state.ledger.check(Amount(tool_calls=len(fresh), cost=sum(r.tool.cost for r in fresh)))
        denied = await self._denied(fresh)
        for item in fresh:
            if item.number not in denied:
                await self._intend(item)
        left = [item for item in ready if item.number not in denied]
        await self._carry_out(left, actions, parallel=len(exchanges) > 1, tasks=tasks)

    async def _single(
        self,
        exchange: Exchange,
        place: int,
        made: ToolCall | Outcome,
        *,
        tools: Mapping[str, Tool],
        actions: Collection[str],
        tasks: int,
    ) -> None:
        """Carries out one call, or writes down why it is not made."""
        if isinstance(made, Outcome):
            await self._returned(exchange, place, made)
            return
        ready = await self._ready(exchange, place, made, tools)
        begun = self._run.state.intents
        fresh = [item for item in ready if (exchange.step, item.number) not in begun]
        if await self._denied(fresh):
            return
        for item in fresh:
            await self._intend(item)
        await self._carry_out(ready, actions, parallel=False, tasks=tasks)

    async def _ready(
        self, exchange: Exchange, place: int, wanted: ToolCall, tools: Mapping[str, Tool]
    ) -> list[_Ready]:
        """The call, if it can be made; else its result is written, and there is none."""
        intent = self._run.state.intents.get((exchange.step, exchange.first + place))
        if intent is not None and intent.effects == "unkeyed":
            text = in_doubt(wanted.name, "the process was killed while it ran")
            await self._returned(exchange, place, Outcome(status="unknown", content=text))
            return []
        with self._run.span("agent", "check"):
            # In a thread: a stranger's schema may take a while.
            check = partial(self._check, exchange.step, wanted, tools)
            simple = wanted.name not in tools or plain(tools[wanted.name].parameters)
            chars = len(wanted.arguments)
            checked = await (off_loop(check, chars=chars) if simple else asyncio.to_thread(check))
        if isinstance(checked, Outcome):
            await self._returned(exchange, place, checked)
            return []
        tool, arguments = checked
        return [_Ready(exchange=exchange, place=place, tool=tool, wanted=wanted, arguments=arguments)]

    async def _denied(self, fresh: Sequence[_Ready]) -> set[int]:
        """Asks a person about each call that the agent's `ask` names, all at once; those that may not be."""
        desk = self._run.approvals
        doubts = {item.number: self._doubt(item) for item in fresh}
        asked = [item for item in fresh if desk.needed(item.tool.name) or doubts[item.number]]
        if not asked:
            return set()
        step = asked[0].exchange.step
        with self._run.span("agent", WAITING):
            for item in asked:
                if self._run.state.answer_to(step, item.number) is None:
                    await desk.ask(
                        step, item.number, item.tool.name, item.wanted.arguments, message=doubts[item.number]
                    )
            own = {item.number for item in asked}
            pending = self._run.state.pending.items()
            waited = [i for i, question in pending if question.step == step and question.index in own]
            await together(desk.wait(i) for i in waited)
        denied = set()
        for item in asked:
            answer = self._run.state.answer_to(step, item.number)
            assert answer is not None, "every question of the step has been answered"
            if not answer.approved:
                denied.add(item.number)
                await self._returned(item.exchange, item.place, _refusal(item.tool.name, answer))
        return denied

    def _doubt(self, item: _Ready) -> str:
        """Why a person should look at a call that foreign content may have led to."""
        return tainted(self._run.state, item.exchange.step, item.arguments, item.tool.name)

    def _check(
        self, step: int, wanted: ToolCall, tools: Mapping[str, Tool]
    ) -> tuple[Tool, dict[str, Any]] | Outcome:
        try:
            self._rules.check(wanted.name)
        except Forbidden as error:
            return Outcome(status="denied", content=str(error))
        if wanted.name in tools and tools[wanted.name].blocked:
            return Outcome(status="denied", content=f"{tools[wanted.name].blocked}; it may not be called")
        if wanted.name not in tools:
            known = ", ".join(tools) or "none"
            return Outcome(status="failed", content=f"there is no tool {wanted.name!r}; known: {known}")
        try:
            arguments = parse(tools[wanted.name], wanted.arguments)
        except PentadError as error:
            return Outcome(status="failed", content=str(error))
        if self._run.state.spec.sensitive.then == "deny":
            why = tainted(self._run.state, step, arguments, wanted.name)
            if why:
                return Outcome(status="denied", content=f"{wanted.name!r} was not called: {why}")
        return tools[wanted.name], arguments

    async def _intend(self, item: _Ready) -> None:
        event = ToolIntended(
            step=item.exchange.step,
            index=item.number,
            call_id=item.wanted.id,
            tool=item.tool.name,
            arguments=item.wanted.arguments,
            key=self._key(item.exchange.step, item.number),
            effects=item.tool.effects,
            reserved_cost=item.tool.cost,
        )
        await self._run.reserve(Amount(tool_calls=1, cost=item.tool.cost), event)

    async def _carry_out(
        self, ready: Sequence[_Ready], actions: Collection[str], *, parallel: bool, tasks: int
    ) -> None:
        turns = Turns(
            item.number
            for item in ready
            if item.tool.name in actions or (parallel and item.tool.effects != "unkeyed")
        )

        async def one(item: _Ready) -> None:
            tool = item.tool
            if (place := self._run.place) is not None:
                CURRENT.set(place.at(tool_call(self._run.state.run_id, item.exchange.step, item.number)))
            async with self._slots, self._place(tool):
                context = self._context(item)  # its time begins when it may be called
                if tool.name in actions:
                    share = (1 - self._team.keep_fraction) / tasks
                    terms = Terms(
                        policy=self._team.name,
                        members=self._team.members(self._run.state),
                        most=self._team.max_tasks,
                        share=share,
                    )
                    # Its time is the sub-run's own matter, which stops while a person is asked.
                    context = replace(
                        context,
                        deadline_s=math.inf,
                        delegate=partial(self._delegation.delegate, item.exchange.step, item.number, terms),
                    )
                around, begun_s = self._run.around, self._run.around.clock()
                with self._run.span("agent", f"tool {tool.name}"):
                    outcome = await call(tool, item.arguments, context, self._most)
                if tool.name not in actions:
                    around.tool_times.add(self._run.state.tenant, tool.name, around.clock() - begun_s)
            self._delegation.check()
            async with turns.of(item.number):
                await self._returned(item.exchange, item.place, outcome, cost=tool.cost)

        await together(one(item) for item in ready)

    @asynccontextmanager
    async def _place(self, tool: Tool) -> AsyncIterator[None]:
        """A place of a tool that bears only so many calls at once; the wait for it is a span of its own."""
        places, tenant = self._run.around.tool_places, self._run.state.tenant
        async with AsyncExitStack() as held:
            with self._run.span("agent", WAIT) if places.taken(tool, tenant) else nullcontext():
                await held.enter_async_context(places.hold(tool, tenant))
            yield

    def _context(self, item: _Ready) -> ToolContext:
        tool = item.tool
        around, left_s = self._run.around, self._run.wall_left_s()
        left = self._run.state.left
        allowed_s = tool.timeout_s if left_s is None else min(tool.timeout_s, left_s)
        return ToolContext(
            key=self._key(item.exchange.step, item.number),
            run_id=self._run.state.run_id,
            tenant=self._run.state.tenant,
            agent=self._run.state.spec.name,
            deadline_s=around.clock() + allowed_s,
            clock=around.clock,
            wall=around.wall,
            ask=self._asker.tool_ask,
            ask_other=self._asker.other_ask,
            surprise=self._asker.surprise,
            question=self._question(item),
            left_turns={turn.id: turn.text for turn in left.turns} if left else {},
        )

    def _question(self, item: _Ready) -> Question:
        async def ask(text: str, schema: Mapping[str, Any] | None) -> Reply:
            desk = self._run.approvals
            place = (item.exchange.step, item.number, item.tool.name, item.wanted.arguments)
            asked = await desk.ask(*place, kind="input", message=text, schema=schema)
            answer = await desk.wait(asked)
            if answer.by == "timeout":
                return Reply(action="cancel")
            return Reply(action="accept" if answer.approved else "decline", content=answer.content)

        return ask

    def _key(self, step: int, index: int) -> str:
        return f"{self._run.state.run_id}:{step}:{index}"

    async def _returned(self, exchange: Exchange, place: int, outcome: Outcome, cost: float = 0.0) -> None:
        wanted = exchange.calls[place]
        await self._run.append(
            ToolReturned(
                step=exchange.step,
                index=exchange.first + place,
                call_id=wanted.id,
                tool=wanted.name,
                status=outcome.status,
                content=outcome.content,
                cut_bytes=outcome.cut_bytes,
                limit=outcome.limit,
                cost=cost,
                source=outcome.source,
                decisions=outcome.decisions,
            )
        )


def _refusal(tool: str, answer: ApprovalAnswered) -> Outcome:
    if answer.by == "timeout":
        return Outcome(status="denied", content=f"{tool!r} was not called: {answer.note}")
    words = f" and said: {answer.note}" if answer.note else ""
    return Outcome(status="denied", content=f"{tool!r} was not called: a person denied it{words}")


def worst(exchange: Exchange) -> ToolStatus:
    """`ok` if any call was of use, else the status of the first."""
    statuses = [result.status for _, result in sorted(exchange.results.items())]
    return "ok" if any(s in ("ok", "unknown") for s in statuses) else statuses[0]
