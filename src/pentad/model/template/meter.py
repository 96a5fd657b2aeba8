"""The work, size and time that one rendering of a template may take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

CHARS_PER_UNIT = 16
"""Characters that count as one unit of work or weight."""


class TemplateLimit(Exception):
    """A rendering passed one of its limits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateLimits:
    """What a template may use. The defaults are hundreds of times what published templates need."""

    source_chars: int = 131_072
    output_chars: int = 16_000_000
    work_units: int = 4_000_000
    """Loop turns, calls and operations, plus one per 16 characters handled."""
    weight_units: int = 2_000_000
    """Size of any one value, written out in full: one per element and per 16 characters."""
    cpu_s: float = 2.0


class Meter:
    """Counts what one rendering uses and raises TemplateLimit at the first excess.

    A template can only build values out of values that were weighed before, and no value can be
    changed once built. So weighing each new container by its direct children is enough to know its
    full written-out size, however often it shares parts: no value can grow exponentially.

    Args:
        limits: what may be used.
        clock: CPU seconds of this thread, so that a busy machine does not shorten the allowance.
    """

    def __init__(self, limits: TemplateLimits, clock: Callable[[], float] = time.thread_time) -> None:
        self._limits = limits
        self._clock = clock
        self._end_s = clock() + limits.cpu_s
        self._work = 0
        self._emitted = 0
        self._weights: dict[int, tuple[int, Any]] = {}

    def charge(self, units: int) -> None:
        """Accounts for work that is about to be done."""
        self._work += units
        if self._work > self._limits.work_units:
            raise TemplateLimit(f"more than {self._limits.work_units} steps")
        if self._clock() > self._end_s:
            raise TemplateLimit(f"more than {self._limits.cpu_s} s of computing")

    def charge_chars(self, chars: int) -> None:
        """Accounts for a text of that length about to be made; refuses one longer than the output may be."""
        if chars > self._limits.output_chars:
            raise TemplateLimit(f"a text of more than {self._limits.output_chars} characters")
        self.charge(1 + chars // CHARS_PER_UNIT)

    def emit(self, chars: int) -> None:
        """Accounts for output."""
        self._emitted += chars
        if self._emitted > self._limits.output_chars:
            raise TemplateLimit(f"more than {self._limits.output_chars} characters of output")
        self.charge(1 + chars // CHARS_PER_UNIT)

    def weigh(self, value: Any) -> int:
        """The written-out size of a value in units; remembered for containers, which stay alive."""
        if isinstance(value, str):
            return 1 + len(value) // CHARS_PER_UNIT
        if isinstance(value, (list, tuple, dict)):
            known = self._weights.get(id(value))
            return known[0] if known else self._weigh_container(value)
        if isinstance(value, int) and value.bit_length() > 64:
            raise TemplateLimit("a number of more than 64 bits")
        return 1

    def _weigh_container(self, value: Any) -> int:
        children = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        self.charge(1 + len(children) // CHARS_PER_UNIT)
        weight = 1 + sum(self.weigh(child) for child in children)
        if weight > self._limits.weight_units:
            raise TemplateLimit(f"a value of more than {self._limits.weight_units} parts")
        self._weights[id(value)] = (weight, value)
        return weight
