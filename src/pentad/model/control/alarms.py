"""Alarms: which models' predictions are not trusted now, and why."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal

Cause = Literal["slow", "dear", "stale-speed", "no-certificate"]
"""Takes longer than predicted; costs more; its speed was measured long ago; nobody says how good it is."""
SURPRISES: Final = 3
"""So many of the latest answers raise an alarm."""
_RECENT: Final = 8
"""Latest answers that say whether predictions hold."""
_CALM_S: Final = 30.0
"""Without a surprise for so long, an alarm ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """One reason not to trust what is predicted of a model."""

    model: str
    cause: Cause
    why: str


@dataclass(slots=True)
class _Watched:
    surprises: deque[bool] = field(default_factory=lambda: deque(maxlen=_RECENT))
    at_s: float = float("-inf")
    why: str = ""
    told: bool = False

    @property
    def stands(self) -> bool:
        return self.told or sum(self.surprises) >= SURPRISES


class Alarms:
    """Surprises by model and cause; several of the latest answers raise an alarm, calm ends it."""

    def __init__(self) -> None:
        self._watched: dict[tuple[str, Cause], _Watched] = {}

    def surprise(self, model: str, cause: Cause, why: str, now_s: float) -> None:
        """An answer was not as predicted."""
        one = self._of(model, cause)
        one.surprises.append(True)
        one.at_s, one.why = now_s, why

    def calm(self, model: str, cause: Cause) -> None:
        """An answer was as predicted."""
        self._of(model, cause).surprises.append(False)

    def tell(self, model: str, cause: Cause, why: str, now_s: float) -> None:
        """Something that is known without an answer; it stands until nobody has told it for a while."""
        one = self._of(model, cause)
        one.told, one.at_s, one.why = True, now_s, why

    def standing(self, now_s: float) -> tuple[Doubt, ...]:
        """The alarms that stand now."""
        found = []
        for (model, cause), one in self._watched.items():
            if now_s - one.at_s > _CALM_S:
                one.surprises.clear()
                one.told = False
            if one.stands:
                found.append(Doubt(model=model, cause=cause, why=one.why))
        return tuple(found)

    def _of(self, model: str, cause: Cause) -> _Watched:
        return self._watched.setdefault((model, cause), _Watched())
