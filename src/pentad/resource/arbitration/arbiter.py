"""Arbiter: lets tasks of one event loop wait for what they share."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pentad.resource.arbitration.allocation import Allocation, Amounts


class Grip:
    """One holder's hands: takes and gives back within its claim. Made by `Arbiter.enter`."""

    def __init__(self, arbiter: Arbiter, holder: str) -> None:
        self._arbiter = arbiter
        self._holder = holder

    @property
    def held(self) -> Amounts:
        """What it holds now."""
        return self._arbiter.allocation.held(self._holder)

    @asynccontextmanager
    async def hold(self, wants: Amounts) -> AsyncIterator[None]:
        """Waits for the amounts and holds them for the time of the block.

        Cancelled while it waits, it holds what it held before. Raises InvalidRequest beyond the claim.
        """
        await self._arbiter.take(self._holder, wants)
        try:
            yield
        finally:
            self._arbiter.give(self._holder, wants)


class Arbiter:
    """Shares models, KV blocks and tools of one process among its agents; see `Allocation` for the rules.

    Args:
        allocation: what there is, and what a tenant may hold of it.
    """

    def __init__(self, allocation: Allocation) -> None:
        self.allocation = allocation
        self._waits: dict[str, asyncio.Future[None]] = {}
        self._names = itertools.count()

    @asynccontextmanager
    async def enter(self, claim: Amounts, *, tenant: str = "default") -> AsyncIterator[Grip]:
        """A holder for the time of the block, with the most that it will hold at one time.

        Raises UnknownName, Infeasible: see `Allocation.enter`.
        """
        holder = f"{tenant}/{next(self._names)}"
        self.allocation.enter(holder, claim, tenant=tenant)
        try:
            yield Grip(self, holder)
        finally:
            self._tell(self.allocation.leave(holder))

    async def take(self, holder: str, wants: Amounts) -> None:
        """Waits until the holder has been granted what it wants."""
        granted_now = self.allocation.ask(holder, wants)
        self._tell(granted_now)
        if holder in granted_now:
            return
        granted = self._waits[holder] = asyncio.get_running_loop().create_future()
        try:
            await granted
        except BaseException:
            if granted.done() and not granted.cancelled():  # it came and nobody waits for it any more
                self.give(holder, wants)
            else:
                self._tell(self.allocation.withdraw(holder))
            raise
        finally:
            self._waits.pop(holder, None)

    def give(self, holder: str, amounts: Amounts) -> None:
        """Takes back what the holder returns."""
        self._tell(self.allocation.give(holder, amounts))

    def _tell(self, granted: tuple[str, ...]) -> None:
        for holder in granted:
            waits = self._waits.get(holder)
            if waits is not None and not waits.done():
                waits.set_result(None)
