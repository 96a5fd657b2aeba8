"""Perplexity, of the model and beside its source."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pentad.model.certification.base import Better, Measured, Row, bootstrapped
from pentad.model.certification.text_probe import TextProbe


def perplexity_of(rows: Sequence[Row], field: str) -> float:
    """The exponential of the mean negative log-likelihood of a token."""
    return math.exp(sum(row[field] for row in rows) / sum(row["tokens"] for row in rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class Perplexity:
    """How surprised the model is by the evaluation text: the lower, the better.

    The interval is the paired bootstrap over windows of the text.
    """

    name: ClassVar[str] = "perplexity"
    unit: ClassVar[str] = ""
    better: ClassVar[Better] = "lower"
    timed: ClassVar[bool] = False
    probe: ClassVar[TextProbe] = TextProbe()

    def value(self, rows: Sequence[Row]) -> Measured:
        source = perplexity_of(rows, "source_nll")
        return bootstrapped(rows, lambda some: perplexity_of(some, "nll"), what="windows", source=source)


@dataclass(frozen=True, slots=True, kw_only=True)
class PerplexityRatio:
    """The perplexity divided by the source's on the same text: 1.02 is two percent worse.

    The interval is the paired bootstrap over windows, which is far narrower than that of either perplexity.
    """

    name: ClassVar[str] = "perplexity-ratio"
    unit: ClassVar[str] = ""
    better: ClassVar[Better] = "lower"
    timed: ClassVar[bool] = False
    probe: ClassVar[TextProbe] = TextProbe()

    def value(self, rows: Sequence[Row]) -> Measured:
        return bootstrapped(
            rows,
            lambda some: perplexity_of(some, "nll") / perplexity_of(some, "source_nll"),
            what="windows",
            source=1.0,
        )
