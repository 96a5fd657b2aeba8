"""Layers under a bound: those that stay, and a window that slides over those that pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pentad.errors import Infeasible
from pentad.execution.native.pager import Pager
from pentad.execution.native.pages import Arrival, PageReader, Places, Span
from pentad.execution.spec import ModelSpec

_MIB: Final = 2**20
_MODEL: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPlan:
    """Which units of a model pass; the others stay. Units are its layers in order, and the head."""

    passing: tuple[int, ...]
    peak_bytes: int
    """Of what stays, and of the widest part of what passes that is there at once."""


def window_plan(sizes: Sequence[int], memory_bytes: int | None, ahead: int, *, model: str = "") -> WindowPlan:
    """As few units pass as the memory allows, spread evenly; None: all pass.

    Raises Infeasible where even then more would have to be there at once.
    """
    count = len(sizes)
    for passing in range(0 if memory_bytes is not None else count, count + 1):
        if 0 < passing < ahead + 2 and passing < count:
            continue  # the window would hold all of them
        chosen = [i * count // passing for i in range(passing)]
        stays = sum(sizes) - sum(sizes[i] for i in chosen)
        at_once = [
            sum(sizes[chosen[(first + i) % passing]] for i in range(min(ahead + 1, passing)))
            for first in range(passing)
        ]
        peak = stays + max(at_once, default=0)
        if memory_bytes is None or peak <= memory_bytes:
            return WindowPlan(passing=tuple(chosen), peak_bytes=peak)
    assert memory_bytes is not None
    raise Infeasible(
        f"{memory_bytes // _MIB} MiB hold no window of the weights of model {model!r}; "
        f"the head or a layer and the {ahead} next to it take {peak / _MIB:.1f} MiB",
        hint=f"set memory_mib of residency streamed to {-(-peak // _MIB)} or more, or ahead to less",
        param="residency",
    )


class WindowHook:
    """Brings layers ahead of their products and gives them back behind (StepHook)."""

    def __init__(
        self,
        spec: ModelSpec,
        memory: npt.NDArray[np.uint8],
        places: Places,
        memory_bytes: int | None,
        ahead: int,
    ) -> None:
        table = "head" if spec.own_head else "embed"
        units: list[list[Span]] = [[] for _ in range(spec.layers + 1)]
        for (layer, name), span in places.items():
            if layer != _MODEL:
                units[layer].append(span)
            elif name == table:
                units[-1].append(span)
        self._units = [_merged(spans) for spans in units]
        # Of tables that are not multiplied with, a step reads some rows.
        self._looked_up = [
            span for (layer, name), span in places.items() if layer == _MODEL and name != table
        ]
        self._sizes = [sum(end - begin for begin, end in spans) for spans in self._units]
        self.plan = window_plan(self._sizes, memory_bytes, ahead, model=spec.name)
        self._reader = PageReader(memory, name="pentad-layers")
        self._ahead = ahead
        self._there: dict[int, Arrival] = {}
        self._bytes = sum(self._sizes) - sum(self._sizes[unit] for unit in self.plan.passing)
        self.peak_bytes = self._bytes
        self.read_bytes = 0
        self.stall_s = 0.0
        for unit in self.plan.passing:
            self._reader.drop(self._units[unit])
        self._reader.drop(self._looked_up)

    def begin(self, *, started: bool) -> None:
        """See StepHook."""

    def layer(self, layer: int) -> None:
        """See StepHook."""
        if not layer:
            self._reader.drop(self._looked_up)
        order = self._following(layer)
        now = order[: 1 + self._ahead] if order[:1] == [layer] else order[: self._ahead]
        for unit in [unit for unit in self._there if unit not in now]:
            self._let_go(unit)
        for unit in now:
            if unit not in self._there:
                self._bring(unit, ahead=unit != layer)
        if layer in self._there:
            self.stall_s += self._there[layer].wait()

    def experts(self, layer: int, rows: Mapping[int, int], pager: Pager) -> None:
        """See StepHook: they came with their layer."""

    def stats(self) -> dict[str, float]:
        """See StepHook."""
        return {
            "layer_bytes": self._bytes,
            "layer_read_bytes_total": self.read_bytes,
            "layer_stall_seconds_total": self.stall_s,
        }

    def close(self) -> None:
        """See StepHook."""
        self._reader.close()

    def _following(self, layer: int) -> list[int]:
        """What passes, from this layer on, and then from the first of the next step."""
        passing = self.plan.passing
        return [unit for unit in passing if unit >= layer] + [unit for unit in passing if unit < layer]

    def _bring(self, unit: int, *, ahead: bool) -> None:
        self._bytes += self._sizes[unit]
        self.peak_bytes = max(self.peak_bytes, self._bytes)
        self.read_bytes += self._sizes[unit]
        self._there[unit] = self._reader.bring(self._units[unit], ahead=ahead)

    def _let_go(self, unit: int) -> None:
        self._there.pop(unit).wait()
        self._reader.drop(self._units[unit])
        self._bytes -= self._sizes[unit]


def _merged(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Spans that nothing but padding parts, as one; so that no page between them is left out."""
    found: list[Span] = []
    for begin, end in sorted(spans):
        if found and begin - found[-1][1] < 64:
            found[-1] = (found[-1][0], end)
        else:
            found.append((begin, end))
    return tuple(found)
