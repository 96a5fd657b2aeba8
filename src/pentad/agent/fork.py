"""A new run out of an old one: its events up to the start of a step, under another id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pentad.agent.events import Origin, Recalled, Record, RunEnded, RunResumed, RunStarted, StepEnded
from pentad.agent.state import fold
from pentad.errors import InvalidRequest
from pentad.types import Clock


def forked(
    records: Sequence[Record],
    run_id: str,
    *,
    step: int,
    goal: str | None = None,
    model: str | None = None,
    foreground: bool = False,
    traceparent: str = "",
    clock: Clock,
    wall: Clock,
) -> list[Record]:
    """The records that the new run begins with; what its copied steps used counts as used.

    Args:
        records: the whole of the old run.
        run_id: the new one's.
        step: the first step that is not copied, from 1.
        foreground: whether someone follows the new one in a terminal.
        traceparent: see `RunStarted`.
        goal, model: in place of the old ones. With another goal, memories are looked up anew.

    Raises:
        InvalidRequest: the old run did not come to that step, with those it came to.
    """
    state = fold(records)
    settled = bool(state.closed) and state.closed[-1].outcome in ("answered", "refused")
    most = len(state.closed) + (0 if settled else 1)
    if not 1 <= step <= most:
        raise InvalidRequest(
            f"step is {step}; run {state.run_id!r} can be forked at 1 to {most}", param="step"
        )
    first = records[0].event
    assert isinstance(first, RunStarted), "the fold would have refused it"
    agent = dict(first.agent) | ({} if model is None else {"model": model})
    origin = Origin(run_id=state.run_id, step=step, traceparent=first.traceparent)
    start = replace(
        first,
        agent=agent,
        goal=first.goal if goal is None else goal,
        forked_from=origin,
        parent=None,
        steps_behind=None,
        traceparent=traceparent,
    )
    kept = [replace(records[0], event=start)]
    ends = [i for i, r in enumerate(records) if isinstance(r.event, StepEnded) and r.event.step == step - 1]
    for record in records[1 : ends[0] + 1 if ends else 1]:
        outdated = goal is not None and isinstance(record.event, Recalled)
        if not outdated and not isinstance(record.event, RunEnded):
            kept.append(record)
    kept.append(
        Record(
            run_id=run_id, sequence=0, at_s=wall(), clock_s=clock(), event=RunResumed(foreground=foreground)
        )
    )
    return [replace(record, run_id=run_id, sequence=i) for i, record in enumerate(kept, 1)]
