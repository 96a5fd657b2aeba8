"""The bytes of a model's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pentad.model.certification.base import EXACT, Bench, Better, Measured, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeProbe:
    """Looks at the files."""

    @property
    def key(self) -> str:
        return "size"

    def units(self, bench: Bench) -> int:  # noqa: ARG002
        return 1

    def measure(self, bench: Bench, unit: int) -> Row:  # noqa: ARG002
        return {
            "bytes": float(bench.derived.files.size_bytes),
            "source_bytes": float(bench.source.files.size_bytes),
        }

    def data(self, bench: Bench) -> Mapping[str, str]:  # noqa: ARG002
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Bytes of the weight files, as they are stored."""

    name: ClassVar[str] = "size"
    unit: ClassVar[str] = "bytes"
    better: ClassVar[Better] = "lower"
    timed: ClassVar[bool] = False
    probe: ClassVar[SizeProbe] = SizeProbe()

    def value(self, rows: Sequence[Row]) -> Measured:
        found, source = rows[0]["bytes"], rows[0]["source_bytes"]
        return Measured(value=found, low=found, high=found, interval=EXACT, count=1, source=source)
