"""TenantQuotas: how much of something bounded each tenant may hold, so that none takes it from the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from pentad.errors import Overloaded


class TenantQuotas:
    """Places of one kind, counted by tenant. Used in one event loop.

    A server with one tenant gives it all places. With several, none holds more than `share` of
    them, and each may hold its floor, half of an equal part, even when all are taken: so what is
    held never exceeds one and a half times the limit.

    Args:
        what: what a place is, in the plural, for errors.
        setting: where the limit is set, for errors.
        limit: places there are.
        tenants: how many tenants there can be.
        share: largest part of the places that one tenant holds, where there are several.
    """

    def __init__(self, what: str, setting: str, *, limit: int, tenants: int, share: float) -> None:
        self._what = what
        self._setting = setting
        self.limit = limit
        self.most = limit if tenants <= 1 else max(1, int(limit * share))
        """Places that one tenant may hold."""
        self.floor = max(1, limit // (2 * tenants)) if tenants > 1 else 0
        self._held: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """Places held by all tenants together."""
        return self._held.total()

    def of(self, tenant: str) -> int:
        """Places that the tenant holds."""
        return self._held[tenant]

    def fits(self, tenant: str, count: int = 1) -> bool:
        """Whether the tenant may take so many now."""
        own = self._held[tenant] + count
        return own <= self.most and (self.total + count <= self.limit or own <= self.floor)

    def take(self, tenant: str, count: int = 1) -> None:
        """Takes places until `give`. Raises Overloaded when they do not fit."""
        if not self.fits(tenant, count):
            self.refuse(tenant, count)
        self._held[tenant] += count

    def refuse(self, tenant: str, count: int = 1) -> NoReturn:
        """Raises the Overloaded that says why so many do not fit."""
        own = self._held[tenant]
        bound = f"the most for one tenant is {self.most}" if own + count > self.most else "all are taken"
        raise Overloaded(
            f"{own} {self._what} are yours and {self.total} of {self.limit} are in use; {bound}",
            hint=f"try again later, or raise {self._setting}",
        )

    def give(self, tenant: str, count: int = 1) -> None:
        """Gives places back."""
        self._held[tenant] -= count
        if not self._held[tenant]:
            del self._held[tenant]

    @contextmanager
    def hold(self, tenant: str, count: int = 1) -> Iterator[None]:
        """Holds places for the time of a block. Raises Overloaded when they do not fit."""
        self.take(tenant, count)
        try:
            yield
        finally:
            self.give(tenant, count)
