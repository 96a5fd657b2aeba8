"""Load: what each tenant has under way, and whether new work is still taken."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from pentad.application.gateway.settings import GatewaySettings
from pentad.errors import Unavailable
from pentad.resource.tenant_quotas import TenantQuotas
from pentad.types import Clock

PATIENCE_S = 10.0
"""How long a body waits for memory before it is refused."""
REFUSALS_PER_S = 20.0
"""Refusals for load that one tenant gets at once; more of them wait, since each takes time of us all."""
_REFUSALS_BURST = 40
_REFUSAL_MOST_S = 10.0
"""The longest that a refusal waits."""
_READERS_PER_PLACE = 4
"""Bodies that may be on their way for each request that may be answered."""


class Load:
    """Counts work in progress by tenant; refuses more than the limits, and everything while draining."""

    def __init__(self, settings: GatewaySettings, clock: Clock) -> None:
        tenants, share = len(settings.tenant_names()), settings.tenant_share
        places = settings.max_concurrent_requests

        def shares(what: str, setting: str, limit: int) -> TenantQuotas:
            return TenantQuotas(what, setting, limit=limit, tenants=tenants, share=share)

        self.places = shares("requests being answered", "--max-concurrent-requests", places)
        self.readers = shares("bodies on their way", "--max-concurrent-requests", places * _READERS_PER_PLACE)
        self.followers = shares("followed runs", "server.max_followers", settings.max_followers)
        self.bodies = BodyMemory(
            shares("bytes of bodies", "server.body_memory_bytes", settings.body_memory_bytes)
        )
        self.refusals = RefusalPace(clock)
        self.draining = False
        self.starting = False
        """Whether the server has yet to say where it listens."""

    @property
    def active(self) -> int:
        """Requests being answered."""
        return self.places.total

    @contextmanager
    def slot(self, tenant: str) -> Iterator[None]:
        """Holds one of the places for the time of a request.

        Raises:
            Unavailable: the server is on its way out.
            Overloaded: all places, or the tenant's, are taken.
        """
        self.check()
        with self.places.hold(tenant):
            yield

    def check(self) -> None:
        """Raises Unavailable while the server is on its way out."""
        if self.draining:
            raise Unavailable("the server is shutting down", retry_after_s=5.0, hint="try another or later")


class RefusalPace:
    """When a tenant's next refusal goes out, so that one who asks on and on costs others little.

    A refused request takes about a millisecond of the event loop. Who heeds `retry-after` never waits.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due_s: dict[str, float] = {}

    def delay_s(self, tenant: str) -> float:
        """Seconds that this refusal waits: 0 within the tenant's rate, at most `_REFUSAL_MOST_S`."""
        now_s = self._clock()
        due_s = max(self._due_s.get(tenant, 0.0), now_s - _REFUSALS_BURST / REFUSALS_PER_S)
        self._due_s[tenant] = min(due_s + 1 / REFUSALS_PER_S, now_s + _REFUSAL_MOST_S)
        return max(0.0, self._due_s[tenant] - now_s)


class BodyMemory:
    """Memory for the bodies of requests under way: who does not fit waits, in turn, unread."""

    def __init__(self, shares: TenantQuotas) -> None:
        self._shares = shares
        self._waiting: deque[tuple[str, int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, tenant: str, size_bytes: int) -> AsyncIterator[None]:
        """Holds memory for a body for the time of its request; waits until it fits.

        Raises Overloaded when it does not within `PATIENCE_S`.
        """
        size_bytes = min(size_bytes, self._shares.most)
        waits = any(other == tenant for other, _, _ in self._waiting)
        if not waits and self._shares.fits(tenant, size_bytes):
            self._shares.take(tenant, size_bytes)
        else:
            await self._turn(tenant, size_bytes)
        try:
            yield
        finally:
            self._shares.give(tenant, size_bytes)
            self._pass_on()

    async def _turn(self, tenant: str, size_bytes: int) -> None:
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (tenant, size_bytes, granted)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await granted
        except BaseException as error:
            if granted.done() and not granted.cancelled():
                self._shares.give(tenant, size_bytes)
                self._pass_on()
            else:
                self._waiting.remove(entry)
            if isinstance(error, TimeoutError):
                self._shares.refuse(tenant, size_bytes)
            raise

    def _pass_on(self) -> None:
        """Grants memory in order of arrival, passing over tenants whose first in line does not fit."""
        stuck: set[str] = set()
        for entry in list(self._waiting):
            tenant, size_bytes, granted = entry
            if tenant in stuck or granted.done():
                continue
            if not self._shares.fits(tenant, size_bytes):
                stuck.add(tenant)
                continue
            self._waiting.remove(entry)
            self._shares.take(tenant, size_bytes)
            granted.set_result(None)
