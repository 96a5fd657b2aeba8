"""How far the model's distributions are from its source's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pentad.model.certification.base import Better, Measured, Row, bootstrapped
from pentad.model.certification.text_probe import TextProbe


def per_token(rows: Sequence[Row], field: str) -> float:
    """The mean over all tokens."""
    return sum(row[field] for row in rows) / sum(row["tokens"] for row in rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """Kullback-Leibler divergence of the model from its source, nats a token: 0 is the same model.

    The interval is the paired bootstrap over windows of the text.
    """

    name: ClassVar[str] = "kl"
    unit: ClassVar[str] = "nats"
    better: ClassVar[Better] = "lower"
    timed: ClassVar[bool] = False
    probe: ClassVar[TextProbe] = TextProbe()

    def value(self, rows: Sequence[Row]) -> Measured:
        return bootstrapped(rows, lambda some: per_token(some, "kl"), what="windows", source=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Share of tokens whose most probable successor is the source's too.

    The interval is the paired bootstrap over windows, since tokens of one window are not independent.
    """

    name: ClassVar[str] = "top1"
    unit: ClassVar[str] = ""
    better: ClassVar[Better] = "higher"
    timed: ClassVar[bool] = False
    probe: ClassVar[TextProbe] = TextProbe()

    def value(self, rows: Sequence[Row]) -> Measured:
        return bootstrapped(rows, lambda some: per_token(some, "agreed"), what="windows", source=1.0)
