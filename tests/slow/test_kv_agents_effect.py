"""Twenty long-lived agents in the memory of five: each goes on from the store where it was."""

from __future__ import annotations

import pathlib
import statistics
import time

import pytest
from resource_live import open_runner

from evidence.plugin import Measure
from pentad.execution.engine import Engine
from pentad.execution.kv.store import MappedStore
from pentad.execution.scheduling import EngineLimits
from pentad.resource.scheduling.workflow import Workflow
from pentad.testing.engines import token_request
from pentad.types import Hints, RunContext

pytestmark = pytest.mark.slow

AGENTS = 20
IN_MEMORY = 5
CONTEXT = 1024
BLOCKS = IN_MEMORY * (CONTEXT // 16 + 3)


class Agents:
    """An engine that the agents take turns at, two turns each."""

    def __init__(self, model: pathlib.Path, store: pathlib.Path | None) -> None:
        runner = open_runner(model, num_blocks=BLOCKS)
        kept = None if store is None else MappedStore(store, runner, most_bytes=2**30, identity="agents")
        limits = EngineLimits(max_batch_tokens=512, max_sequences=4)
        self.engine = Engine(runner, Workflow(), limits=limits, kv_store=kept)
        self.first_s: list[float] = []
        """Of second turns: seconds to the first token."""
        self.cached: list[int] = []
        self.tokens: list[list[int]] = []

    def live(self) -> None:
        prompts = [
            tuple(100 + (37 * i + 1009 * agent) % 40_000 for i in range(CONTEXT)) for agent in range(AGENTS)
        ]
        answers = [self._turn(agent, 0, prompt)[0] for agent, prompt in enumerate(prompts)]
        for agent, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            tokens, first_s, cached = self._turn(agent, 1, (*prompt, *answer, 7, 8, 9))
            self.first_s.append(first_s)
            self.cached.append(cached)
            self.tokens.append(answer + tokens)
        self.engine.close()

    def _turn(self, agent: int, turn: int, prompt: tuple[int, ...]) -> tuple[list[int], float, int]:
        context = RunContext(run_id=f"agent-{agent}", hints=Hints(next="tool"))
        self.engine.add(token_request(f"{agent}-{turn}/0", prompt, 8, context=context))
        tokens: list[int] = []
        began_s, first_s, cached = time.perf_counter(), 0.0, 0
        while self.engine.has_work:
            for output in self.engine.step():
                first_s = first_s or time.perf_counter() - began_s
                tokens += [drawn.token for drawn in output.drawn]
                cached = cached if output.stats is None else output.stats.cached_tokens
        return tokens, first_s, cached


@pytest.mark.row("ag-kv-persist", "effect", claims=(1,))
def test_twenty_agents_in_memory_for_five_resume_with_the_same_tokens_three_times_sooner(
    smollm2_path: pathlib.Path, tmp_path: pathlib.Path, measured: Measure
) -> None:
    ours, plain = Agents(smollm2_path, tmp_path / "kv"), Agents(smollm2_path, None)
    ours.live()
    plain.live()
    assert ours.tokens == plain.tokens
    assert max(plain.cached) == 0, "without a store nothing of a text is left when its agent comes back"
    medians = [statistics.median(one.first_s) for one in (plain, ours)]
    print(f"\nfirst token after {medians[1] * 1e3:.0f} ms, computed anew {medians[0] * 1e3:.0f} ms")
    measured("prompt tokens supplied, least of all agents", min(ours.cached) / (CONTEXT + 11), at_least=0.85)
    measured("first token, computed anew over resumed", medians[0] / medians[1], at_least=3, unit="x")
