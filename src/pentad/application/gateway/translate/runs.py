"""Runs and agents as the wire shows them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict

import msgspec

from pentad.agent.catalogue import AgentEntry
from pentad.agent.codec import readable
from pentad.agent.events import Origin, Record
from pentad.agent.explain import Explanation
from pentad.agent.prompt_store import Prompt
from pentad.agent.rows import RunRow
from pentad.agent.state import RunState
from pentad.agent.sub_run_events import Parent
from pentad.agent.sub_run_state import SubRun
from pentad.agent.tool_events import ApprovalAsked
from pentad.application.gateway.context import energy_on_wire
from pentad.application.gateway.schemas.runs import (
    AgentCard,
    Approval,
    ForkOrigin,
    LayerShare,
    RunBar,
    RunExplanation,
    RunLine,
    RunObject,
    RunPrompt,
    RunUsage,
    SubRunLine,
    SubRunParent,
    SubRunShare,
)
from pentad.application.gateway.translate.frames import encode

_FRAMES_KEPT = 64
"""Records whose frame is kept: the followers of a run ask for the same one within a moment."""


class RecordFrames:
    """Records of runs as server-sent events; each is encoded once, however many follow its run."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, tuple[Record, bytes]] = OrderedDict()

    def of(self, record: Record) -> bytes:
        """The event, with the record's sequence as its id; live text has none, since it is not kept."""
        kept = self._kept.get(id(record))
        if kept is not None and kept[0] is record:
            return kept[1]
        number = b"" if record.live else b"id: %d\n" % record.sequence
        frame = b"%sevent: %s\ndata: %s\n\n" % (number, record.kind.encode(), encode(record.to_json()))
        self._kept[id(record)] = record, frame
        if len(self._kept) > _FRAMES_KEPT:
            self._kept.popitem(last=False)
        return frame


def agent_card(entry: AgentEntry) -> AgentCard:
    """What is known of an agent, or of a file that should hold one."""
    spec = entry.spec
    return AgentCard(
        name=entry.name,
        description=spec.description if spec else "",
        model=spec.model if spec else "",
        tools=[*spec.tools] if spec else [],
        max_steps=spec.max_steps if spec else 0,
        source=entry.source,
        error=entry.error,
    )


def run_line(row: RunRow) -> RunLine:
    """A run in a list."""
    return RunLine(
        id=row.id,
        agent=row.agent,
        goal=row.goal,
        status=row.status,
        created_at=row.started_s,
        ended_at=row.ended_s,
        parent=_parent(row.parent),
    )


def run_object(state: RunState, pending: Sequence[tuple[str, ApprovalAsked]]) -> RunObject:
    """A run in whole. `pending` is what it and its sub-runs ask, each with the id of the run that asks."""
    totals = state.totals
    return RunObject(
        id=state.run_id,
        agent=state.spec.name,
        goal=state.goal,
        status=state.status,
        created_at=state.started_s,
        ended_at=state.ended_s,
        steps=len(state.closed),
        sequence=state.sequence,
        answer=state.answer,
        error=state.error,
        parent=_parent(state.parent),
        pending=[_approval(asking, asked) for asking, asked in pending],
        forked_from=_origin(state.forked_from),
        children=[_sub_run(child) for _, child in sorted(state.children.items())],
        usage=RunUsage(
            prompt_tokens=totals.prompt_tokens,
            cached_tokens=totals.cached_tokens,
            completion_tokens=totals.completion_tokens,
            total_tokens=totals.prompt_tokens + totals.completion_tokens,
            model_calls=totals.model_calls,
            cost=totals.cost,
            energy=energy_on_wire(totals.energy, totals.completion_tokens),
        ),
        budget=asdict(state.ledger.budget),
        budget_left=asdict(state.budget_left),
    )


def run_explanation(made: Explanation) -> RunExplanation:
    """Where its time went."""
    return RunExplanation(
        run_id=made.run_id,
        active_s=made.active_s,
        waiting_s=made.waiting_s,
        offline_s=made.offline_s,
        residual_s=made.residual_s,
        residual_fraction=made.residual_fraction,
        layers=[
            LayerShare(layer=share.layer, seconds=share.seconds, parts=[*share.parts])
            for share in made.shares
        ],
        prompt_tokens=made.prompt_tokens,
        cached_tokens=made.cached_tokens,
        completion_tokens=made.completion_tokens,
        cost=made.cost,
        model_calls=made.model_calls,
        tool_calls=made.tool_calls,
        decisions=[msgspec.to_builtins(decision) for decision in made.decisions],
        waterfall=[RunBar(**asdict(bar)) for bar in made.waterfall],
        sub_runs=[SubRunShare(**asdict(each)) for each in made.sub_runs],
    )


def run_prompt(made: Prompt) -> RunPrompt:
    """What one model call was asked, if it is retained."""
    return RunPrompt(
        step=made.step,
        attempt=made.attempt,
        purpose=made.purpose,
        request_id=made.request_id,
        prompt=None if made.text is None else str(readable(made.text)),
        sha256=made.sha256,
        retained=made.text is not None,
    )


def _parent(parent: Parent | None) -> SubRunParent | None:
    return None if parent is None else SubRunParent(**asdict(parent))


def _sub_run(child: SubRun) -> SubRunLine:
    return SubRunLine(
        run_id=child.run_id,
        agent=child.agent,
        goal=str(readable(child.goal)),
        status=child.status,
        step=child.step,
        index=child.index,
        budget=asdict(child.budget),
        tokens=child.used.tokens,
        cost=child.used.cost,
        tool_calls=child.used.tool_calls,
    )


def _approval(run_id: str, asked: ApprovalAsked) -> Approval:
    return Approval(
        run_id=run_id,
        id=asked.approval_id,
        step=asked.step,
        index=asked.index,
        tool=asked.tool,
        arguments=readable(asked.arguments),
        asked_at=asked.asked_s,
        expires_at=asked.expires_s,
        kind=asked.kind,
        message=readable(asked.message),
        schema=None if asked.schema is None else readable(dict(asked.schema)),
    )


def _origin(origin: Origin | None) -> ForkOrigin | None:
    return None if origin is None else ForkOrigin(run_id=origin.run_id, step=origin.step)
