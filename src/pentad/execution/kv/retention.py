"""Retention: cached blocks that a run will need again outlive those that nobody announced.

    a request ends    [ prompt .... | answer . ]   its full blocks are kept: `tool`, about 3 s
    the tool runs           ~ 3 s ~                others evict what is not kept, least recently used first
    the next request  [ prompt .... | answer . | result ]     finds them; they are kept no longer

Kept blocks are still evictable, only last: the keep that is worth least gives way first, from its end, so a
plan that counts them as free can always be carried out. What a keep is worth, a policy says (eviction.py).
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Sequence as Sequence_
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pentad.execution.hints import remaining_steps
from pentad.execution.kv.eviction import Announced, CachedText, KVEviction
from pentad.execution.kv.pool import BlockPool
from pentad.execution.served import RunServices
from pentad.types import Clock, Decision, RunContext

if TYPE_CHECKING:
    from pentad.execution.sequence import Sequence

_MOST_KEEPS: Final = 1024
_WEIGHT: Final = 0.3
"""Of the latest pause among those of the same tool."""
_SAMPLES: Final = 64
"""Pauses of one tool that are remembered."""
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
    tokens: int
    """Of the text that they hold."""
    hinted_s: float | None
    ended_s: float
    uses_left: int
    waiting: set[str] = field(default_factory=set)
    """Ids of sequences that go on from it and have not started."""
    cut: bool = False
    """Whether it has given up blocks."""


@dataclass(slots=True)
class _Pauses:
    """What pauses behind one tool took."""

    mean_s: float
    latest: deque[float]
    ordered: tuple[float, ...]
    """The latest ones, the shortest first."""


class Retention:
    """Which idle blocks are kept, for whom and until when.

    Costs nothing while no request announces another. Blocks count once, however many keep them.

    Args:
        pool: of the blocks.
        kept_fraction: of the pool, what may be kept at most; 0 to 1.
        clock: tells when keeps end.
        policy: which keeps are worth their blocks; of the tenant that keeps most, the least worth gives way.
        services: what runs have had of the engine.
    """

    __slots__ = ("_clock", "_keeps", "_most", "_pauses", "_policy", "_pool", "_services", "dropped")

    def __init__(
        self,
        pool: BlockPool,
        kept_fraction: float,
        clock: Clock,
        policy: KVEviction | None = None,
        services: RunServices | None = None,
    ) -> None:
        self._services = services or RunServices()
        self._pool = pool
        self._policy = policy or Announced()
        self._most = int(kept_fraction * pool.num_blocks)
        self._clock = clock
        self._keeps: dict[str, Keep] = {}
        self._pauses: OrderedDict[tuple[str, str], _Pauses] = OrderedDict()
        self.dropped = 0
        """Keeps that lost blocks before the request came that they were for."""

    def ended(self, seq: Sequence) -> None:
        """Keeps the full blocks of a sequence that ends now and still holds them, if more is to follow."""
        context = seq.context
        hints = context.hints
        if context.run_id is not None and hints.next == "end":
            self._drop_run(seq.tenant, context.run_id)
        if not goes_on(context) or not seq.num_registered or not self._most:
            return
        now_s = self._clock()
        keep = Keep(
            id=seq.id,
            request_id=seq.id.rpartition("/")[0] or seq.id,
            run_id=context.run_id,
            tenant=seq.tenant,
            pause=(seq.tenant, hints.tool or hints.next or ""),
            blocks=tuple(seq.blocks[: seq.num_registered]),
            tokens=seq.num_computed,
            hinted_s=hints.tool_s,
            ended_s=now_s,
            uses_left=hints.fan_out or 1,
        )
        self._drop_expired(now_s)
        if self._expected_s(keep, now_s) is None:
            seq.note(self._decision("keep", "not kept", (keep,), now_s, constraint="pause"))
            return
        self._pool.keep(keep.blocks)
        self._keeps[keep.id] = keep
        while self._pool.kept > self._most or len(self._keeps) > _MOST_KEEPS:
            excess = self._pool.kept - self._most
            self._cut(self._least_worth(now_s), excess if excess > 0 else len(keep.blocks))
        kept = keep.id in self._keeps
        outcome = "not kept" if not kept else "kept in part" if keep.cut else "kept"
        constraint = None if outcome == "kept" else "kept_fraction"
        seq.note(self._decision("keep", outcome, (keep,), now_s, constraint=constraint))

    def arrived(self, seq: Sequence) -> None:
        """Notes that a sequence waits which goes on from what is kept: its pause is over."""
        if not self._keeps:
            return
        now_s = self._clock()
        for keep in self._followed(seq):
            if not keep.waiting:
                self._learn(keep.pause, now_s - keep.ended_s)
            keep.waiting.add(seq.id)

    def left(self, seq: Sequence) -> None:
        """Notes that a sequence has ended that had not started."""
        for keep in self._followed(seq):
            keep.waiting.discard(seq.id)

    def started(self, seq: Sequence) -> None:
        """Counts a sequence that starts as a use of what was kept for it, whose blocks it now shares."""
        for keep in self._followed(seq):
            keep.waiting.discard(seq.id)
            keep.uses_left -= 1
            if not keep.uses_left:
                self._release(keep)

    def _followed(self, seq: Sequence) -> list[Keep]:
        return [keep for keep in self._keeps.values() if _follows(seq.tenant, seq.context, keep)]

    def make_room(self, missing: int, seq: Sequence) -> None:
        """Gives up keeps until so many blocks can be allocated; the decision is told to who needs them."""
        now_s = self._clock()
        self._drop_expired(now_s)
        while self._keeps and self._pool.evictable < missing:
            before = tuple(self._keeps.values())
            victim = self._least_worth(now_s)
            chosen = _shown(victim, seq.tenant)
            seq.note(self._decision("evict", chosen, before, now_s, seq.tenant, constraint="free_blocks"))
            self._cut(victim, missing - self._pool.evictable)

    def forget(self) -> None:
        """Keeps nothing any more: what the blocks held is lost."""
        for keep in list(self._keeps.values()):
            self._release(keep)

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

    def _expected_s(self, keep: Keep, now_s: float) -> float | None:
        return self._policy.expected_s(self._text(keep, now_s))

    def _text(self, keep: Keep, now_s: float) -> CachedText:
        known = self._pauses.get(keep.pause)
        return CachedText(
            tokens=keep.tokens,
            blocks=len(keep.blocks),
            idle_s=now_s - keep.ended_s,
            waiting=bool(keep.waiting),
            whole=not keep.cut,
            service_s=self._services.seconds(keep.tenant, keep.run_id),
            hinted_s=keep.hinted_s,
            mean_s=None if known is None else known.mean_s,
            pauses=() if known is None else known.ordered,
        )

    def _learn(self, key: tuple[str, str], pause_s: float) -> None:
        known = self._pauses.get(key)
        if known is None:
            known = self._pauses[key] = _Pauses(pause_s, deque(maxlen=_SAMPLES), ())
        known.mean_s += _WEIGHT * (pause_s - known.mean_s)
        known.latest.append(pause_s)
        known.ordered = tuple(sorted(known.latest))
        self._pauses.move_to_end(key)
        if len(self._pauses) > _MOST_TOOLS:
            self._pauses.popitem(last=False)

    def _least_worth(self, now_s: float) -> Keep:
        """The keep that gives way next: of the tenant that keeps most, the one of least value."""
        counts: dict[str, int] = {}
        for keep in self._keeps.values():
            counts[keep.tenant] = counts.get(keep.tenant, 0) + len(keep.blocks)
        most = max(counts, key=counts.__getitem__)
        return min((k for k in self._keeps.values() if k.tenant == most), key=lambda k: self._value(k, now_s))

    def _value(self, keep: Keep, now_s: float) -> float:
        text = self._text(keep, now_s)
        expected_s = self._policy.expected_s(text)
        return -math.inf if expected_s is None else self._policy.keep_value(text, expected_s)

    def _cut(self, keep: Keep, blocks: int) -> None:
        """Gives up so many blocks from the end of a keep, those that others keep as well not counted."""
        self.dropped += not keep.cut
        keep.cut = True
        end = len(keep.blocks)
        while end and blocks > 0:
            end -= 1
            blocks -= self._pool.keepers(keep.blocks[end]) == 1
        if not end:
            self._release(keep)
            return
        self._pool.unkeep(keep.blocks[end:])
        keep.blocks = keep.blocks[:end]

    def _drop_run(self, tenant: str, run_id: str) -> None:
        for keep in [k for k in self._keeps.values() if (k.tenant, k.run_id) == (tenant, run_id)]:
            self._release(keep)

    def _drop_expired(self, now_s: float) -> None:
        for keep in [keep for keep in self._keeps.values() if self._expected_s(keep, now_s) is None]:
            self._learn(keep.pause, now_s - keep.ended_s)  # it takes longer than that
            self.dropped += not keep.cut
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
            candidates=tuple((name, round(self._expected_s(k, now_s) or 0.0, 3)) for name, k in names),
            constraint=constraint,
            at_s=now_s,
        )


def goes_on(context: RunContext) -> bool:
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
