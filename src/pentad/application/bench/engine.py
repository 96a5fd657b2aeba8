"""`pentad bench engine`: the real engine, scheduler and runner in this process, without HTTP.

A prefill is one request of random tokens up to its first token. A decode of batch B puts B such
prompts in, waits until all are computed, and times the steps in which all B draw one token.
"""

from __future__ import annotations

import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pentad.application.bench.limits import LimitProbe, Limits, weight_bytes
from pentad.errors import InvalidRequest
from pentad.execution.engine import Engine
from pentad.execution.request import TokenRequest
from pentad.execution.runner import PhasedRunner
from pentad.types import Clock, Sampling

Progress = Callable[[float, float | None], None]
"""Told (done, total) rounds."""

_WARM_STEPS = 2
"""Decode steps left out after the last prefill of a batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLoad:
    """What is measured."""

    prompt_tokens: int = 512
    new_tokens: int = 128
    batches: tuple[int, ...] = (1, 8, 32)
    context_tokens: int | None = None
    """Tokens of each sequence in the cache when decoding is timed; None means `prompt_tokens`."""
    shared_tokens: int = 0
    """Of each sequence's prompt in a decode, those in front that all have in common."""
    rounds: int = 5

    def __post_init__(self) -> None:
        for name in ("prompt_tokens", "new_tokens", "rounds"):
            if getattr(self, name) < 1:
                raise InvalidRequest(f"{name} is {getattr(self, name)}, must be at least 1", param=name)
        if self.context_tokens is not None and self.context_tokens < 1:
            raise InvalidRequest(
                f"context_tokens is {self.context_tokens}, must be at least 1", param="context_tokens"
            )
        if not self.batches or min(self.batches) < 1 or len(set(self.batches)) < len(self.batches):
            raise InvalidRequest(
                f"batch is {','.join(map(str, self.batches))!r}, needs different numbers from 1 up",
                hint="set --batch 1,8,32",
                param="batch",
            )

    @property
    def context(self) -> int:
        return self.context_tokens or self.prompt_tokens

    def slack(self, batch: int, max_batch_tokens: int) -> int:
        """Tokens that the first sequence may draw before the last one's prompt is computed."""
        alone = -(-self.context // max(1, max_batch_tokens - batch))
        return (batch - 1) * alone + _WARM_STEPS + 1

    def tokens(self, batch: int, max_batch_tokens: int) -> int:
        """The longest sequence of a batch."""
        return self.context + self.new_tokens + self.slack(batch, max_batch_tokens)

    def kv_blocks(self, max_batch_tokens: int, block_size: int) -> int:
        """Blocks that hold every batch."""
        per_batch = (b * -(-self.tokens(b, max_batch_tokens) // block_size) for b in self.batches)
        return max(-(-self.prompt_tokens // block_size) + 1, *per_batch) + max(self.batches)


@dataclass(slots=True)
class Measured:
    """What the rounds gave."""

    prefill_s: list[float] = field(default_factory=list)
    """One per round."""
    step_s: dict[int, list[float]] = field(default_factory=dict)
    """By batch: the median decode step of each round."""
    overhead_fraction: dict[int, float] = field(default_factory=dict)
    """By batch: the share of the decode steps that was not the runner's, in the last round."""
    phases: dict[str, dict[str, float]] = field(default_factory=dict)
    """Seconds of one step by phase: of `prefill` and of each batch. Empty where the runner does not tell."""
    limits: Limits | None = None


class EngineBench:
    """Runs the load on an engine that nothing else uses.

    Args:
        engine: idle; its KV cache holds `load.kv_blocks`.
        threads: of the runner, for the limits.
        clock: seconds of real time.
    """

    def __init__(
        self, engine: Engine, load: EngineLoad, *, threads: int = 1, clock: Clock = time.perf_counter
    ) -> None:
        self._engine = engine
        self._load = load
        self._clock = clock
        self._random = np.random.default_rng(0)
        self._requests = 0
        self._shared = self._prompt(min(load.shared_tokens, load.context - 1))
        self._limits = LimitProbe(engine.runner, threads)
        self._check()

    def run(self, tell: Progress | None = None) -> Measured:
        """Every round: the limits, one prefill, then each batch; one more round with phases timed."""
        load, found = self._load, Measured()
        rounds = load.rounds + 2
        self.round(Measured())  # the first pays for memory and caches
        for done in range(load.rounds):
            if tell:
                tell(done + 1, rounds)
            self.round(found)
        if tell:
            tell(rounds - 1, rounds)
        found.phases = self._phases()
        found.limits = self.limits()
        return found

    def limits(self) -> Limits:
        """The machine's limits over the rounds so far."""
        return self._limits.result()

    def round(self, found: Measured) -> None:
        """One round, added to what was found: the limits, one prefill, then each batch."""
        self._limits.measure()
        found.prefill_s.append(self.prefill())
        for batch in self._load.batches:
            steps, overhead = self.decode(batch)
            found.step_s.setdefault(batch, []).append(statistics.median(steps))
            found.overhead_fraction[batch] = overhead

    def _phases(self) -> dict[str, dict[str, float]]:
        runner = self._engine.runner
        if not isinstance(runner, PhasedRunner):
            return {}
        runner.set_timed(True)
        before, phases = runner.phase_seconds(), {}
        self.prefill()
        after = runner.phase_seconds()
        phases["prefill"] = {name: after[name] - before[name] for name in after}
        for batch in self._load.batches:
            phases[str(batch)] = self._step_phases(batch, runner)
        runner.set_timed(False)
        return phases

    def _step_phases(self, batch: int, runner: PhasedRunner) -> dict[str, float]:
        self._start(batch)
        before = runner.phase_seconds()
        for _ in range(self._load.new_tokens):
            self._engine.step()
        after = runner.phase_seconds()
        self._stop()
        return {name: (after[name] - before[name]) / self._load.new_tokens for name in after}

    def prefill(self) -> float:
        """Seconds from a prompt's arrival to its first token."""
        prompt = self._prompt(self._load.prompt_tokens)
        begin = self._clock()
        self._engine.add(self._request(prompt, 1))
        while self._engine.has_work:
            self._engine.step()
        return self._clock() - begin

    def decode(self, batch: int) -> tuple[list[float], float]:
        """Seconds of each step in which `batch` sequences draw one token, and the engine's own share."""
        engine, seconds = self._engine, []
        self._start(batch)
        before = engine.stats()
        for _ in range(self._load.new_tokens):
            begin = self._clock()
            outputs = engine.step()
            seconds.append(self._clock() - begin)
            assert len(outputs) == batch, f"{len(outputs)} tokens in a step of {batch} sequences"
        after = engine.stats()
        self._stop()
        total, own = (after[name] - before[name] for name in ("step_seconds_total", "overhead_seconds_total"))
        overhead = own / total if total else 0.0
        return seconds, overhead

    def _start(self, batch: int) -> None:
        """Brings `batch` sequences to where each step draws one token for all of them."""
        load, limits = self._load, self._engine.limits
        most = load.new_tokens + load.slack(batch, limits.max_batch_tokens)
        ids = set()
        for _ in range(batch):
            request = self._request(self._shared + self._prompt(load.context - len(self._shared)), most)
            ids.add(request.id)
            self._engine.add(request)
        while ids:
            ids -= {output.id for output in self._engine.step()}
        for _ in range(_WARM_STEPS):
            self._engine.step()

    def _stop(self) -> None:
        self._engine.cancel_all()

    def _prompt(self, count: int) -> tuple[int, ...]:
        drawn: list[int] = self._random.integers(0, self._engine.runner.spec.vocab_size, count).tolist()
        return tuple(drawn)

    def _request(self, prompt: Sequence[int], max_tokens: int) -> TokenRequest:
        self._requests += 1
        return TokenRequest(
            id=f"bench-{self._requests}",
            prompt=tuple(prompt),
            max_tokens=max_tokens,
            sampling=Sampling(temperature=0, ignore_eos=True),
        )

    def _check(self) -> None:
        """Raises InvalidRequest for a load that the model's context or the engine's limits do not hold."""
        load, engine = self._load, self._engine
        longest = max(load.tokens(b, engine.limits.max_batch_tokens) for b in load.batches)
        most = engine.runner.spec.context_length
        if max(longest, load.prompt_tokens + 1) > most:
            raise InvalidRequest(
                f"the longest sequence of the benchmark has {max(longest, load.prompt_tokens + 1)} tokens, "
                f"model {engine.runner.spec.name!r} holds {most}",
                hint="lower --prompt-tokens, --context-tokens, --new-tokens or --batch",
                param="prompt_tokens",
            )


def result(
    load: EngineLoad, measured: Measured, engine: Engine, *, kv_element_bytes: float, file: pathlib.Path
) -> dict[str, Any]:
    """The numbers of a run by name, in the fixed form of docs/benchmarks.md.

    Args:
        kv_element_bytes: bytes of one cached number.
        file: the model's file or folder.
    """
    limits, runner = measured.limits, engine.runner
    assert limits is not None, "a finished run has its limits"
    steps = {batch: statistics.median(seconds) for batch, seconds in measured.step_s.items()}
    prefill_s = statistics.median(measured.prefill_s)
    stored = sum(f.stat().st_size for f in ([file] if file.is_file() else file.glob("*.safetensors")))
    context = load.context + _WARM_STEPS + load.new_tokens / 2
    kv_bytes = runner.spec.kv_bytes_per_token(kv_element_bytes) * context
    step_bytes = weight_bytes(runner, stored) + kv_bytes
    fraction = step_bytes / limits.memory_bytes_per_s / steps[1] if 1 in steps else None
    peak = max(limits.operations_per_s.values(), default=0)
    flops = runner.spec.flops(load.prompt_tokens, load.prompt_tokens // 2, 1)
    return {
        "prefill_tokens_per_s": round(load.prompt_tokens / prefill_s, 1),
        "decode_tokens_per_s": {str(b): round(b / seconds, 1) for b, seconds in steps.items()},
        "roofline_fraction": fraction and round(fraction, 4),
        "prefill_peak_fraction": round(flops / prefill_s / peak, 4) if peak else None,
        "step_bytes": int(step_bytes),
        "limits": {
            "memory_bytes_per_s": int(limits.memory_bytes_per_s),
            "operations_per_s": {name: int(rate) for name, rate in limits.operations_per_s.items()},
        },
        "engine_overhead_fraction": {str(b): round(x, 4) for b, x in measured.overhead_fraction.items()},
        "phases_ms": {
            name: {phase: round(seconds * 1e3, 3) for phase, seconds in phases.items()}
            for name, phases in measured.phases.items()
        },
        "rounds": {
            "prefill_tokens_per_s": [round(load.prompt_tokens / s, 1) for s in measured.prefill_s],
            "decode_tokens_per_s": {
                str(b): [round(b / s, 1) for s in seconds] for b, seconds in measured.step_s.items()
            },
        },
    }
