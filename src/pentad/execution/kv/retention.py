"""Retention: cached blocks that a run will need again outlive those that nobody announced.

    a request ends    [ prompt .... | answer . ]   its full blocks are kept: `tool`, about 3 s
    the tool runs           ~ 3 s ~                others evict what is not kept, least recently used first
    the next request  [ prompt .... | answer . | result ]     finds them; they are kept no longer

Kept blocks are still evictable, only last: the keep whose next use is farthest gives way first, so a plan
that counts them as free can always be carried out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence as Sequence_
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pentad.execution.hints import remaining_steps
from pentad.execution.kv.pool import BlockPool
from pentad.types import Clock, Decision, Hints, RunContext

if TYPE_CHECKING:
    from pentad.execution.sequence import Sequence

_UNKNOWN_PAUSE_S: Final = 5.0
"""Assumed until the next request of a run, where neither its sender nor earlier pauses tell."""
_LEAST_GRACE_S: Final = 2.0
"""A keep lasts this long beyond the expected use, or as long again as the pause, whichever is more."""
_LONGEST_PAUSE_S: Final = 600.0
"""What is needed later than that is not kept: others need the room sooner."""
_MOST_KEEPS: Final = 1024
_WEIGHT: Final = 0.3
"""Of the latest pause among those of the same tool."""
_MOST_TOOLS: Final = 512
_SHOWN: Final = 8
"""Candidates that a decision lists."""


@dataclass(slots=True, kw_only=True)
class Keep:
    """The blocks of one ended request, kept for those that follow it."""

    id: str
    """Of its sequence."""
    request_id: str
    run_id: str | None
    tenant: str
    pause: tuple[str, str]
    """What its pause is learnt under: tenant, and tool or kind of what follows."""
    blocks: tuple[int, ...]
    """In the order of its text."""
    ended_s: float
    due_s: float
    """When the next use is expected."""
    until_s: float
    uses_left: int


class Retention:
    """Which idle blocks are kept, for whom and until when.

    Costs nothing while no request announces another. Blocks count once, however many keep them.

    Args:
        pool: of the blocks.
        kept_fraction: of the pool, what may be kept at most; 0 to 1.
        clock: tells when keeps end.

    Source: keeping a program's cache over its tool calls for a time to live, as Continuum (2025) and
    InferCept (Abhyankar et al., ICML'24). Our difference: nothing is pinned; keeps only order eviction, by
    expected time to the next use, within a share of the pool, and the tenant that keeps most gives way first.
    """

    __slots__ = ("_clock", "_keeps", "_most", "_pauses", "_pool", "dropped")

    def __init__(self, pool: BlockPool, kept_fraction: float, clock: Clock) -> None:
        self._pool = pool
        self._most = int(kept_fraction * pool.num_blocks)
        self._clock = clock
        self._keeps: dict[str, Keep] = {}
        self._pauses: OrderedDict[tuple[str, str], float] = OrderedDict()
        self.dropped = 0
        """Keeps that ended before the request came that they were for."""

    def ended(self, seq: Sequence) -> None:
        """Keeps the full blocks of a sequence that ends now and still holds them, if more is to follow."""
        context = seq.context
        hints = context.hints
        if context.run_id is not None and hints.next == "end":
            self._drop_run(seq.tenant, context.run_id)
        if not _goes_on(context) or not seq.num_registered or not self._most:
            return
        now_s = self._clock()
        key = (seq.tenant, hints.tool or hints.next or "")
        pause_s = self._pause_s(key, hints)
        keep = Keep(
            id=seq.id,
            request_id=seq.id.rpartition("/")[0] or seq.id,
            run_id=context.run_id,
            tenant=seq.tenant,
            pause=key,
            blocks=tuple(seq.blocks[: seq.num_registered]),
            ended_s=now_s,
            due_s=now_s + pause_s,
            until_s=now_s + pause_s + max(_LEAST_GRACE_S, pause_s),
            uses_left=hints.fan_out or 1,
        )
        self._drop_expired(now_s)
        if pause_s > _LONGEST_PAUSE_S:
            seq.note(self._decision("keep", "not kept", (keep,), now_s, constraint="pause"))
            return
        self._pool.keep(keep.blocks)
        self._keeps[keep.id] = keep
        while self._pool.kept > self._most or len(self._keeps) > _MOST_KEEPS:
            self._drop(self._farthest())
        kept = keep.id in self._keeps
        constraint = None if kept else "kept_fraction"
        seq.note(
            self._decision("keep", "kept" if kept else "not kept", (keep,), now_s, constraint=constraint)
        )

    def started(self, seq: Sequence) -> None:
        """Counts a sequence that starts as a use of what was kept for it, whose blocks it now shares."""
        if not self._keeps:
            return
        context, now_s = seq.context, self._clock()
        for keep in [keep for keep in self._keeps.values() if _follows(seq.tenant, context, keep)]:
            self._learn(keep.pause, now_s - keep.ended_s)
            keep.uses_left -= 1
            if not keep.uses_left:
                self._release(keep)

    def make_room(self, missing: int, seq: Sequence) -> None:
        """Gives up keeps until so many blocks can be allocated; the decision is told to who needs them."""
        now_s = self._clock()
        self._drop_expired(now_s)
        while self._keeps and self._pool.evictable < missing:
            before = tuple(self._keeps.values())
            victim = self._farthest()
            self._drop(victim)
            chosen = _shown(victim, seq.tenant)
            seq.note(self._decision("evict", chosen, before, now_s, seq.tenant, constraint="free_blocks"))

    def stats(self) -> dict[str, float]:
        """Gauges and counters by name."""
        return {
            "kv_blocks_kept": self._pool.kept,
            "kv_keeps": len(self._keeps),
            "kv_keeps_dropped_total": self.dropped,
        }

    def check_integrity(self) -> None:
        """Raises AssertionError unless the pool keeps exactly what the keeps name."""
        self._pool.check_kept([keep.blocks for keep in self._keeps.values()])

    def _pause_s(self, key: tuple[str, str], hints: Hints) -> float:
        if hints.tool_s is not None:
            return hints.tool_s
        return self._pauses.get(key, _UNKNOWN_PAUSE_S)

    def _learn(self, key: tuple[str, str], pause_s: float) -> None:
        known = self._pauses.get(key)
        self._pauses[key] = pause_s if known is None else known + _WEIGHT * (pause_s - known)
        self._pauses.move_to_end(key)
        if len(self._pauses) > _MOST_TOOLS:
            self._pauses.popitem(last=False)

    def _farthest(self) -> Keep:
        """The keep that gives way next: of the tenant that keeps most, the one that is used last."""
        counts: dict[str, int] = {}
        for keep in self._keeps.values():
            counts[keep.tenant] = counts.get(keep.tenant, 0) + len(keep.blocks)
        most = max(counts, key=counts.__getitem__)
        return max((k for k in self._keeps.values() if k.tenant == most), key=lambda k: k.due_s)

    def _drop_run(self, tenant: str, run_id: str) -> None:
        for keep in [k for k in self._keeps.values() if (k.tenant, k.run_id) == (tenant, run_id)]:
            self._release(keep)

    def _drop_expired(self, now_s: float) -> None:
        for keep in [keep for keep in self._keeps.values() if keep.until_s < now_s]:
            self._learn(keep.pause, now_s - keep.ended_s)  # it takes longer than that
            self._drop(keep)

    def _drop(self, keep: Keep) -> None:
        self.dropped += 1
        self._release(keep)

    def _release(self, keep: Keep) -> None:
        del self._keeps[keep.id]
        self._pool.unkeep(keep.blocks)

    def _decision(
        self,
        subject: str,
        chosen: str,
        keeps: Sequence_[Keep],
        now_s: float,
        tenant: str | None = None,
        *,
        constraint: str | None,
    ) -> Decision:
        """Candidates are scored by the seconds to their expected use."""
        names = ((_shown(keep, keep.tenant if tenant is None else tenant), keep) for keep in keeps[-_SHOWN:])
        return Decision(
            layer="execution",
            policy="retention",
            subject=subject,
            chosen=chosen,
            candidates=tuple((name, round(keep.due_s - now_s, 3)) for name, keep in names),
            constraint=constraint,
            at_s=now_s,
        )


def _goes_on(context: RunContext) -> bool:
    """Whether another request is announced that begins with this one's text."""
    hints = context.hints
    if hints.next == "end":
        return False
    announced = (hints.next, hints.tool, hints.tool_s, hints.fan_out)
    return any(one is not None for one in announced) or bool(remaining_steps(context))


def _follows(tenant: str, context: RunContext, keep: Keep) -> bool:
    """Whether a request is one that the keep is for: it names it, or nobody and is of the same run."""
    if tenant != keep.tenant:
        return False
    if context.parent is not None:
        return context.parent in (keep.request_id, keep.id)
    return context.run_id is not None and context.run_id == keep.run_id


def _shown(keep: Keep, tenant: str) -> str:
    return keep.id if keep.tenant == tenant else "another tenant's"
