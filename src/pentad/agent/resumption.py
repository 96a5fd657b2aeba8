"""Whether a run can be gone on with here, and as what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pentad.agent.events import Record, RunStarted
from pentad.agent.ports import ModelPort
from pentad.agent.rows import damaged
from pentad.agent.state import RunState, fold
from pentad.errors import Conflict


def generators(models: ModelPort) -> list[str]:
    """The models that can be thought with, the default first."""
    return [card.name for card in models.models() if card.kind == "generate"]


def resumable(records: Sequence[Record], models: ModelPort) -> RunState:
    """The state of an unfinished run, with the model that it had.

    Raises:
        JournalDamaged: its events make no state.
        Conflict: it has ended, or its model is not served here.
    """
    run_id = records[0].run_id if records else ""
    try:
        state = fold(records)
    except (ValueError, AssertionError, LookupError) as error:
        raise damaged(run_id, "the order of events", str(error)[:200]) from None
    if state.ended:
        raise Conflict(f"run {run_id!r} has already ended: {state.status}", hint="start a new run")
    model, served = model_of(records), generators(models)
    if model and model not in served:
        raise Conflict(
            f"run {run_id!r} thinks with model {model!r}, which is not served here: {', '.join(served)}",
            hint=f"serve it (--model {model}), or go on with another in a copy: pentad runs fork {run_id} "
            f"--step {state.step} --model NAME",
        )
    if model and not state.spec.model and model != served[0]:
        state = replace(state, spec=replace(state.spec, model=model))
    return state


def model_of(records: Sequence[Record]) -> str:
    """The model that a run named, or the one that was the default when it began; "" when unknown."""
    first = records[0].event
    assert isinstance(first, RunStarted), "the fold would have refused it"
    return str(first.agent.get("model", "")) or first.default_model
