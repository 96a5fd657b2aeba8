"""Many steps at once, where nothing happens in them but one more token for each sequence.

    step  [ A B C ] [ A B C ] [ A B C ] ... [ A B C ]     one plan while nobody comes, ends or lacks blocks
          0        1         2              n             instants: known before, since each step's time is

For simulations, which know how long steps will take. What is left behind is, to the last bit, what as many
single steps would leave; the tests compare both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pentad.execution.counters import Counters
from pentad.execution.kv.cache import KVCache
from pentad.execution.pace import Pace
from pentad.execution.runner import SteadyRunner
from pentad.execution.sequence import Sequence as EngineSequence
from pentad.execution.served import RunServices
from pentad.execution.step_samples import StepSamples

MOST_STEPS = 512
"""Of one series; who comes in between cuts it."""


@dataclass(frozen=True, slots=True, eq=False)
class SteadySteps:
    """A series of steps that can be taken at once."""

    sequences: tuple[EngineSequence, ...]
    """In the order of the plan."""
    contexts: tuple[int, ...]
    """Slots of each in the first step."""
    seconds: npt.NDArray[np.float64]
    instants: npt.NDArray[np.float64]
    """[steps + 1] when the first step begins, and when each one ends."""

    def __len__(self) -> int:
        return len(self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class SteadyTokens:
    """What a series gave one sequence: a token at the end of each step."""

    id: str
    tokens: Sequence[int]


def decodes_only(running: Iterable[EngineSequence]) -> bool:
    """Whether every sequence computes one token a step and whatever it draws is taken as it is."""
    return all(seq.plain and len(seq.tokens) - seq.num_computed == 1 for seq in running)


def steps_of(sequences: Sequence[EngineSequence], kv: KVCache, block_size: int) -> int:
    """Steps until the one in which the first ends; fewer where blocks would not suffice without giving up
    what is kept."""
    steps = min(MOST_STEPS, *(seq.request.max_tokens - seq.num_generated - 1 for seq in sequences))
    free = kv.pool.evictable
    while steps > 0:
        grown = sum(-(-(seq.num_computed + steps) // block_size) - len(seq.blocks) for seq in sequences)
        if grown <= free:
            return steps
        steps //= 2
    return 0


def series(
    sequences: Sequence[EngineSequence], runner: SteadyRunner, steps: int, now_s: float
) -> SteadySteps:
    """That many steps, or the first of them."""
    contexts = tuple(seq.num_computed + 1 for seq in sequences)
    seconds = runner.decode_seconds(contexts, steps)
    instants = np.add.accumulate(np.concatenate(((now_s,), seconds)))
    return SteadySteps(tuple(sequences), contexts, seconds, instants)


def take(
    steady: SteadySteps,
    count: int,
    *,
    runner: SteadyRunner,
    kv: KVCache,
    runs: RunServices,
    counters: Counters,
    samples: StepSamples,
    pace: Pace,
    block_size: int,
) -> tuple[list[SteadyTokens], Pace]:
    """Takes the first `count` steps of a series; what they gave, and the pace behind them."""
    sequences = steady.sequences
    drawn = runner.decode([seq.tokens[-1] for seq in sequences], steady.contexts, steady.seconds[:count])
    for seq, tokens in zip(sequences, drawn, strict=True):
        seq.tokens += tokens
    # Blocks are taken and named in the order in which single steps would: other texts' may go for them.
    changes: list[tuple[int, int, int]] = []
    for place, context in enumerate(steady.contexts):
        end = context + count - 1
        changes += ((slot + 1 - context, 0, place) for slot in _multiples(context - 1, end, block_size))
        changes += ((slot - context, 1, place) for slot in _multiples(context, end + 1, block_size))
    for step, names, place in sorted(changes):
        seq = sequences[place]
        seq.num_computed = steady.contexts[place] - 1 + step
        if names:
            seq.num_computed += 1
            kv.register(seq)
        else:
            kv.grow(((seq, 1),))
    for seq, context in zip(sequences, steady.contexts, strict=True):
        seq.num_computed = context - 1 + count
    spent = np.diff(steady.instants[: count + 1])
    counters.steps += count
    counters.generation_tokens += count * len(sequences)
    counters.runner_seconds = _added(counters.runner_seconds, spent)
    counters.step_seconds = _added(counters.step_seconds, spent)
    runs.add_steps(sequences, spent)
    samples.add_decodes(len(sequences), sum(steady.contexts), spent.tolist())
    return (
        [SteadyTokens(id=seq.id, tokens=tokens) for seq, tokens in zip(sequences, drawn, strict=True)],
        pace.after_all(len(sequences), spent.tolist()),
    )


def _multiples(low: int, end: int, size: int) -> range:
    """Multiples of the size from `low` to in front of `end`."""
    return range(-(-low // size) * size, end, size)


def _added(total: float, values: npt.NDArray[np.float64]) -> float:
    """The total once the values are added one after the other."""
    return float(np.add.accumulate(np.concatenate(((total,), values)))[-1])
