"""Choices whose outcome is awaited, by request."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, Generic, TypeVar

KEPT: Final = 4096
"""How many are awaited at most; of older ones nothing more is learnt."""

T = TypeVar("T")


class Awaited(Generic[T]):
    """What a policy noted with each choice, until its outcome comes or `KEPT` later ones have been made."""

    def __init__(self) -> None:
        self._noted: OrderedDict[str, T] = OrderedDict()

    def note(self, request: str, noted: T) -> None:
        """Keeps what is to be known again with the outcome of a request."""
        self._noted[request] = noted
        self._noted.move_to_end(request)
        if len(self._noted) > KEPT:
            self._noted.popitem(last=False)

    def take(self, request: str) -> T | None:
        """What was noted, once; None for a request that nothing is known of any more."""
        return self._noted.pop(request, None)

    def values(self) -> Iterable[T]:
        """What was noted of all that are awaited, oldest first."""
        return self._noted.values()
