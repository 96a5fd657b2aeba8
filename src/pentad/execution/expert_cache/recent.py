"""The experts used last stay."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pentad.execution.expert_cache.base import Expert, ExpertRun, Mixture


@dataclass(frozen=True, slots=True, kw_only=True)
class Recent:
    """Keeps the experts used last, every layer its share, and brings those that the next layer may use.

    They are what the next layer's router makes of the hidden states before this layer has added to them.

    Exactness: lossless; an expert that was not guessed is waited for.
    Cost: one router more a layer where `ahead` is not 0; a guess that fails costs the bytes of an expert.
    Source: Eliseev and Mazur 2023 (Mixtral offloading), sections 3.1 and 3.2. There a guess replaces nothing
    in the cache until it is used; here it takes a place at once.
    """

    name: ClassVar[str] = "recent"
    ahead: int = 2
    """Guessed experts of the next layer that are brought; 0: none."""

    @property
    def guesses(self) -> bool:
        return self.ahead > 0

    def start(self, mixture: Mixture) -> ExpertRun:
        return _RecentRun(mixture, self.ahead)


class UseOrder(ExpertRun):
    """Experts in the order of their last use; what other policies fall back on."""

    def __init__(self, mixture: Mixture) -> None:
        super().__init__(mixture)
        self._last: dict[Expert, int] = {}
        self._now = 0

    def used(self, layer: int, rows: Mapping[int, int]) -> None:
        self._now += 1
        for number in rows:
            self._last[layer, number] = self._now

    def age(self, expert: Expert) -> int:
        """Uses of any layer since its own last one; as many as there were for one never used."""
        return self._now - self._last.get(expert, 0)

    def victim(self, layer: int, resident: Collection[Expert]) -> Expert:
        own = [expert for expert in resident if expert[0] == layer]
        full = len(own) >= max(1, self.mixture.quota(layer))
        return max(own if full and own else resident, key=self.age)


class _RecentRun(UseOrder):
    def __init__(self, mixture: Mixture, ahead: int) -> None:
        super().__init__(mixture)
        self._ahead = ahead

    def ahead(self, layer: int, rows: Mapping[int, int], guessed: Sequence[int]) -> Sequence[Expert]:  # noqa: ARG002
        behind = self.mixture.after(layer)[:1]
        return [(behind[0], number) for number in guessed[: self._ahead]] if behind else ()
