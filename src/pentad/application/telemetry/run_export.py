"""Runs of the journal as JSON lines: whole, or as spans of OpenTelemetry."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pentad
from pentad.agent.events import Record
from pentad.agent.journal import Journal
from pentad.agent.rows import JournalDamaged
from pentad.agent.run_places import Tracing
from pentad.agent.run_spans import run_spans
from pentad.agent.state import fold
from pentad.agent.sub_run_events import SubRunStarted
from pentad.application.cli.trace import run_summary
from pentad.errors import NotFound
from pentad.tracing.otlp_json import otlp_export

Warn = Callable[[str], None]


def run_lines(journal: Journal, runs: Sequence[str] | None, warn: Warn) -> Iterator[dict[str, Any]]:
    """Each run: what it came to, its events and its prompts.

    Args:
        runs: ids; None takes all, and leaves damaged ones out with a warning.

    Raises:
        NotFound, JournalDamaged: of a run that is named.
    """
    every = runs or [row.id for row in reversed(journal.runs())]
    for run_id, records in _readable(journal, every, None if runs else warn):
        yield run_summary(fold(records)) | {
            "events": [record.to_json() for record in records],
            "prompts": [dataclasses.asdict(prompt) for prompt in journal.prompts(run_id)],
        }


def otlp_lines(
    journal: Journal, runs: Sequence[str] | None, warn: Warn, *, content: bool = False
) -> Iterator[dict[str, Any]]:
    """Each run with its sub-runs as one export of OTLP, as they were traced or would have been.

    Args:
        runs: as for `run_lines`; all are those that nobody leads.
        content: whether goals, answers, arguments and results are told; of runs with a data label never.
    """
    roots = runs or [row.id for row in reversed(journal.runs()) if row.parent is None]
    tracing = Tracing(content=content)
    for _, records in _readable(journal, roots, None if runs else warn):
        spans = [span for each in _tree(journal, records) for span in run_spans(each, tracing)]
        yield otlp_export(spans, service="pentad", version=pentad.__version__)


def _readable(
    journal: Journal, runs: Iterable[str], warn: Warn | None
) -> Iterator[tuple[str, Sequence[Record]]]:
    for run_id in runs:
        try:
            yield run_id, journal.read(run_id)
        except JournalDamaged as error:
            if warn is None:
                raise
            warn(f"warning: {error.message}")


def _tree(journal: Journal, records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """A run and all below it; one that was journaled to begin and never did is not there."""
    yield records
    for record in records:
        if isinstance(record.event, SubRunStarted):
            try:
                below = journal.read(record.event.run_id)
            except NotFound:
                continue
            yield from _tree(journal, below)
