"""Load: how many requests are being answered, and whether new ones are still taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pentad.errors import Overloaded, Unavailable


class Load:
    """Counts work in progress; refuses more than the limit, and everything while draining."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.active = 0
        self.draining = False

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Holds one of the places for the time of a request.

        Raises:
            Unavailable: the server is on its way out.
            Overloaded: all places are taken.
        """
        if self.draining:
            raise Unavailable("the server is shutting down", retry_after_s=5.0, hint="try another or later")
        if self.active >= self.limit:
            raise Overloaded(
                f"{self.active} requests are being answered, the most that this server takes on",
                hint="try again later, or raise --max-concurrent-requests",
            )
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1
