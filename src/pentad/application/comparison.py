"""Two models by their certificates: which is better in what, where the intervals tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pentad.choice import Choice, build
from pentad.errors import Incompatible
from pentad.model.certification.base import Measured, Metric
from pentad.model.certification.certificate import Certificate, read_certificate
from pentad.model.store import ModelStore

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One metric of both."""

    metric: str
    unit: str
    first: float
    first_interval: Interval | None
    """95%; None where the value is exact or the source's, which stands in another's certificate."""
    second: float
    second_interval: Interval | None
    better: str | None
    """Name of the model that is better; None where the intervals overlap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two models, by the names that were asked for."""

    first: str
    second: str
    lines: tuple[Line, ...]


def compared(store: ModelStore, first: str, second: str) -> Comparison:
    """The metrics that both have, in the order of the first's certificate.

    Raises:
        ModelNotFound, BadModelFile: as the store and the certificates say.
        Incompatible: one has no certificate and is not the other's source, or they tell of different data.
    """
    one, two = (_certificate(store, name) for name in (first, second))
    if one is None and two is None:
        raise _uncertified(first)
    mine = _own(one) if one is not None else _as_source(store, first, two)
    theirs = _own(two) if two is not None else _as_source(store, second, one)
    if one is not None and two is not None:
        _check_data(first, second, one, two)
    lines = [_line(name, (first, mine[name]), (second, theirs[name])) for name in mine if name in theirs]
    return Comparison(first=first, second=second, lines=tuple(lines))


def _certificate(store: ModelStore, name: str) -> Certificate | None:
    return read_certificate(store.folders, store.digest(store.resolve(name)), {})


def _own(found: Certificate) -> Mapping[str, Measured]:
    return found.measured


def _as_source(store: ModelStore, name: str, of: Certificate | None) -> Mapping[str, Measured]:
    """What another's certificate says of its source, exact as far as it goes."""
    if of is None or store.digest(store.resolve(name)) != of.source_sha256:
        raise _uncertified(name)
    return {
        metric: Measured(
            value=found.source,
            low=found.source,
            high=found.source,
            interval="",
            count=found.count,
            source=None,
        )
        for metric, found in of.measured.items()
        if found.source is not None
    }


def _line(name: str, first: tuple[str, Measured], second: tuple[str, Measured]) -> Line:
    metric: Metric = build("metric", Choice.of(name))
    (one_name, one), (two_name, two) = first, second
    better = None
    if one.high < two.low or two.high < one.low:
        lower, higher = (one_name, two_name) if one.high < two.low else (two_name, one_name)
        better = lower if metric.better == "lower" else higher
    return Line(
        metric=name,
        unit=metric.unit,
        first=one.value,
        first_interval=_interval(one),
        second=two.value,
        second_interval=_interval(two),
        better=better,
    )


def _interval(found: Measured) -> Interval | None:
    return None if found.low == found.high else (found.low, found.high)


def _check_data(first: str, second: str, one: Certificate, two: Certificate) -> None:
    how = [{k: v for k, v in c.evaluation.items() if k.startswith("window")} for c in (one, two)]
    for name in one.data.keys() & two.data.keys():
        if one.data[name] != two.data[name] or how[0] != how[1]:
            raise Incompatible(
                f"{first!r} and {second!r} were measured on different data ({name})",
                hint="measure both on the same with pentad certify",
                param="model",
            )


def _uncertified(name: str) -> Incompatible:
    return Incompatible(
        f"{name!r} has no certificate", hint=f"pentad certify {name} makes one", param="model"
    )
