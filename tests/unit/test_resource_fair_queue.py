"""Tenants take turns at an engine: few at once while others are active, the one with least there first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from pentad.execution.hints import TurnHints
from pentad.resource.fair_queue import RECENT_S, FairQueue

TENANTS = frozenset({"ann", "bob", "cid"})


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Door:
    """Enters turns as tasks, so that a test sees who is inside."""

    def __init__(self, sequences: int = 8, contended: int = 2) -> None:
        self.time = Time()
        self.turns = FairQueue(TENANTS, sequences=sequences, contended=contended, clock=self.time)
        self.inside: list[str] = []
        self._leave: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(
        self, name: str, sequences: int = 1, priority: int = 0, hints: TurnHints | None = None
    ) -> None:
        self._leave[name] = asyncio.Event()
        turn = self.turns.turn(name.split(".")[0], sequences, priority, hints)
        self.tasks[name] = asyncio.create_task(self._stay(name, turn))
        await self.settle()

    async def _stay(self, name: str, turn: AbstractAsyncContextManager[None]) -> None:
        async with turn:
            self.inside.append(name)
            await self._leave[name].wait()
            self.inside.remove(name)

    async def leave(self, name: str) -> None:
        self._leave[name].set()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


@asynccontextmanager
async def door(**options: int) -> AsyncIterator[Door]:
    made = Door(**options)
    try:
        yield made
    finally:
        for task in made.tasks.values():
            task.cancel()
        await asyncio.gather(*made.tasks.values(), return_exceptions=True)
        assert made.turns.waiting == 0
        assert made.turns._inside.total() == 0


def test_alone_a_tenant_has_most_of_the_engine_and_leaves_room_for_who_comes() -> None:
    async def run() -> None:
        async with door() as it:
            for i in range(9):
                await it.ask(f"ann.{i}")
            assert len(it.inside) == 6
            await it.ask("bob.0")
            assert "bob.0" in it.inside

    asyncio.run(run())


def test_while_another_is_active_none_has_more_than_the_contended_number() -> None:
    async def run() -> None:
        async with door() as it:
            await it.ask("bob.0")
            for i in range(5):
                await it.ask(f"ann.{i}")
            assert it.inside == ["bob.0", "ann.0", "ann.1"]
            await it.leave("bob.0")
            await it.leave("ann.0")
            assert it.inside == ["ann.1", "ann.2"], "bob was here a moment ago"
            it.time.now = RECENT_S + 1
            await it.leave("ann.1")
            assert it.inside == ["ann.2", "ann.3", "ann.4"]

    asyncio.run(run())


def test_of_a_tenants_requests_the_most_urgent_goes_first_and_never_before_others_shares() -> None:
    async def run() -> None:
        async with door(contended=1) as it:
            await it.ask("bob.0")
            await it.ask("ann.0")
            await it.ask("ann.late", priority=3)
            await it.ask("ann.soon", priority=-(2**31))
            await it.ask("cid.0")
            assert sorted(it.inside) == ["ann.0", "bob.0", "cid.0"]
            await it.leave("ann.0")
            assert "ann.soon" in it.inside
            await it.leave("ann.soon")
            assert "ann.late" in it.inside

    asyncio.run(run())


def test_one_request_with_many_choices_is_let_in_when_its_tenant_has_nothing_there() -> None:
    async def run() -> None:
        async with door() as it:
            await it.ask("bob.0")
            await it.ask("ann.many", sequences=128)
            await it.ask("ann.next")
            assert it.inside == ["bob.0", "ann.many"]
            await it.leave("ann.many")
            assert it.inside == ["bob.0", "ann.next"]

    asyncio.run(run())


def test_who_gives_up_waiting_leaves_no_trace_and_holds_up_nobody() -> None:
    async def run() -> None:
        async with door() as it:
            await it.ask("bob.0")
            await it.ask("ann.many", sequences=2)
            await it.ask("ann.wide", sequences=2)
            await it.ask("ann.next")
            it.tasks["ann.wide"].cancel()
            await it.leave("ann.many")
            assert it.inside == ["bob.0", "ann.next"]

    asyncio.run(run())


def test_probes_of_the_server_itself_never_wait() -> None:
    async def run() -> None:
        async with door(sequences=1, contended=1) as it:
            await it.ask("ann.0")
            await it.ask("health.0")
            assert it.inside == ["ann.0", "health.0"]

    asyncio.run(run())


def test_who_is_wanted_sooner_waits_less_but_nobody_longer_than_the_patience() -> None:
    async def scenario() -> None:
        async with door(sequences=1) as d:
            await d.ask("ann.0")
            await d.ask("ann.old")
            d.time.now = 29.0
            await d.ask("ann.soon", hints=TurnHints(slack_s=0.0))
            d.time.now = 31.0
            await d.ask("ann.late", hints=TurnHints(slack_s=0.0))
            for leaving, entering in [("0", "soon"), ("soon", "old"), ("old", "late")]:
                await d.leave(f"ann.{leaving}")
                assert d.inside == [f"ann.{entering}"]

    asyncio.run(scenario())
