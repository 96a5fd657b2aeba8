"""certify: a model beside its source, measured piece by piece, resumable, into a sealed certificate."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pentad import __version__, choice
from pentad.choice import Choice
from pentad.errors import Incompatible, ModelNotFound
from pentad.model.artefact import Artefact, artefact_of
from pentad.model.certification.base import Bench, Measured, Metric, Probe, Row
from pentad.model.certification.certificate import Certificate, sealed
from pentad.model.derivation import job_key
from pentad.model.store import ModelStore
from pentad.model.stored import StoredModel

USUAL: Final = (
    "perplexity",
    "perplexity-ratio",
    "kl",
    "top1",
    "size",
    "prefill-speed",
    "decode-speed",
    "joules",
)
"""Metrics that are measured where nobody chooses."""
Tell = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a certificate is to tell of."""

    model: StoredModel
    source: StoredModel
    settings: Mapping[str, str]
    metrics: Sequence[Choice]
    evaluation: Mapping[str, str | int]
    command: str
    machine: Mapping[str, str]


def source_of(store: ModelStore, model: StoredModel, *, settings: Mapping[str, str]) -> StoredModel:
    """The model that a derived one was made from at first; any other one, under settings, is its own.

    Raises:
        Incompatible: it was not derived, and no settings are to be certified.
        ModelNotFound: what it was made from is not here with its bytes.
    """
    if artefact_of(model) is None:
        if settings:
            return model
        raise Incompatible(
            f"{model.name!r} was not derived from another model, so there is nothing to measure it beside",
            hint="give --source MODEL, or settings of the KV cache to certify, such as --kv-dtype int8",
            param="source",
        )
    artefact, digest = _root(store, model)
    found = _with_digest(store, digest)
    if found is None and artefact is not None:  # its digest is only known once its files have been read
        named = store.resolve(artefact.source)
        found = named if store.digest(named) == digest else None
    if found is None:
        name = "another model" if artefact is None else repr(artefact.source)
        raise ModelNotFound(
            f"{model.name!r} was made from {name} with SHA-256 {digest}, which is not here",
            hint="bring it back, or give --source MODEL",
            param="source",
        )
    return found


def root_digest(store: ModelStore, model: StoredModel) -> str:
    """The digest of what `source_of` finds, whether or not it is here."""
    return _root(store, model)[1]


def _root(store: ModelStore, model: StoredModel) -> tuple[Artefact | None, str]:
    """The first derivation of a chain, and the digest of what it began with.

    Losses add up along a chain, so a model is always measured beside the first that can be told.
    """
    last: Artefact | None = None
    digest = store.digest(model)
    stored: StoredModel | None = model
    while stored is not None and (artefact := artefact_of(stored)) is not None:
        last, digest = artefact, artefact.source_sha256
        stored = _with_digest(store, digest)
    return last, digest


def _with_digest(store: ModelStore, digest: str) -> StoredModel | None:
    return next((each for each in store.list() if each.sha256 == digest), None)


def certify(store: ModelStore, question: Question, bench: Bench, *, tell: Tell) -> Certificate:
    """Measures; goes on where the same call was interrupted. `write_certificate` puts it beside the model.

    Raises what probes raise where the data that they need are not given, before anything is measured.
    """
    metrics: list[tuple[Choice, Metric]] = [(each, choice.build("metric", each)) for each in question.metrics]
    measured, data = _measured(store, question, bench, metrics, tell)
    return sealed(
        Certificate(
            model=question.model.name,
            model_sha256=store.digest(question.model),
            source=question.source.name,
            source_sha256=store.digest(question.source),
            settings=dict(question.settings),
            data=data,
            evaluation=dict(question.evaluation),
            command=question.command,
            seed=bench.seed,
            machine=dict(question.machine),
            measured=measured,
            pentad=__version__,
        )
    )


def _measured(
    store: ModelStore,
    question: Question,
    bench: Bench,
    metrics: Sequence[tuple[Choice, Metric]],
    tell: Tell,
) -> tuple[dict[str, Measured], dict[str, str]]:
    probes = {metric.probe.key: metric.probe for _, metric in metrics}
    units = {key: probe.units(bench) for key, probe in probes.items()}  # refused before any work
    data = {name: digest for probe in probes.values() for name, digest in probe.data(bench).items()}
    told = [store.digest(question.model), *sorted(probes), *(f"{k}={v}" for k, v in sorted(data.items()))]
    told += [f"{len(bench.windows)}x{len(bench.windows[0])}" if bench.windows else "", str(bench.seed)]
    key = job_key(store.digest(question.source), told, json.dumps(dict(question.settings), sort_keys=True))
    total = sum(units.values())
    with store.folders.workspace(key) as work:
        rows = _Rows(work / "rows.jsonl")
        done = 0
        for name, probe in probes.items():
            for unit in range(units[name]):
                tell(done, total)
                rows.row(name, unit, probe, bench)
                done += 1
        tell(total, total)
        values = {
            str(chosen): metric.value(
                [rows.found[metric.probe.key, unit] for unit in range(units[metric.probe.key])]
            )
            for chosen, metric in metrics
        }
    return values, data


class _Rows:
    """Rows so far, each written through as it comes; a line that a kill has cut is measured again."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self.found: dict[tuple[str, int], Row] = {}
        whole = path.read_bytes() if path.exists() else b""
        whole = whole[: whole.rfind(b"\n") + 1]
        for line in whole.splitlines():
            entry: dict[str, Any] = json.loads(line)
            self.found[entry["probe"], entry["unit"]] = entry["row"]
        path.write_bytes(whole)

    def row(self, name: str, unit: int, probe: Probe, bench: Bench) -> None:
        """Measures the piece unless it is there."""
        if (name, unit) in self.found:
            return
        row = probe.measure(bench, unit)
        with self._path.open("ab") as out:
            out.write(json.dumps({"probe": name, "unit": unit, "row": dict(row)}).encode() + b"\n")
            out.flush()
            os.fsync(out.fileno())
        self.found[name, unit] = row
