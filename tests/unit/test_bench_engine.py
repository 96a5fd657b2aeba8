"""bench engine on a toy model and a clock that runs by steps: what is counted, and what is refused."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import pytest

from pentad.application.bench.engine import EngineBench, EngineLoad, Measured, result
from pentad.application.bench.limits import Limits
from pentad.errors import InvalidRequest
from pentad.execution.batch import RaggedBatch
from pentad.execution.engine import Engine
from pentad.execution.scheduling import EngineLimits
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.runners import ToyRunner

STEP_S = 0.01
TOKEN_S = 0.001


class Time:
    """Stands still but for what steps take: 10 ms and 1 ms per token."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.batches: list[RaggedBatch] = []

    def __call__(self) -> float:
        return self.now_s

    def step(self, batch: RaggedBatch) -> None:
        self.now_s += STEP_S + TOKEN_S * len(batch.token_ids)
        self.batches.append(batch)


class PhasedToy(ToyRunner):
    """A toy that tells its phases: a quarter and three quarters of ten milliseconds a step."""

    timed = False
    told: Mapping[str, float] = {"first": 0.0, "second": 0.0}

    def set_timed(self, timed: bool) -> None:
        self.timed = timed

    def phase_seconds(self) -> dict[str, float]:
        steps = self.steps if self.timed else 0
        return {"first": steps * STEP_S / 4, "second": steps * STEP_S * 3 / 4}


def bench(load: EngineLoad, time: Time, runner_class: type[ToyRunner] = ToyRunner) -> EngineBench:
    runner = runner_class(num_blocks=load.kv_blocks(64, 4), context_length=256, before_step=time.step)
    limits = EngineLimits(max_batch_tokens=64, max_sequences=8)
    return EngineBench(Engine(runner, Sarathi(), limits=limits, clock=time), load, clock=time)


@pytest.fixture(autouse=True)
def known_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pentad.application.bench.limits.LimitProbe.measure", lambda self: None)
    limits = Limits(memory_bytes_per_s=1e6, operations_per_s={"int8": 1e6})
    monkeypatch.setattr("pentad.application.bench.limits.LimitProbe.result", lambda self: limits)


def test_a_prefill_is_timed_from_the_prompt_to_its_first_token_over_all_chunks() -> None:
    time = Time()
    seconds = bench(EngineLoad(prompt_tokens=100, new_tokens=4, batches=(1,)), time).prefill()
    assert len(time.batches) == 2, "100 tokens take two steps of at most 64"
    assert seconds == pytest.approx(2 * STEP_S + 100 * TOKEN_S)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_only_steps_in_which_every_sequence_draws_are_timed(batch: int) -> None:
    time = Time()
    load = EngineLoad(prompt_tokens=30, new_tokens=5, batches=(batch,))
    steps, overhead = bench(load, time).decode(batch)
    assert steps == pytest.approx([STEP_S + TOKEN_S * batch] * 5)
    assert [len(b.token_ids) for b in time.batches[-5:]] == [batch] * 5
    assert overhead == pytest.approx(0.0), "the clock stands still outside the runner"


def test_decoding_starts_at_the_context_that_was_asked_for() -> None:
    time = Time()
    bench(EngineLoad(prompt_tokens=8, new_tokens=3, batches=(2,), context_tokens=40), time).decode(2)
    assert 40 <= int(time.batches[-3].context_lens.min()) <= 40 + 6


def test_a_shared_beginning_is_computed_once_and_the_rest_for_each() -> None:
    time = Time()
    load = EngineLoad(prompt_tokens=60, new_tokens=2, batches=(4,), shared_tokens=48)
    bench(load, time).decode(4)
    computed = sum(len(b.token_ids) for b in time.batches)
    assert computed < 4 * 60
    apart = Time()
    bench(EngineLoad(prompt_tokens=60, new_tokens=2, batches=(4,)), apart).decode(4)
    assert sum(len(b.token_ids) for b in apart.batches) >= 4 * 60


def test_the_engine_is_idle_between_rounds_so_that_one_does_not_load_the_next() -> None:
    time = Time()
    it = bench(EngineLoad(prompt_tokens=20, new_tokens=2, batches=(1, 4), rounds=2), time)
    it.run()
    assert not it._engine.has_work
    it._engine.check_integrity()


def test_phases_come_from_timed_steps_only_and_timing_ends_with_them() -> None:
    time = Time()
    it = bench(EngineLoad(prompt_tokens=20, new_tokens=4, batches=(2,), rounds=1), time, PhasedToy)
    phases = it.run().phases
    assert phases["2"] == pytest.approx({"first": STEP_S / 4, "second": STEP_S * 3 / 4})
    assert set(phases) == {"prefill", "2"}
    assert not it._engine.runner.timed


def test_the_result_says_what_share_of_the_memory_bandwidth_a_step_of_one_reaches(
    tmp_path: pathlib.Path,
) -> None:
    time = Time()
    load = EngineLoad(prompt_tokens=20, new_tokens=4, batches=(1, 2), rounds=3)
    it = bench(load, time)
    file = tmp_path / "toy.gguf"
    file.write_bytes(bytes(5000))
    found = result(load, it.run(), it._engine, kv_element_bytes=2, file=file)
    assert found["prefill_tokens_per_s"] == pytest.approx(20 / (STEP_S + 20 * TOKEN_S), abs=0.1)
    assert found["decode_tokens_per_s"] == {
        "1": pytest.approx(1 / (STEP_S + TOKEN_S), abs=0.1),
        "2": pytest.approx(2 / (STEP_S + 2 * TOKEN_S), abs=0.1),
    }
    kv = it._engine.runner.spec.kv_bytes_per_token(2) * (20 + 2 + 2)
    assert found["step_bytes"] == 5000 + kv
    assert found["roofline_fraction"] == pytest.approx((5000 + kv) / 1e6 / (STEP_S + TOKEN_S), abs=1e-4)


def test_without_batch_one_there_is_no_roofline_fraction(tmp_path: pathlib.Path) -> None:
    load = EngineLoad(prompt_tokens=8, new_tokens=2, batches=(2,), rounds=1)
    it = bench(load, Time())
    found = result(load, Measured(prefill_s=[1.0], step_s={2: [1.0]}, limits=it.limits()), it._engine,
                   kv_element_bytes=2, file=tmp_path)  # fmt: skip
    assert found["roofline_fraction"] is None


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"prompt_tokens": 0}, "prompt_tokens"),
        ({"new_tokens": 0}, "new_tokens"),
        ({"rounds": 0}, "rounds"),
        ({"context_tokens": -1}, "context_tokens"),
        ({"batches": ()}, "batch"),
        ({"batches": (8, 8)}, "batch"),
        ({"batches": (0,)}, "batch"),
    ],
)
def test_an_impossible_load_names_its_field(options: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        EngineLoad(**options)  # type: ignore[arg-type]
    assert refused.value.param == field


def test_a_load_longer_than_the_context_is_refused_with_both_numbers() -> None:
    with pytest.raises(InvalidRequest, match="holds 256"):
        bench(EngineLoad(prompt_tokens=250, new_tokens=10, batches=(1,)), Time())
