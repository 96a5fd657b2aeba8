"""Everything is attended to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.execution.attention_filter import FilterRun
from pentad.execution.spec import ModelSpec
from pentad.types import Exactness


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfiltered:
    """Attends to every cached position.

    Exactness: lossless. Cost: none.
    """

    name: ClassVar[str] = "unfiltered"
    exactness: ClassVar[Exactness] = "lossless"

    def start(self, spec: ModelSpec) -> FilterRun | None:
        del spec
        return None
