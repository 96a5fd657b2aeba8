"""Quality floor: what a served model's certificate has to say, or the model is not loaded."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from pentad import registry
from pentad.application.config import Settings
from pentad.application.lossy_settings import lossy_settings
from pentad.application.runners import engine_of
from pentad.choice import Choice, build
from pentad.errors import BadModelFile, Incompatible
from pentad.model.artefact import artefact_of
from pentad.model.certification.base import Metric
from pentad.model.certification.certificate import Certificate, read_certificate
from pentad.model.certification.certification import root_digest
from pentad.model.store import ModelStore
from pentad.model.stored import StoredModel


def check_floor(store: ModelStore, stored: StoredModel, settings: Settings) -> None:
    """Passes a model that is as its makers gave it, or one whose certificate reaches every floor.

    A model counts that was derived here, and any model under settings that change its answers. Cost: where a
    floor is set, the files of such a model are read once, so that a certificate of other bytes is noticed.

    Raises:
        UnknownName: a floor for a metric that there is not.
        Incompatible: there is no certificate, or one that does not reach the floor; names metric and value.
        BadModelFile: the certificate, or the model's files, were changed.
    """
    floor = settings.quality_floor
    for name in floor:
        registry.load("metric", name)
    lossy = lossy_settings(engine_of(settings.engine, stored.name))
    if not floor or (artefact_of(stored) is None and not lossy):
        return
    if stored.owned and any(stored.name == each.name for each in store.list()):
        store.verify(stored.name)
    found = read_certificate(store.folders, store.digest(stored), lossy)
    if found is None:
        raise Incompatible(
            f"{_under(stored, lossy)} has no certificate, and a quality floor is set: {floor_text(floor)}",
            hint=f"{_command(stored, lossy, floor)} makes one",
            param="quality_floor",
        )
    if found.source_sha256 != root_digest(store, stored):
        raise Incompatible(
            f"the certificate of model {stored.name!r} was measured beside {found.source!r}, not what "
            "it was made from",
            hint=f"{_command(stored, lossy, floor)} makes another",
            param="quality_floor",
        )
    for name in floor:
        _check(stored, found, name, floor, lossy)


def _check(
    stored: StoredModel,
    found: Certificate,
    name: str,
    floor: Mapping[str, float],
    lossy: Mapping[str, str],
) -> None:
    metric: Metric = build("metric", Choice(name=name))
    measured, bound = found.value(name), floor[name]
    wanted = f"{'at most' if metric.better == 'lower' else 'at least'} {bound:g}"
    if measured is None:
        raise Incompatible(
            f"the certificate of {_under(stored, lossy)} does not tell {name}, the quality floor is {wanted}",
            hint=f"{_command(stored, lossy, floor)} makes one that does",
            param="quality_floor",
        )
    value = measured.value
    if value > bound if metric.better == "lower" else value < bound:
        raise Incompatible(
            f"{_under(stored, lossy)} is below the quality floor: {name} is {value:.4g} "
            f"({measured.low:.4g} to {measured.high:.4g}), the floor is {wanted}",
            hint=f"serve another model or other settings, or change {name} in quality_floor",
            param="quality_floor",
        )


def _under(stored: StoredModel, lossy: Mapping[str, str]) -> str:
    return f"model {stored.name!r}" + "".join(f" under {name} {value}" for name, value in lossy.items())


def floor_text(floor: Mapping[str, float]) -> str:
    """As it is written on the command line."""
    return ",".join(f"{name}={bound:g}" for name, bound in floor.items())


def quality_summary(store: ModelStore, stored: StoredModel) -> dict[str, Any] | None:
    """What the certificate of a derived model says, as plain values; None for other models."""
    if artefact_of(stored) is None or stored.sha256 is None:
        return None
    try:
        found = read_certificate(store.folders, stored.sha256, {})
    except BadModelFile as error:
        return {"trouble": error.message}
    if found is None:
        return {"trouble": "not certified"}
    told = {name: _told(found, name) for name in found.measured}
    return {"beside": found.source, **told}


def _told(found: Certificate, name: str) -> str:
    measured = found.measured[name]
    bounds = "" if measured.low == measured.high else f" ({measured.low:.4g} to {measured.high:.4g})"
    return f"{measured.value:.6g}{bounds}"


def _command(stored: StoredModel, lossy: Mapping[str, str], floor: Mapping[str, float]) -> str:
    words = ["pentad", "certify", stored.name, "--text", "FILE"]
    words += [word for name in floor for word in ("--metric", name)]
    words += [word for name, value in lossy.items() for word in (f"--{name.replace('_', '-')}", value)]
    return shlex.join(words)
