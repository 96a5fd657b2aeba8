"""Run: one run while a process works on it. Owns its state; every change goes through the journal."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar, cast

from pentad.agent.approval import ApprovalDesk
from pentad.agent.budget import Amount
from pentad.agent.events import Event, Record, StepEnded
from pentad.agent.expectations import Outlook, ToolTimes
from pentad.agent.journal import Journal, RunLost
from pentad.agent.journal_store.base import JournalUnavailable
from pentad.agent.model_events import ModelAnswered, ModelAsked, TextStreamed
from pentad.agent.ports import ModelPort
from pentad.agent.prompt_store import PromptText
from pentad.agent.run_places import Tracing
from pentad.agent.stalls import Stalls
from pentad.agent.state import RunState
from pentad.agent.stopwatch import Stopwatch
from pentad.agent.sub_run_events import SubRunStarted
from pentad.agent.tool_events import ToolIntended
from pentad.agent.tool_places import ToolPlaces
from pentad.model.relevance import Relevance
from pentad.types import Clock, Layer, Request, RunContext, Span

T = TypeVar("T")
Publish = Callable[[Record], None]
Watcher = Callable[[RunState], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all runs of a process share."""

    models: ModelPort
    journal: Journal
    stalls: Stalls
    relevance: Relevance
    """Scores texts against goals, with an encoder if one is served."""
    publish: Publish
    """Hands a live-only record to whoever follows the run."""
    clock: Clock = time.monotonic
    wall: Clock = time.time
    tool_times: ToolTimes = field(default_factory=ToolTimes)
    tool_places: ToolPlaces = field(default_factory=ToolPlaces)
    """Of tools that bear only so many calls at once."""
    tracing: Tracing | None = None
    """What is recorded of runs in traces; None where none are exported."""


class Run:
    """State, journal and clock of one run under way. Used by one task and the calls it awaits."""

    def __init__(self, surroundings: Surroundings, state: RunState, watcher: Watcher | None = None) -> None:
        self.around = surroundings
        self.state = state
        self.begun = False
        """Whether its task has done anything yet."""
        self.cancelled = False
        """Whether its task is cancelled to end it, and not only to stop the work."""
        self._watcher = watcher
        """Is told of each change of `status`: the run that this is a sub-run of."""
        self._spans: list[Span] = []
        self._noted: list[Record] = []
        self._writing = 0
        self._reserving = asyncio.Lock()
        self._attempts = state.attempt
        self._deadline: asyncio.Timeout | None = None
        self._pauses = 0
        self._stalled_s = 0.0
        self.approvals = ApprovalDesk(self)
        tracing = surroundings.tracing
        self.place = None if tracing is None else tracing.place(state.run_id, state.traceparent)
        """Where it stands in a trace; None where none are exported."""
        self._kept: PromptText | None = None
        """The latest prompt of the run that was kept, which the next one likely goes on from."""
        self.prompted: Request | None = None
        """The latest model call of the run in this process, but for questions on the side."""

    async def append(self, event: Event, *, prompt: PromptText | None = None) -> None:
        """Journals an event, with a prompt that may be kept, then lets it change the state.

        While the disk is full or broken it waits; that time is not of the run's budget.
        """
        spans, self._spans = self._spans, []
        kept = None
        if prompt is not None and self.around.journal.retention.keeps(self.state.data_label):
            kept = self._kept = prompt.behind(self._kept)
        self._writing += 1
        try:
            with self.span("agent", "journal"):
                record = await self._written(event, spans, kept)
        finally:
            self._writing -= 1
        before, self.state = self.state, self.state.apply(record)
        if self._watcher is not None and self.state.status != before.status:
            await asyncio.shield(asyncio.ensure_future(self._watcher(self.state)))

    async def note(self, event: ModelAnswered | StepEnded) -> None:
        """Lets an event change the state, and journals it with the run's next one, in one transaction.

        For what nothing outside follows from before that: a crash between loses both, as one before would.
        """
        if self._writing:  # who writes now numbers the next record
            await self.append(event)
            return
        spans, self._spans = self._spans, []
        record = Record(
            run_id=self.state.run_id,
            sequence=self.state.sequence + 1,
            at_s=self.around.wall(),
            clock_s=self.around.journal.clock(),
            event=event,
            spans=tuple(spans),
        )
        self._noted.append(record)
        self.state = self.state.apply(record)

    async def flush(self) -> None:
        """Journals what was noted, when nothing more comes of the run in this process."""
        if self._noted and not self.state.ended:
            *before, last = self._noted
            self._noted = []
            with contextlib.suppress(JournalUnavailable, RunLost):
                journal, run_id = self.around.journal, self.state.run_id
                event = cast(Event, last.event)
                await asyncio.shield(journal.queue(run_id, event, last.spans, before=tuple(before)))

    async def _written(self, event: Event, spans: Sequence[Span], prompt: PromptText | None) -> Record:
        before, self._noted = tuple(self._noted), []

        async def write() -> Record:
            journal, run_id = self.around.journal, self.state.run_id
            written = journal.queue(run_id, event, spans, prompt=prompt, before=before)
            try:
                return await asyncio.shield(written)
            except asyncio.CancelledError:
                # It is written all the same: whoever ends the run now must know, or it would end twice.
                with contextlib.suppress(JournalUnavailable):
                    self.state = self.state.apply(await written)
                raise

        return await self.insist(write)

    async def insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What `ask` gives, once the journal answers; the time until then is not of the run's budget."""
        try:
            return await ask()
        except JournalUnavailable:
            begun_s = self.around.clock()
            with self.paused():
                found = await self.around.stalls.insist(self.state.run_id, ask)
                self._stalled_s += self.around.clock() - begun_s
            return found

    async def read(self, run_id: str) -> list[Record]:
        """A run's records, once the journal answers. Raises NotFound, JournalDamaged."""
        return await self.insist(partial(asyncio.to_thread, self.around.journal.read, run_id))

    async def reserve(
        self,
        amount: Amount,
        event: ModelAsked | ToolIntended | SubRunStarted,
        *,
        prompt: PromptText | None = None,
    ) -> None:
        """Journals the event that holds `amount`. Raises BudgetExceeded if there is no room for it."""
        async with self._reserving:
            self.state.ledger.check(amount)
            await self.append(event, prompt=prompt)

    def next_attempt(self) -> int:
        """The number of the next model call of this step; unique also among concurrent ones."""
        self._attempts = max(self._attempts, self.state.attempt) + 1
        return self._attempts

    def start_step(self) -> None:
        """Numbers model calls from 1 again, as the state does after a step's end."""
        self._attempts = self.state.attempt

    def stream(self, event: TextStreamed) -> None:
        """Shows a live-only event to whoever follows the run."""
        record = Record(
            run_id=self.state.run_id,
            sequence=self.state.sequence,
            at_s=self.around.wall(),
            clock_s=self.around.clock(),
            event=event,
        )
        self.around.publish(record)

    def span(self, layer: Layer, name: str) -> Stopwatch:
        """Notes the time that the body takes; it is journaled with the next event."""
        return Stopwatch(self, self.around.clock, layer, name)

    def timed(self, span: Span) -> None:
        """Takes a span to the next event."""
        self._spans.append(span)

    @contextlib.asynccontextmanager
    async def deadline(self) -> AsyncIterator[asyncio.Timeout]:
        """Bounds the body by the wall time that the budget leaves; pauses do not count."""
        async with asyncio.timeout(self.wall_left_s()) as self._deadline:
            try:
                yield self._deadline
            finally:
                deadline, self._deadline = self._deadline, None
                if not deadline.expired():
                    deadline.reschedule(None)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """While the body waits for a person, wall time is not used up."""
        self._pauses += 1
        self._reschedule()
        try:
            yield
        finally:
            self._pauses -= 1
            self._reschedule()

    def _reschedule(self) -> None:
        if self._deadline is None or self._deadline.expired():
            return
        left_s = None if self._pauses else self.wall_left_s()
        now_s = asyncio.get_running_loop().time()
        self._deadline.reschedule(None if left_s is None else now_s + left_s)

    def context(self, outlook: Outlook) -> RunContext:
        """What travels down with a model call of this run."""
        state = self.state
        return RunContext(
            run_id=state.run_id,
            step=state.step,
            graph=outlook.graph,
            node=outlook.node,
            parent=outlook.parent,
            hints=outlook.hints,
            objective=state.objective,
            budget=replace(self.state.budget_left, wall_s=self.wall_left_s()),
            data_label=state.data_label,
            task=state.spec.name,
        )

    def wall_left_s(self) -> float | None:
        """Seconds of wall time that the budget leaves from now on."""
        limit = self.state.ledger.budget.wall_s
        if limit is None:
            return None
        since_s = 0.0 if self.state.status == "waiting" else self.around.clock() - self.state.clock_s
        return max(0.0, limit + self._stalled_s - self.state.active_s - since_s)
