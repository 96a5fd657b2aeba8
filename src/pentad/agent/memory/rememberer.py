"""Rememberer: what was done in which situation, and how well it went; good and bad examples come back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

from pentad.agent.memory.base import Experience, Item, MemoryServices, Recollection, Scope
from pentad.agent.memory.store import Store
from pentad.agent.memory.wrapped import Wrapped
from pentad.ranges import in_range

_ENOUGH = 4
"""Situations looked at for each example asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rememberer:
    """Learns the value of each action from how runs end, and recalls the best and the worst of like cases.

    An item is a situation (goal and what was seen) and an action, with its value in `details`: 0 where
    such runs fail, 1 where they are answered at once. The model's weights never change. A recalled item
    says whether its action did well. Plain facts are kept and recalled as `store` does.

    Source: Zhang et al. 2023, "Large Language Models Are Semi-Parametric Reinforcement Learning Agents"
    (REMEMBERER), sections 3.2 and 3.3: n-step Q-learning with a rate of 1/N for the N-th visit. Ours knows
    one reward, that the run was answered, and takes the nearest situations by the store's scores.
    Exactness: lossy; the metric is the success of later runs. Cost: one embedding per step of a run that
    ended, a query four times as wide.
    """

    steps: int = 3
    """Steps over which a reward is carried back at once."""
    discount: float = 0.9
    """What a reward is multiplied by for each step that it lies ahead; 0 to 1."""
    good: float = 0.5
    """The value from which an action counts as one that did well; 0 to 1."""

    needs: ClassVar[frozenset[str]] = Store.needs
    name: ClassVar[str] = "rememberer"

    def __post_init__(self) -> None:
        in_range("steps", self.steps, least=1)
        in_range("discount", self.discount, least=0, most=1)
        in_range("good", self.good, least=0, most=1)

    def open(self, services: MemoryServices) -> _Valued:
        """The file's items."""
        return _Valued(self, services)


class _Valued(Wrapped):
    def __init__(self, strategy: Rememberer, services: MemoryServices) -> None:
        super().__init__(Store().open(services))
        self._strategy = strategy

    async def learn(self, experience: Experience, scope: Scope) -> None:
        """Moves the value of each step's action towards what came of it; the last steps first."""
        known = {item.id: item for item in await self.items(scope) if item.superseded_by is None}
        latest = {str(item.details["case"]): item for item in known.values() if "case" in item.details}
        reward, steps = float(experience.answered), experience.steps
        for place in reversed(range(len(steps))):
            seen, action = steps[place]
            case = _case(experience.goal, seen, action)
            old = latest.get(case)
            if old is not None and experience.run_id in old.details["runs"]:
                continue  # by this run before a restart
            ahead = place + self._strategy.steps
            target = (
                self._strategy.discount ** (len(steps) - 1 - place) * reward
                if ahead >= len(steps)
                else self._strategy.discount**self._strategy.steps
                * max(_values(latest.values(), experience.goal, steps[ahead][0]), default=0.0)
            )
            runs = [*(old.details["runs"] if old else ()), experience.run_id]
            before = float(old.details["value"]) if old else 0.0
            value = before + (target - before) / len(runs)
            item = Item(
                id=f"{case}.{len(runs)}",
                text=f"{experience.goal}\n{seen}".strip(),
                kind="episode",
                source=experience.run_id,
                derived_from=experience.recalled,
                details={
                    "case": case,
                    "goal": experience.goal,
                    "seen": seen,
                    "action": action,
                    "value": value,
                    "runs": runs,
                },
            )
            await (self.supersede(str(old.id), item, scope) if old else self.write(item, scope))
            latest[case] = item

    async def query(self, cue: str, *, k: int, scope: Scope) -> list[Recollection]:
        """The items nearest to the cue; of the cases among them as many good as bad ones, if there are."""
        found = await self.inner.query(cue, k=_ENOUGH * k, scope=scope)
        cases = sorted(
            (r for r in found if "case" in r.item.details), key=lambda r: (-r.item.details["value"], -r.score)
        )
        good = [r for r in cases if r.item.details["value"] >= self._strategy.good]
        bad = [r for r in reversed(cases) if r.item.details["value"] < self._strategy.good]
        facts = [r for r in found if "case" not in r.item.details]
        turns = [r for pair in zip(good, bad, strict=False) for r in pair]
        turns += [*good[len(bad) :], *bad[len(good) :]]
        # Facts, if there are any, have half of the places.
        chosen = [*turns[: k - min(len(facts), k // 2)], *facts][:k]
        return sorted(map(self._told, chosen), key=lambda r: (-r.score, str(r.item.id)))

    def _told(self, recollection: Recollection) -> Recollection:
        """A case in words that a model reads."""
        details = recollection.item.details
        if "case" not in details:
            return recollection
        well = "Did well" if details["value"] >= self._strategy.good else "Did badly, avoid it"
        seen = f", after {details['seen']!r}" if details["seen"] else ""
        text = f"{well} ({details['value']:.2f}): for {details['goal']!r}{seen}: {details['action']}"
        return replace(recollection, item=replace(recollection.item, text=text))


def _case(goal: str, seen: str, action: str) -> str:
    digest = hashlib.sha256("\0".join((goal, seen, action)).encode("utf-8", "replace"))
    return f"case_{digest.hexdigest()[:24]}"


def _values(items: Iterable[Item], goal: str, seen: str) -> list[float]:
    """The values of what was done in a situation."""
    return [
        float(item.details["value"])
        for item in items
        if (item.details["goal"], item.details["seen"]) == (goal, seen)
    ]
