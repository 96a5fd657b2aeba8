"""What nobody could do better, even who knew the whole trace: the judge of schedulers and caches.

    misses   Belady: of the blocks that are there, the one goes whose next use is farthest
    seconds  of a run: its critical path, alone on the machine, each block computed once
             over all runs: one machine that knows what each still needs, and does the least first

Both relax what binds a real engine (blocks come one by one, shares of steps cost nothing extra, a run that
pauses could use the machine), so they lie below what can be had, never above.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pentad.resource.simulator.runner import StepTimes
from pentad.resource.simulator.trace import TraceItem, prompt_of
from pentad.resource.step_shape import StepShape

_CHUNK = 512
"""Tokens of a prompt that are computed in one step at best."""


def belady_misses(uses: Iterable[Sequence[Hashable]], capacity: int) -> int:
    """The fewest misses with which so many blocks serve these uses, in this order.

    Args:
        uses: per request, the names of its blocks in the order of its text.
        capacity: blocks that may be held between two uses; at least 1.

    Source: Belady, "A study of replacement algorithms" (1966), with bypass.
    """
    flat = [block for use in uses for block in use]
    nexts = [len(flat)] * len(flat)
    latest: dict[Hashable, int] = {}
    for i in range(len(flat) - 1, -1, -1):
        nexts[i] = latest.get(flat[i], len(flat))
        latest[flat[i]] = i
    held: dict[Hashable, int] = {}
    farthest: list[tuple[int, int, Hashable]] = []
    misses = 0
    for i, (block, following) in enumerate(zip(flat, nexts, strict=True)):
        misses += block not in held
        held[block] = following
        heapq.heappush(farthest, (-following, i, block))
        while len(held) > capacity:
            use, _, victim = heapq.heappop(farthest)
            if held.get(victim) == -use:
                del held[victim]
    return misses


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Seconds that runs take at least, and blocks that are missed at least."""

    critical_s: Mapping[str, float]
    """Per run: steps that wait for each other, and the pauses between them, with the machine to itself."""
    mean_s: float
    """Of the runs' completions on one machine: no order of work gives less."""
    misses: int
    """Blocks of prompts that must be computed, in the order in which the requests are given."""
    uses: int
    """Blocks of prompts."""


def clairvoyant(
    items: Sequence[TraceItem],
    cost: StepTimes,
    *,
    capacity_blocks: int,
    slots: int,
    block_size: int = 16,
    seed: int = 0,
) -> Bound:
    """The bounds of a trace, in whose order its requests are taken to reach the cache.

    Items of no run are runs of their own. A token generated costs no less than its share of a full batch.

    Args:
        items: each after those it waits for.
        cost: step times.
        capacity_blocks: of the cache.
        slots: sequences that run at once.
    """
    work: dict[str, float] = {}
    ends: dict[str, float] = {}
    starts: dict[str, float] = {}
    lasts: dict[str, float] = {}
    uses: list[list[Hashable]] = []
    seen: set[Hashable] = set()
    token_s = cost.seconds(StepShape.decode(slots, _CHUNK)) / slots
    for item in items:
        names = block_names(item, cost.spec.vocab_size, block_size, seed)
        uses.append(names)
        known = next((i for i, name in enumerate(names) if name not in seen), len(names))
        seen.update(names)
        cached = min(known * block_size, item.prompt_tokens - 1)
        alone_s, least_s = _seconds(item, cached, cost, token_s)
        run = item.root or item.run or item.id
        arrived_s = max((ends[other] for other in item.waits_for), default=item.arrival_s) + item.pause_s
        ends[item.id] = arrived_s + alone_s
        starts.setdefault(run, arrived_s)
        lasts[run] = max(lasts.get(run, 0.0), ends[item.id])
        work[run] = work.get(run, 0.0) + least_s
    critical = {run: lasts[run] - starts[run] for run in work}
    jobs = [(starts[run], work[run]) for run in work]
    mean_s = max(_shortest_first(jobs), sum(critical.values()) / len(critical))
    misses = belady_misses(uses, capacity_blocks)
    return Bound(critical_s=critical, mean_s=mean_s, misses=misses, uses=sum(map(len, uses)))


def block_names(item: TraceItem, vocab_size: int, block_size: int, seed: int = 0) -> list[Hashable]:
    """Names of the full blocks of an item's prompt: equal where all tokens up to there are."""
    tokens = prompt_of(item, vocab_size, seed=seed)
    names: list[Hashable] = []
    name = 0
    for end in range(block_size, len(tokens) + 1, block_size):
        name = hash((name, tokens[end - block_size : end]))
        names.append(name)
    return names


def _seconds(item: TraceItem, cached: int, cost: StepTimes, token_s: float) -> tuple[float, float]:
    """What a request takes alone, and what of the machine it takes at least beside others."""
    alone_s = least_s = 0.0
    for begin in range(cached, item.prompt_tokens, _CHUNK):
        tokens = min(_CHUNK, item.prompt_tokens - begin)
        last = begin + tokens == item.prompt_tokens
        alone_s += cost.seconds(StepShape.prefill(tokens, cached=begin, rows=int(last)))
        # In the best company a chunk only adds its tokens to a step that others fill.
        full = cost.seconds(StepShape.prefill(_CHUNK, cached=begin, rows=0)) / _CHUNK
        least_s += tokens * full
    generated = item.output_tokens - 1
    alone_s += generated * cost.seconds(StepShape.decode(1, item.prompt_tokens))
    return alone_s, least_s + generated * token_s


def _shortest_first(jobs: Iterable[tuple[float, float]]) -> float:
    """The least mean completion of jobs (release, work) on one machine: least remaining work first."""
    waiting = sorted(jobs)
    ready: list[tuple[float, float]] = []
    now_s = total_s = 0.0
    at = 0
    while at < len(waiting) or ready:
        if not ready:
            now_s = max(now_s, waiting[at][0])
        while at < len(waiting) and waiting[at][0] <= now_s:
            heapq.heappush(ready, (waiting[at][1], waiting[at][0]))
            at += 1
        left_s, released_s = heapq.heappop(ready)
        until_s = waiting[at][0] if at < len(waiting) else float("inf")
        if now_s + left_s <= until_s:
            now_s += left_s
            total_s += now_s - released_s
        else:
            heapq.heappush(ready, (left_s - (until_s - now_s), released_s))
            now_s = until_s
    return total_s / len(waiting) if waiting else 0.0
