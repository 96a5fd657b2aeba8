"""KV blocks on disk with a real model: what a restart costs a session, and that its tokens stay the same."""

from __future__ import annotations

import pathlib
import time

import pytest
from resource_live import open_runner

from evidence.plugin import Measure
from pentad.execution.engine import Engine
from pentad.execution.kv.store import MappedStore
from pentad.execution.scheduling import EngineLimits
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import Answer, token_request
from pentad.types import Hints, RunContext

pytestmark = pytest.mark.slow

TOOL = RunContext(run_id="r", hints=Hints(next="tool"))
PROMPT = tuple(1000 + 37 * i % 30_000 for i in range(2048))


def ask(model: pathlib.Path, store: pathlib.Path | None, prompt: tuple[int, ...]) -> tuple[float, Answer]:
    """Seconds to the first token of a new engine, and its answer."""
    runner = open_runner(model, num_blocks=400)
    kept = None if store is None else MappedStore(store, runner, most_bytes=2**28, identity="smollm2")
    engine = Engine(runner, Sarathi(), limits=EngineLimits(max_batch_tokens=512), kv_store=kept)
    engine.add(token_request("warm/0", PROMPT[::-1][:40], 4))
    while engine.has_work:
        engine.step()
    answer = Answer()
    engine.add(token_request("q/0", prompt, 24, context=TOOL))
    started_s, first_s = time.perf_counter(), 0.0
    while engine.has_work:
        for output in engine.step():
            first_s = first_s or time.perf_counter() - started_s
            answer.tokens += [one.token for one in output.drawn]
            answer.stats = output.stats or answer.stats
    engine.close()
    return first_s, answer


@pytest.mark.row("phase-kv-mmap", "effect", claims=(1,))
def test_a_session_of_2048_tokens_goes_on_five_times_sooner_behind_a_restart_with_the_same_tokens(
    smollm2_path: pathlib.Path, tmp_path: pathlib.Path, measured: Measure
) -> None:
    _, first = ask(smollm2_path, tmp_path / "kv", PROMPT)
    longer = (*PROMPT, *first.tokens[:4])
    plain_s, plain = ask(smollm2_path, None, longer)
    again_s, again = ask(smollm2_path, tmp_path / "kv", longer)
    assert again.stats is not None
    assert again.tokens == plain.tokens
    print(f"\nfirst token after {again_s * 1e3:.0f} ms, computed anew {plain_s * 1e3:.0f} ms")
    measured("prompt tokens from the file", again.stats.cached_tokens / len(longer), at_least=0.85)
    measured("first token, computed anew over from the file", plain_s / again_s, at_least=5, unit="x")
