"""Experts of a mixture under a bound: pages of the packed file that a policy brings and gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from pentad.execution.expert_cache.base import Expert, ExpertPolicy, Mixture
from pentad.execution.expert_cache.store import ExpertCounts, ExpertStore
from pentad.execution.layers import Experts
from pentad.execution.native.pager import Pager
from pentad.execution.native.pages import Arrival, PageReader, Places, Span
from pentad.execution.spec import ModelSpec

_MATRICES: Final = ("experts.gate", "experts.up", "experts.down")


class MappedExperts:
    """Experts as pages of the packed file (ExpertMover); a thread of its own reads what is brought ahead."""

    def __init__(self, memory: npt.NDArray[np.uint8], places: Places, spec: ModelSpec) -> None:
        self._reader = PageReader(memory, name="pentad-experts")
        self._spans: dict[Expert, tuple[Span, ...]] = {}
        for layer, block in enumerate(spec.blocks):
            if isinstance(block.feed_forward, Experts):
                count = block.feed_forward.count
                stacks = [places[layer, name] for name in _MATRICES if (layer, name) in places]
                for number in range(count):
                    self._spans[layer, number] = tuple(_part(stack, number, count) for stack in stacks)

    def nbytes(self, layer: int) -> int:
        """Of one expert of a layer."""
        return sum(end - begin for begin, end in self._spans[layer, 0])

    def bring(self, expert: Expert, *, ahead: bool) -> Arrival:
        """See ExpertMover."""
        return self._reader.bring(self._spans[expert], ahead=ahead)

    def drop(self, expert: Expert) -> None:
        """See ExpertMover."""
        self._reader.drop(self._spans[expert])

    def there(self, expert: Expert, rows: int) -> None:  # noqa: ARG002
        """See ExpertMover: the file is the only place."""
        raise AssertionError("experts of one device are computed in one place")

    def close(self) -> None:
        """Ends the reader."""
        self._reader.close()


def _part(stack: Span, number: int, count: int) -> Span:
    size = (stack[1] - stack[0]) // count
    return stack[0] + number * size, stack[0] + (number + 1) * size


class ExpertHook:
    """Keeps the experts of a mixture under a bound (StepHook)."""

    def __init__(
        self,
        spec: ModelSpec,
        memory: npt.NDArray[np.uint8],
        places: Places,
        room_bytes: int,
        policy: ExpertPolicy,
    ) -> None:
        self._mover = MappedExperts(memory, places, spec)
        counts = {
            i: block.feed_forward.count
            for i, block in enumerate(spec.blocks)
            if isinstance(block.feed_forward, Experts)
        }
        mixture = Mixture(
            counts=counts,
            nbytes={layer: self._mover.nbytes(layer) for layer in counts},
            room_bytes=room_bytes,
        )
        self.store = ExpertStore(mixture, policy, self._mover)
        for layer, count in counts.items():
            for number in range(count):
                self._mover.drop((layer, number))

    @property
    def counts(self) -> ExpertCounts:
        return self.store.counts

    def begin(self, *, started: bool) -> None:
        """See StepHook."""
        self.store.begin(started=started)

    def layer(self, layer: int) -> None:
        """See StepHook: other weights lie where they lay."""

    def experts(self, layer: int, rows: Mapping[int, int], pager: Pager) -> None:
        """See StepHook."""
        behind: Sequence[int] = self.store.mixture.after(layer)[:1] if self.store.guesses else ()
        self.store.use(layer, rows, pager.guess(behind[0]) if behind else ())

    def stats(self) -> dict[str, float]:
        """See StepHook."""
        counts = self.store.counts
        return {
            "expert_uses_total": counts.uses,
            "expert_hits_total": counts.hits,
            "expert_read_bytes_total": counts.read_bytes,
            "expert_ahead_bytes_total": counts.ahead_bytes,
            "expert_stall_seconds_total": counts.stall_s,
        }

    def close(self) -> None:
        """See StepHook."""
        self._mover.close()
