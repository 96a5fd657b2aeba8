"""ExpertStore: the experts that are in fast memory, under a bound, as a policy has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from pentad.errors import Infeasible
from pentad.execution.expert_cache.base import Expert, ExpertCosts, ExpertPolicy, Mixture

_MIB: Final = 2**20
_ALWAYS_HERE: Final = ExpertCosts(copy_bytes_per_s=float("inf"), here_s=0.0, there_s=float("inf"))


class Arrival(Protocol):
    """An expert on its way."""

    @property
    def here(self) -> bool: ...

    def wait(self) -> float:
        """Seconds that were waited for it."""
        ...


class ExpertMover(Protocol):
    """Brings experts into fast memory; pages of a file, or a device of the simulator."""

    def bring(self, expert: Expert, *, ahead: bool) -> Arrival:
        """Begins; what is not `ahead` is waited for at once, and goes first."""
        ...

    def drop(self, expert: Expert) -> None:
        """Gives its memory back."""
        ...

    def there(self, expert: Expert, rows: int) -> None:
        """Has it computed where it lies."""
        ...


@dataclass(slots=True)
class ExpertCounts:
    """What has happened so far. A use is one expert of one layer in one step, whatever rows go to it."""

    uses: int = 0
    hits: int = 0
    """Uses that found the expert in fast memory."""
    late: int = 0
    """Uses of an expert that was still on its way."""
    there: int = 0
    """Uses that were computed where the expert lies."""
    rows: int = 0
    rows_here: int = 0
    """Rows that went through experts in fast memory without waiting."""
    read_bytes: int = 0
    ahead_bytes: int = 0
    """Of those, what was brought ahead."""
    guesses: int = 0
    """Experts of a next layer that were used where there was a guess."""
    guessed: int = 0
    """Of those, what the guess named."""
    stall_s: float = 0.0
    peak_bytes: int = 0

    @property
    def hit_fraction(self) -> float:
        return self.hits / self.uses if self.uses else 0.0

    @property
    def recall(self) -> float:
        """Of the experts that were used, how many a router had guessed a layer before."""
        return self.guessed / self.guesses if self.guesses else 0.0


class ExpertStore:
    """Called by the thread that computes: `begin` with each step, `use` in front of each layer's experts.

    Experts of the layer that is computed never give way.

    Args:
        costs: of an expert on either side; without, all are computed in fast memory.

    Raises:
        Infeasible: the room does not hold all experts of one layer; a prompt may use them all.
    """

    def __init__(
        self,
        mixture: Mixture,
        policy: ExpertPolicy,
        mover: ExpertMover,
        costs: ExpertCosts = _ALWAYS_HERE,
    ) -> None:
        _check_room(mixture)
        self.mixture = mixture
        self.counts = ExpertCounts()
        self.guesses = policy.guesses
        self._run = policy.start(mixture)
        self._mover = mover
        self._costs = costs
        self._here: dict[Expert, Arrival] = {}
        self._bytes = 0
        self._guess: tuple[int, frozenset[int]] | None = None

    @property
    def resident(self) -> frozenset[Expert]:
        """Those in fast memory, and on their way."""
        return frozenset(self._here)

    def begin(self, *, started: bool) -> None:
        """A step begins; `started`: a text begins in it."""
        self._guess = None
        self._run.begin(started=started)

    def use(self, layer: int, rows: Mapping[int, int], guessed: Sequence[int] = ()) -> None:
        """Returns when the layer's experts, each with so many rows, can be computed.

        Args:
            guessed: of the next layer with experts, what its router would choose now.
        """
        self._compare(layer, rows)
        self._run.used(layer, rows)
        busy = frozenset((layer, number) for number in rows)
        for number, count in rows.items():
            self._use((layer, number), count, busy)
        for expert in self._run.ahead(layer, rows, guessed):
            if expert not in self._here and self._make_room(expert, busy, ahead=True):
                self._here[expert] = self._bring(expert, ahead=True)
        behind = self.mixture.after(layer)[:1]
        self._guess = (behind[0], frozenset(guessed)) if behind and guessed else None

    def _compare(self, layer: int, rows: Mapping[int, int]) -> None:
        if self._guess is not None and self._guess[0] == layer:
            self.counts.guesses += len(rows)
            self.counts.guessed += len(self._guess[1] & rows.keys())

    def _use(self, expert: Expert, rows: int, busy: frozenset[Expert]) -> None:
        counts = self.counts
        counts.uses += 1
        counts.rows += rows
        if (arrival := self._here.get(expert)) is not None:
            counts.hits += arrival.here
            counts.late += not arrival.here
            counts.rows_here += rows if arrival.here else 0
            counts.stall_s += arrival.wait()
            return
        if self._run.side(expert, rows, self._costs) == "there":
            counts.there += 1
            self._mover.there(expert, rows)
            return
        self._make_room(expert, busy, ahead=False)
        self._here[expert] = arrival = self._bring(expert, ahead=False)
        counts.stall_s += arrival.wait()

    def _bring(self, expert: Expert, *, ahead: bool) -> Arrival:
        size = self.mixture.nbytes[expert[0]]
        self._bytes += size
        self.counts.peak_bytes = max(self.counts.peak_bytes, self._bytes)
        self.counts.read_bytes += size
        self.counts.ahead_bytes += size if ahead else 0
        return self._mover.bring(expert, ahead=ahead)

    def _make_room(self, expert: Expert, busy: frozenset[Expert], *, ahead: bool) -> bool:
        """Whether the expert fits now. What is on its way gives way to nothing that is brought ahead."""
        size = self.mixture.nbytes[expert[0]]
        while self._bytes + size > self.mixture.room_bytes:
            idle = [
                other for other, way in self._here.items() if other not in busy and (way.here or not ahead)
            ]
            if not idle:
                assert ahead, "one layer's experts fit"
                return False
            gone = self._run.victim(expert[0], idle)
            self._here.pop(gone).wait()
            self._bytes -= self.mixture.nbytes[gone[0]]
            self._mover.drop(gone)
        return True


def _check_room(mixture: Mixture) -> None:
    least = max(count * mixture.nbytes[layer] for layer, count in mixture.counts.items())
    if mixture.room_bytes < least:
        raise Infeasible(
            f"memory for experts is {mixture.room_bytes / _MIB:.1f} MiB, the experts of one layer "
            f"take {least / _MIB:.1f} MiB",
            hint=f"set expert_memory to {-(-least // _MIB)}MiB or more, or leave it out",
            param="expert_memory",
        )
