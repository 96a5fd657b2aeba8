"""Greedy generation through the real engine, for the tests that compare ways of running it."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

from pentad.execution.engine import Engine
from pentad.execution.kv.policy import KVPolicy
from pentad.execution.request import TokenRequest
from pentad.execution.runner import Runner
from pentad.execution.scheduling import BatchScheduler, EngineLimits, SchedulerInput, StepPlan
from pentad.model.loading import ModelFiles
from pentad.resource.scheduling.fcfs import Fcfs
from pentad.types import Sampling

PROMPTS = pathlib.Path(__file__).parent / "data" / "torch_prompts.txt"


@dataclass(frozen=True)
class Outcome:
    """The tokens of each prompt and what befell the sequences on the way."""

    tokens: list[list[int]]
    cached_tokens: int
    preemptions: int
    steps: int


def prompts(files: ModelFiles, count: int = 50) -> list[tuple[int, ...]]:
    """The first of the prompt fixture's lines as token ids."""
    lines = PROMPTS.read_text().splitlines()[:count]
    return [tuple(files.tokenizer.encode(line, special=False)) for line in lines]


@dataclass
class PreemptAllOnce:
    """Takes the blocks of every running sequence once, when each has generated some tokens."""

    inner: BatchScheduler
    after_tokens: int
    done: bool = False

    name = "preempt-all-once"

    def plan(self, state: SchedulerInput) -> StepPlan:
        if not self.done and state.running and not state.waiting:
            self.done = all(seq.num_generated >= self.after_tokens for seq in state.running)
            if self.done:
                return StepPlan(preempt=tuple(state.running))
        return self.inner.plan(state)


def engine(
    runner: Runner,
    *,
    max_batch_tokens: int = 512,
    max_sequences: int = 64,
    preempt_after_tokens: int | None = None,
    check_invariants: bool = True,
    kv_policy: KVPolicy | None = None,
) -> Engine:
    """An engine that checks its books after every step.

    With `preempt_after_tokens` all sequences are preempted once and recomputed from nothing.
    """
    limits = EngineLimits(max_batch_tokens=max_batch_tokens, max_sequences=max_sequences)
    scheduler: BatchScheduler = Fcfs()
    if preempt_after_tokens is not None:
        scheduler = PreemptAllOnce(scheduler, preempt_after_tokens)
    return Engine(
        runner,
        scheduler,
        limits=limits,
        prefix_cache=preempt_after_tokens is None,
        check_invariants=check_invariants,
        kv_policy=kv_policy,
    )


def generate(engine: Engine, prompts: Sequence[tuple[int, ...]], max_tokens: int) -> Outcome:
    """All prompts at once, greedily, to exactly `max_tokens` tokens each."""
    sampling = Sampling(temperature=0, ignore_eos=True)
    first = engine.steps
    for i, prompt in enumerate(prompts):
        engine.add(TokenRequest(id=f"{first}-{i}", prompt=prompt, sampling=sampling, max_tokens=max_tokens))
    tokens: dict[str, list[int]] = {f"{first}-{i}": [] for i in range(len(prompts))}
    cached = preemptions = 0
    while engine.has_work:
        for output in engine.step():
            tokens[output.id] += [drawn.token for drawn in output.drawn]
            if output.stats is not None:
                assert output.finish == "length"
                cached += output.stats.cached_tokens
                preemptions += output.stats.preemptions
    assert all(len(found) == max_tokens for found in tokens.values())
    return Outcome(list(tokens.values()), cached, preemptions, engine.steps - first)
