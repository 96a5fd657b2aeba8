"""Measuring speculation on real models: workloads, one sequence at a time, and both ways in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pentad.execution.batch import Drawn, SampleRow
from pentad.execution.engine import Engine
from pentad.execution.request import TokenRequest
from pentad.execution.runner import Runner
from pentad.execution.scheduling import EngineLimits
from pentad.execution.speculation.base import Ask, DraftPlan, Rates, Speculator, Verdict
from pentad.execution.speculation.stage import Speculation
from pentad.execution.speculation.tree import TokenTree
from pentad.model.loading import ModelFiles
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.types import Sampling

GREEDY = Sampling(temperature=0)


@dataclass(frozen=True)
class Answer:
    """What one run gave, and the time from its first token to its last."""

    tokens: tuple[int, ...]
    decode_s: float
    steps: int

    @property
    def tokens_per_s(self) -> float:
        return (len(self.tokens) - 1) / self.decode_s

    @property
    def tokens_per_step(self) -> float:
        return (len(self.tokens) - 1) / self.steps


class Borrowed:
    """A runner that outlives the engine or speculator that closes it."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def close(self) -> None:
        pass


def serving(runner: Runner, speculation: Speculation | None = None) -> Engine:
    """An engine for one way of decoding. Several may share a runner in turns: nothing stays cached."""
    return Engine(
        Borrowed(runner),  # type: ignore[arg-type]
        Sarathi(),
        limits=EngineLimits(max_batch_tokens=512, max_sequences=8, max_waiting=100),
        prefix_cache=False,
        speculation=speculation,
    )


def chat(files: ModelFiles, text: str) -> tuple[int, ...]:
    """The text as a user's message in ChatML, which all test models were tuned on."""
    asked = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    return tuple(files.tokenizer.encode(asked, special=True))


def decode(engine: Engine, prompt: Sequence[int], max_tokens: int, **options: Any) -> Answer:
    """One request alone in the engine."""
    engine.add(
        TokenRequest(
            id="r",
            prompt=tuple(prompt),
            sampling=options.pop("sampling", GREEDY),
            max_tokens=max_tokens,
            **options,
        )
    )
    tokens: list[int] = []
    first_s = first_step = 0.0
    while engine.has_work:
        for output in engine.step():
            assert output.error is None
            if not tokens:
                first_s, first_step = time.perf_counter(), engine.steps
            tokens += [drawn.token for drawn in output.drawn]
    return Answer(tuple(tokens), time.perf_counter() - first_s, int(engine.steps - first_step))


@dataclass(frozen=True)
class Comparison:
    """Rounds of a workload, plain and speculating in turns."""

    ratios: list[float]
    plain: list[float]
    """Tokens per second, by round."""
    drafted: list[float]
    tokens_per_step: float
    same: bool
    """Whether every answer was the same both ways."""

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    def __str__(self) -> str:
        return (
            f"plain {statistics.median(self.plain):.1f} tokens/s, with drafts "
            f"{statistics.median(self.drafted):.1f}: {self.ratio:.2f}x "
            f"({min(self.ratios):.2f} to {max(self.ratios):.2f}), {self.tokens_per_step:.2f} tokens/step"
        )


Run = Callable[[Engine], Sequence[Answer]]


def compare(plain: Engine, drafting: Engine, run: Run, rounds: int = 5) -> Comparison:
    """Runs the workload both ways, interleaved, after one round that is not counted."""
    ratios, plain_rates, drafted_rates = [], [], []
    per_step: list[float] = []
    same = True
    for i in range(rounds + 1):
        ours, theirs = run(plain), run(drafting)
        same &= [a.tokens for a in ours] == [a.tokens for a in theirs]
        if not i:
            continue
        tokens = [sum(len(a.tokens) - 1 for a in side) for side in (ours, theirs)]
        seconds = [sum(a.decode_s for a in side) for side in (ours, theirs)]
        rates = [n / s for n, s in zip(tokens, seconds, strict=True)]
        plain_rates.append(rates[0])
        drafted_rates.append(rates[1])
        ratios.append(rates[1] / rates[0])
        per_step.append(tokens[1] / sum(a.steps for a in theirs))
    return Comparison(ratios, plain_rates, drafted_rates, statistics.median(per_step), same)


@dataclass
class Watched:
    """A speculator whose plans and outcomes are written down."""

    inner: Speculator
    expected: list[float] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)
    _gains: dict[str, float] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def options(self, rates: Rates, most_tokens: int) -> Sequence[DraftPlan]:
        return self.inner.options(rates, most_tokens)

    def draft(self, asks: Sequence[Ask]) -> list[TokenTree | None]:
        trees = self.inner.draft(asks)
        assert len(asks) == 1
        if trees[0] is not None:
            self._gains["next"] = asks[0].plan.gain
        return trees

    def verify(self, tree: TokenTree, rows: Sequence[SampleRow], drawn: Sequence[Drawn]) -> Verdict:
        verdict = self.inner.verify(tree, rows, drawn)
        self.expected.append(self._gains["next"])
        self.accepted.append(len(verdict.path))
        self.nodes.append(len(tree))
        return verdict

    def per_step(self, skip: int = 0) -> tuple[float, float]:
        """Mean expected and accepted tokens per verified tree, without the first so many."""
        return statistics.mean(self.expected[skip:]), statistics.mean(self.accepted[skip:])


def totals(stats: Mapping[str, float]) -> Iterator[str]:
    """What an engine tells of its drafts, for a report."""
    for name, value in stats.items():
        if name.startswith("draft"):
            yield f"{name} {value:.4g}"
