"""Checking: a certificate beside what is measured now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pentad.choice import Choice, build
from pentad.model.certification.base import Measured, Metric
from pentad.model.certification.certificate import Certificate

Verdict = Literal["same", "within the interval", "differs", "not judged"]
_SAME = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One metric, certified and measured again."""

    metric: str
    certified: Measured
    now: Measured
    verdict: Verdict


def differences(certified: Certificate, now: Certificate) -> Sequence[Difference]:
    """Every metric of the certificate. What is timed depends on the machine's load and is not judged."""
    found = []
    for name, was in certified.measured.items():
        metric: Metric = build("metric", Choice.of(name))
        again = now.measured[name]
        found.append(Difference(metric=name, certified=was, now=again, verdict=_verdict(metric, was, again)))
    return found


def _verdict(metric: Metric, was: Measured, now: Measured) -> Verdict:
    if metric.timed:
        return "not judged"
    if abs(was.value - now.value) <= _SAME * max(1.0, abs(was.value)):
        return "same"
    return "within the interval" if was.low <= now.value <= was.high else "differs"
