"""Short ways to an engine on a ToyRunner, to requests for it, and to everything it answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pentad.errors import PentadError
from pentad.execution.engine import Engine
from pentad.execution.request import SequenceStats, StepOutput, TokenRequest
from pentad.execution.runner import Runner
from pentad.execution.scheduling import BatchScheduler, EngineLimits
from pentad.testing.runners import ToyRunner
from pentad.testing.schedulers import ArbitraryScheduler
from pentad.types import FinishReason, Sampling


@dataclass(slots=True)
class Answer:
    """What came of one sequence."""

    tokens: list[int] = field(default_factory=list)
    finish: FinishReason | None = None
    error: PentadError | None = None
    stats: SequenceStats | None = None

    def take(self, output: StepOutput) -> None:
        """Adds a step's output; asserts that nothing comes after the end."""
        assert self.stats is None, f"{output.id!r} has an output after its end"
        assert output.stats is None or (output.finish is None) != (output.error is None)
        self.tokens += [drawn.token for drawn in output.drawn]
        self.finish, self.error, self.stats = output.finish, output.error, output.stats


def toy_engine(
    scheduler: BatchScheduler | None = None,
    *,
    runner: Runner | None = None,
    max_batch_tokens: int = 64,
    max_sequences: int = 8,
    max_waiting: int = 256,
    **options: Any,
) -> Engine:
    """An engine that checks its books after every step, by default with arbitrary valid plans."""
    return Engine(
        runner or ToyRunner(),
        scheduler or ArbitraryScheduler(0, preempt_probability=0.0),
        limits=EngineLimits(
            max_batch_tokens=max_batch_tokens, max_sequences=max_sequences, max_waiting=max_waiting
        ),
        **{"check_invariants": True, **options},
    )


def token_request(
    id: str,
    prompt: Iterable[int],
    max_tokens: int = 8,
    *,
    sampling: Sampling | None = None,
    **options: Any,
) -> TokenRequest:
    """A greedy request, unless `sampling` says otherwise."""
    return TokenRequest(
        id=id,
        prompt=tuple(prompt),
        max_tokens=max_tokens,
        sampling=sampling or Sampling(temperature=0),
        **options,
    )


def run(engine: Engine, *requests: TokenRequest, most_steps: int = 10_000) -> dict[str, Answer]:
    """Adds the requests one by one, steps until the engine is idle, and returns all answers."""
    for request in requests:
        engine.add(request)
    answers: dict[str, Answer] = {}
    for _ in range(most_steps):
        if not engine.has_work:
            engine.check_integrity()
            return answers
        for output in engine.step():
            answers.setdefault(output.id, Answer()).take(output)
    raise AssertionError(f"the engine still has work after {most_steps} steps: {engine.stats()}")
