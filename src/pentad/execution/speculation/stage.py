"""Speculation: the engine's stage that drafts before a step and verifies behind it."""

from __future__ import annotations

import logging
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from pentad.execution.batch import Drawn, SampleRow
from pentad.execution.kv.cache import Copy, KVCache
from pentad.execution.request import ForcingConstraint
from pentad.execution.sampling import Undrawable, faulty
from pentad.execution.scheduling import EngineLimits
from pentad.execution.speculation.base import Ask, DraftPlan, Speculator, Verdict
from pentad.execution.speculation.control import Controller, Room, Standing
from pentad.execution.speculation.costs import StepCosts
from pentad.execution.speculation.lookahead import Lookahead
from pentad.execution.speculation.tree import MAX_NODES, TokenTree
from pentad.types import Clock, Decision

if TYPE_CHECKING:
    from pentad.execution.sequence import Sequence

_log = logging.getLogger(__name__)

_FAILURES_TOLERATED = 2


@dataclass(frozen=True, slots=True)
class DraftedTree:
    """What is drafted behind a sequence's last token, and the rows to verify it with."""

    tree: TokenTree
    rows: tuple[SampleRow, ...]
    """Behind the sequence's last token, then behind each node."""

    def cut(self, size: int) -> DraftedTree | None:
        """The first `size` nodes; None when there are none."""
        if size >= len(self.tree):
            return self
        if size <= 0:
            return None
        tree = self.tree.cut(size)
        return DraftedTree(tree, self.rows[: size + 1])


class Speculation:
    """Drafts for the sequences of one engine, with one speculator and one controller.

    A speculator that raises costs its drafts only; after the third time in a row it is left alone.

    Args:
        speculator: drafts and verifies; closed together with the engine.
        most_tokens: drafted tokens per sequence and step, 1 to 64.
        adaptive: whether measured gain and cost choose how many of them; otherwise always all.
    """

    def __init__(self, speculator: Speculator, *, most_tokens: int = 16, adaptive: bool = True) -> None:
        if not 1 <= most_tokens <= MAX_NODES:
            raise ValueError(f"most_tokens is {most_tokens}, must be 1 to {MAX_NODES}")
        self._speculator = speculator
        self.costs = StepCosts()
        self._controller = Controller(speculator, self.costs, most_tokens=most_tokens, adaptive=adaptive)
        self._standings: dict[str, Standing] = {}
        self._failures = 0
        self.drafted = self.accepted = self.verified = 0
        self.draft_seconds = 0.0

    def propose(
        self,
        running: Seq[Sequence],
        waiting: Seq[Sequence],
        kv: KVCache,
        limits: EngineLimits,
        clock: Clock,
    ) -> None:
        """Gives those that decode next a draft, where one is worth its cost and prompts leave room."""
        if not running or self._failures > _FAILURES_TOLERATED:
            return
        spare_tokens = limits.max_batch_tokens - sum(len(seq.tokens) - seq.num_computed for seq in running)
        if waiting and len(running) < limits.max_sequences and kv.has_room(waiting[0]):
            spare_tokens -= sum(len(seq.tokens) for seq in waiting)
        decoding = [seq for seq in running if len(seq.tokens) - seq.num_computed == 1]
        asking = [seq for seq in decoding if seq.draft is None]
        if not asking or spare_tokens < 1:
            return
        started_s = clock()
        standings = [self._standing(seq) for seq in asking]
        plans = self._controller.choose(
            standings, [_room(seq, kv.max_tokens) for seq in asking], len(decoding), spare_tokens
        )
        asks: list[Ask] = []
        asked: list[tuple[Sequence, Lookahead]] = []
        for seq, standing, plan in zip(asking, standings, plans, strict=True):
            self._record(seq, standing, plan, started_s)
            if plan is not None and (ahead := _lookahead(seq)) is not None:
                asked.append((seq, ahead))
                asks.append(_ask(seq, plan, ahead))
        if asks:
            self._draft(asks, asked)
            spent_s = clock() - started_s
            self.draft_seconds += spent_s
            self._controller.spent(max(ask.plan.depth for ask in asks), spent_s)

    def _draft(self, asks: list[Ask], asked: list[tuple[Sequence, Lookahead]]) -> None:
        try:
            trees = self._speculator.draft(asks)
            for (seq, ahead), tree in zip(asked, trees, strict=True):
                if tree is not None and len(tree := ahead.pruned(tree)):
                    seq.draft = DraftedTree(tree, tuple(ahead.rows(tree)))
            self._failures = 0
        except Exception as error:
            for seq, _ in asked:
                seq.draft = None
            self._failures += 1
            _log.error("drafting with %s failed", self._speculator.name, exc_info=error)
            if self._failures > _FAILURES_TOLERATED:
                _log.error("speculation is switched off until the engine is started anew")

    def settle(
        self, work: list[tuple[Sequence, int]], drawn: Seq[Drawn], kv: KVCache
    ) -> tuple[list[tuple[Drawn, ...]], list[Copy]]:
        """What the step's draws give each sequence, and the slots that have to be copied for it.

        Drafts are used up; `work` counts the accepted tokens in their place.
        """
        taken: list[tuple[Drawn, ...]] = []
        moves: list[Copy] = []
        answers = iter(drawn)
        for i, (seq, count) in enumerate(work):
            if seq.num_computed + count < len(seq.tokens):
                taken.append(())
            elif seq.draft is None:
                taken.append((next(answers),))
            else:
                verdict = self._verify(seq, seq.draft, tuple(islice(answers, len(seq.draft.rows))))
                moves += kv.moves(seq, verdict.path)
                computed = len(seq.tokens) + len(verdict.path)
                kv.trim(seq, computed)  # their content is still there when the moves are made
                work[i] = (seq, computed - seq.num_computed)
                taken.append(verdict.drawn)
        return taken, moves

    def _verify(self, seq: Sequence, draft: DraftedTree, drawn: Seq[Drawn]) -> Verdict:
        seq.draft = None
        try:
            verdict = self._speculator.verify(draft.tree, draft.rows, drawn)
        except Undrawable as error:  # of logits that were handed back to draw from
            return Verdict(path=(), drawn=(faulty(error.fault),))
        self._controller.note(self._standing(seq), draft.tree, verdict.path)
        self.verified += 1
        self.drafted += len(draft.tree)
        self.accepted += len(verdict.path)
        return verdict

    def forget(self, id: str) -> None:
        """The sequence ended."""
        if self._standings.pop(id, None) is not None:
            self._speculator.forget(id)

    def stats(self) -> dict[str, float]:
        """Gauges and counters by name."""
        return {
            "draft_tokens_total": self.drafted,
            "draft_accepted_tokens_total": self.accepted,
            "draft_verifications_total": self.verified,
            "draft_seconds_total": self.draft_seconds,
            "draft_acceptance_fraction": self.accepted / self.drafted if self.drafted else 0.0,
        }

    def close(self) -> None:
        """Closes the speculator."""
        self._speculator.close()

    def _standing(self, seq: Sequence) -> Standing:
        standing = self._standings.get(seq.id)
        if standing is None:
            standing = self._standings[seq.id] = Standing()
        return standing

    def _record(self, seq: Sequence, standing: Standing, plan: DraftPlan | None, now_s: float) -> None:
        """Notes with the sequence whether drafts pay, each time that this changes."""
        if standing.recorded == standing.on:
            return
        standing.recorded = standing.on
        seq.note(
            Decision(
                layer="execution",
                policy=self._speculator.name,
                subject="draft_tokens",
                chosen=str(plan.tokens) if plan is not None else "none",
                candidates=tuple(
                    (f"accepted at rank {i}", round(rate, 3))
                    for i, rate in enumerate(self._controller.rates(standing)[:3])
                ),
                constraint=None if standing.on else "step_seconds",
                at_s=now_s,
            )
        )


def _room(seq: Sequence, most_tokens: int) -> Room:
    left = seq.request.max_tokens - seq.num_generated
    return Room(min(most_tokens - len(seq.tokens), MAX_NODES), left - 1)


def _lookahead(seq: Sequence) -> Lookahead | None:
    try:
        return Lookahead(seq)
    except Exception:  # the step itself will say so
        return None


def _ask(seq: Sequence, plan: DraftPlan, ahead: Lookahead) -> Ask:
    request = seq.request
    return Ask(
        id=seq.id,
        tenant=request.tenant,
        cache_salt=request.cache_salt,
        tokens=seq.tokens,
        reference=request.reference,
        plan=plan,
        forced=request.constraint.forced if isinstance(request.constraint, ForcingConstraint) else tuple,
        row=ahead.row,
    )
