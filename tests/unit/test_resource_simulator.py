"""The simulator: real engine and schedulers, virtual time; traces, metrics and their definitions."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import pathlib
from collections.abc import Callable, Sequence

import pytest
from resource_samples import GPU, LLAMA_1B, TINY, measured_device

from pentad.errors import Incompatible, Infeasible, InvalidRequest
from pentad.execution.scheduling import EngineLimits
from pentad.model.kv_policies.accumulated_attention import AccumulatedAttention
from pentad.model.kv_policies.sinks import Sinks
from pentad.resource.cost import StepCost
from pentad.resource.scheduling.fcfs import Fcfs
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.resource.simulator import (
    RequestRecord,
    SimulationOptions,
    SimulationReport,
    TraceItem,
    VirtualClock,
    agent_run,
    poisson,
    read_trace,
    simulate,
    sweep,
)
from pentad.resource.simulator.events import Arrival, Step, request_of
from pentad.resource.simulator.trace import prompt_of
from pentad.resource.simulator.world import World
from pentad.resource.step_shape import StepShape
from pentad.types import Objective

LOAD = poisson(40, rate_per_s=60.0, prompt_tokens=(20, 300), output_tokens=(5, 40), seed=3)
OPTIONS = SimulationOptions(
    limits=EngineLimits(max_batch_tokens=128, max_sequences=8, max_waiting=1000), kv_blocks=400
)


def run(trace: tuple[TraceItem, ...] = LOAD, **changes: object) -> SimulationReport:
    options = dataclasses.replace(OPTIONS, **changes)  # type: ignore[arg-type]
    return simulate(trace, TINY, measured_device(), options=options)


class TestSimulation:
    def test_every_request_generates_exactly_what_the_trace_says(self) -> None:
        report = run()
        assert [len(record.tokens) for record in report.records] == [item.output_tokens for item in LOAD]
        assert report.generated_tokens == sum(item.output_tokens for item in LOAD)
        assert len(report.completed) == len(LOAD)

    def test_the_same_arguments_give_the_same_report(self) -> None:
        first, second = run(), run()
        assert first.to_dict() == second.to_dict()
        assert [r.token_times_s for r in first.records] == [r.token_times_s for r in second.records]

    def test_a_lone_request_takes_the_predicted_time_of_its_steps(self) -> None:
        (record,) = run((TraceItem(id="a", prompt_tokens=200, output_tokens=3),)).records
        cost = StepCost(profile=measured_device(), spec=TINY)
        chunks = cost.seconds(StepShape.prefill(128, rows=0)) + cost.seconds(
            StepShape.prefill(72, cached=128)
        )
        assert record.ttft_s == pytest.approx(chunks)
        gaps = [cost.seconds(StepShape.decode(1, context)) for context in (201, 202)]
        assert record.gaps_s == pytest.approx(gaps)
        assert record.completion_s == pytest.approx(chunks + sum(gaps))

    def test_outputs_do_not_depend_on_scheduler_batching_or_preemption(self) -> None:
        whole = run()
        tight = simulate(
            LOAD, TINY, measured_device(), Fcfs(), options=dataclasses.replace(OPTIONS, kv_blocks=24)
        )
        assert tight.to_dict()["preemptions"] > 0, "the second run must be under pressure to show anything"
        assert [r.tokens for r in whole.records] == [r.tokens for r in tight.records]

    def test_a_kv_policy_bounds_blocks_as_it_does_live(self) -> None:
        load = poisson(12, rate_per_s=60.0, prompt_tokens=(100, 200), output_tokens=(60, 80), seed=5)
        whole, cut = run(load), run(load, kv_policy=Sinks(first=4, last=28))
        assert [r.tokens for r in whole.records] == [r.tokens for r in cut.records]
        assert cut.busy_s < whole.busy_s  # steps that read fewer slots
        with pytest.raises(Incompatible, match="needs attention scores"):
            run(load, kv_policy=AccumulatedAttention())

    def test_arrivals_during_a_step_wait_for_its_end(self) -> None:
        items = tuple(
            TraceItem(id=f"{i}", arrival_s=i * 1e-6, prompt_tokens=64, output_tokens=4) for i in (0, 1)
        )
        first, second = run(items).records
        assert second.arrived_s == 1e-6
        assert second.token_times_s[0] > first.token_times_s[0]

    def test_refused_requests_are_counted_by_their_error_code(self) -> None:
        crowd = tuple(TraceItem(id=f"{i}", prompt_tokens=100, output_tokens=2) for i in range(30))
        limits = EngineLimits(max_batch_tokens=128, max_sequences=2, max_waiting=4)
        data = run(crowd, limits=limits).to_dict()
        assert data["refused"]["overloaded"] > 0
        assert data["completed"] + data["refused"]["overloaded"] == 30
        assert data["attainment"] == data["completed"] / 30

    def test_too_long_requests_are_refused_or_clipped_but_never_in_silence(self) -> None:
        items = (
            TraceItem(id="long", prompt_tokens=5000, output_tokens=100),
            TraceItem(id="short", prompt_tokens=50, output_tokens=5),
        )
        refused = run(items).to_dict()
        assert refused["refused"] == {"context_length_exceeded": 1}
        assert refused["clipped_requests"] == 0
        clipped = run(items, too_long="clip")
        assert clipped.to_dict()["clipped_requests"] == 1
        assert clipped.to_dict()["clipped_tokens"] == 5100 - TINY.context_length
        assert len(clipped.records[0].tokens) == 100

    def test_blocks_default_to_what_the_weights_leave_of_the_memory(self) -> None:
        small = dataclasses.replace(
            GPU, memory=(dataclasses.replace(GPU.memory[0], capacity_bytes=2 * 2**30),)
        )
        with pytest.raises(
            Infeasible, match=r"'gpu' has 1.8 GiB free, model 'llama-3.2-1b' in 16 bits takes"
        ):
            simulate(LOAD, LLAMA_1B, small)
        assert len(simulate(LOAD[:2], LLAMA_1B, GPU).completed) == 2

    def test_shared_prefixes_are_computed_once(self) -> None:
        items = tuple(
            TraceItem(id=f"{i}", arrival_s=float(i), prompt_tokens=180, output_tokens=2, segments=((7, 160),))
            for i in range(3)
        )
        report = run(items)
        assert [record.cached_tokens for record in report.records] == [0, 160, 160]
        assert report.computed_tokens == 180 + 2 * 20 + 3

    def test_thousands_of_tokens_per_engine_are_simulated_without_leaking_blocks(self) -> None:
        load = poisson(300, rate_per_s=50.0, prompt_tokens=(10, 200), output_tokens=(5, 30), seed=5)
        assert len(run(load, kv_blocks=60).completed) == 300  # simulate() checks integrity at its end


class TestAgentRuns:
    def test_a_step_arrives_when_the_one_before_has_finished_and_its_tool_has_answered(self) -> None:
        items = agent_run("run", arrival_s=2.0, steps=3, first_prompt=160, added=64, output=5, pause_s=1.5)
        records = run(items).records
        assert records[0].arrived_s == 2.0
        for before, after in itertools.pairwise(records):
            assert before.finished_s is not None
            assert after.arrived_s == pytest.approx(before.finished_s + 1.5)

    def test_later_steps_find_the_prompt_so_far_in_the_prefix_cache(self) -> None:
        items = agent_run("run", arrival_s=0.0, steps=3, first_prompt=160, added=64, output=5, pause_s=0.1)
        assert [record.cached_tokens for record in run(items).records] == [0, 160, 224]

    def test_different_runs_share_nothing(self) -> None:
        a, b = (
            agent_run(name, arrival_s=0.0, steps=1, first_prompt=160, added=1, output=2, pause_s=0.0)
            for name in "ab"
        )
        assert sum(record.cached_tokens for record in run((*a, *b)).records) == 0

    def test_waiting_for_nobody_or_in_a_circle_is_refused(self) -> None:
        lone = TraceItem(id="x", prompt_tokens=1, output_tokens=1, after="ghost")
        with pytest.raises(InvalidRequest, match="'x' waits for 'ghost', which is not in the trace"):
            run((lone,))
        circle = tuple(
            TraceItem(id=i, prompt_tokens=1, output_tokens=1, after=after) for i, after in ("ab", "ba")
        )
        with pytest.raises(InvalidRequest, match="circle: a -> b"):
            run(circle)

    def test_equal_ids_are_refused(self) -> None:
        twice = TraceItem(id="x", prompt_tokens=1, output_tokens=1)
        with pytest.raises(InvalidRequest, match="same id"):
            run((twice, twice))


class TestEvents:
    def test_events_fire_by_time_then_priority_then_order_of_scheduling(self) -> None:
        clock = VirtualClock()
        world = World((), clock)
        fired: list[tuple[float, str]] = []

        @dataclasses.dataclass
        class Mark:
            name: str
            priority: int

            def fire(self, world: World) -> tuple[()]:
                fired.append((world.clock(), self.name))
                return ()

        for at, name, priority in ((2.0, "late", 0), (1.0, "low", 1), (1.0, "first", 0), (1.0, "second", 0)):
            world.schedule(at, Mark(name, priority))  # type: ignore[arg-type]
        world.run()
        assert fired == [(1.0, "first"), (1.0, "second"), (1.0, "low"), (2.0, "late")]
        assert Arrival.priority < Step.priority, "a request of this instant is in this step"

    def test_virtual_time_never_runs_backwards_within_a_step(self) -> None:
        with pytest.raises(AssertionError, match="cannot pass"):
            VirtualClock().advance(-1.0)

    @pytest.mark.row("ag-preempt", "mechanism", claims=(2,))
    def test_an_urgent_arrival_has_its_first_token_after_the_step_in_progress_and_its_own(self) -> None:
        busy = tuple(TraceItem(id=f"b{i}", prompt_tokens=64, output_tokens=400, priority=5) for i in range(8))
        urgent = TraceItem(id="urgent", arrival_s=0.2, prompt_tokens=100, output_tokens=5, priority=0)
        report = run((*busy, urgent))
        record = report.records[-1]
        steps = sorted({t for r in report.records for t in r.token_times_s})
        in_progress = next(t for t in steps if t > record.arrived_s)
        own = next(t for t in steps if t > in_progress)
        assert record.token_times_s[0] == own
        victims = [r for r in report.records if r.preemptions]
        assert [len(r.tokens) for r in victims] == [400], "the one it displaced finished all the same"
        calm = run(busy)
        assert [r.tokens for r in report.records[:-1]] == [r.tokens for r in calm.records]


class TestMetrics:
    def record(self, *times: float, arrived: float = 1.0) -> RequestRecord:
        item = TraceItem(id="m", prompt_tokens=1, output_tokens=len(times))
        return RequestRecord(item=item, arrived_s=arrived, token_times_s=list(times), finished_s=times[-1])

    def test_instants_mean_what_the_picture_says(self) -> None:
        record = self.record(1.5, 1.7, 2.5)
        assert record.ttft_s == pytest.approx(0.5)
        assert record.gaps_s == pytest.approx([0.2, 0.8])
        assert record.completion_s == pytest.approx(1.5)

    @pytest.mark.parametrize(
        ("objective", "met"),
        [
            (Objective(), True),
            (Objective(ttft_s=0.5), True),
            (Objective(ttft_s=0.4), False),
            (Objective(inter_token_s=0.51), True),
            (Objective(inter_token_s=0.49), False),
            (Objective(deadline_s=1.4), False),
        ],
        ids=str,
    )
    def test_an_objective_is_met_when_every_latency_asked_for_is(
        self, objective: Objective, met: bool
    ) -> None:
        assert self.record(1.5, 1.7, 2.5).meets(objective) is met

    def test_goodput_counts_only_requests_that_met_the_objective(self) -> None:
        report = SimulationReport(
            scheduler="s",
            device="d",
            model="m",
            objective=Objective(ttft_s=0.6),
            records=(self.record(1.5, 2.0), self.record(3.0, 6.0)),
            busy_s=2.5,
            steps=4,
            computed_tokens=6,
        )
        assert report.span_s == 5.0
        assert report.goodput_per_s == pytest.approx(0.2)
        assert report.attainment == 0.5
        assert report.utilisation == 0.5
        assert report.throughput_tokens_per_s == pytest.approx(0.8)
        assert report.ttft.p50 == pytest.approx(1.25)

    def test_the_report_is_plain_data(self) -> None:
        assert json.loads(json.dumps(run().to_dict()))["requests"] == len(LOAD)


AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
MOONCAKE = '{"timestamp": 1500, "input_length": 5, "output_length": 7, "hash_ids": []}'


class TestTraces:
    def test_the_azure_format_is_read_with_arrivals_from_zero(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "azure.csv"
        path.write_text(
            "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
            "2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:50.9951690,396,109\r\n"
        )
        first, second = read_trace(path)
        assert (first.arrival_s, first.prompt_tokens, first.output_tokens) == (0.0, 374, 44)
        assert second.arrival_s == pytest.approx(4.314579, abs=1e-5)
        assert read_trace(path, rate_scale=2.0)[1].arrival_s == pytest.approx(4.314579 / 2, abs=1e-5)
        assert len(read_trace(path, limit=1)) == 1

    @pytest.mark.parametrize("zone", ["+00:00", "Z", ""])
    def test_marks_blank_lines_and_zones_of_published_traces_are_read(
        self, tmp_path: pathlib.Path, zone: str
    ) -> None:
        path = tmp_path / "azure2024.csv"
        rows = (
            f"2024-05-10 00:00:00.009930{zone},2162,5",
            "",
            f"2024-05-10 00:00:01.509930{zone},2399,6",
            "",
        )
        path.write_text(AZURE + "\n".join(rows), encoding="utf-8-sig")
        first, second = read_trace(path)
        assert (second.arrival_s, second.prompt_tokens) == (pytest.approx(1.5), 2399)
        assert first.output_tokens == 5

    @pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
    def test_a_rate_that_no_load_has_is_refused(self, tmp_path: pathlib.Path, scale: float) -> None:
        path = tmp_path / "mooncake.jsonl"
        path.write_text(MOONCAKE)
        for ask in (
            lambda: read_trace(path, rate_scale=scale),
            lambda: poisson(3, rate_per_s=scale, prompt_tokens=(1, 2), output_tokens=(1, 2)),
        ):
            with pytest.raises(InvalidRequest, match="must be above 0"):
                ask()

    def test_mooncake_hash_ids_become_shared_prefixes(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "mooncake.jsonl"
        rows = [
            {"timestamp": 0, "input_length": 1100, "output_length": 5, "hash_ids": [0, 1, 2]},
            {"timestamp": 1500, "input_length": 1060, "output_length": 7, "hash_ids": [0, 1, 9]},
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        first, second = read_trace(path)
        assert second.arrival_s == 1.5
        a, b = prompt_of(first, 500), prompt_of(second, 500)
        assert (len(a), len(b)) == (1100, 1060)
        assert a[:1024] == b[:1024]
        assert a[1024:1060] != b[1024:]

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("x.csv", "a,b\n1,2\n", "lacks the column 'TIMESTAMP'"),
            ("x.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\nnoon,1,2\n", "line 2 of trace 'x.csv'"),
            ("x.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,1\n", "line 2"),
            ("x.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n", "has no requests"),
            ("x.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,0,2\n", "at least 1"),
            ("x.jsonl", '{"timestamp": 0}\n', "line 1 of trace 'x.jsonl'"),
            ("x.jsonl", "[1]\n", "line 1"),
            ("x.jsonl", "{broken\n", "line 1"),
            ("x.csv", f"{AZURE}2023-11-16 18:15:46,1,1\n\n\nnoon,1,2\n", "line 5 of trace"),
            (
                "x.csv",
                f"{AZURE}2023-11-16 18:15:46,1,99999999999\n",
                "line 2 of .* output_tokens is 9+; it must be",
            ),
            ("x.jsonl", f"{MOONCAKE}\n\n[1]\n", "line 3 of trace"),
            ("x.jsonl", MOONCAKE.replace("1500", "NaN"), "line 1 of .*: arrival_s is nan"),
            ("x.jsonl", MOONCAKE.replace("1500", "1e999"), "line 1 of .*: arrival_s is inf"),
            ("x.jsonl", MOONCAKE.replace("7", "Infinity"), "line 1 of trace 'x.jsonl' is malformed"),
            ("x.txt", "hello", "no known format"),
        ],
    )
    def test_a_malformed_trace_is_refused_with_its_place(
        self, tmp_path: pathlib.Path, name: str, text: str, message: str
    ) -> None:
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(InvalidRequest, match=message):
            read_trace(path)

    def test_a_trace_that_is_not_there_or_not_text_is_refused(self, tmp_path: pathlib.Path) -> None:
        with pytest.raises(InvalidRequest, match="No such file"):
            read_trace(tmp_path / "none.csv")
        (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(InvalidRequest, match="not UTF-8"):
            read_trace(tmp_path / "bytes.csv")

    @pytest.mark.parametrize("options", [{"rate_scale": 0.0}, {"limit": 0}], ids=str)
    def test_impossible_options_are_refused(self, tmp_path: pathlib.Path, options: dict[str, float]) -> None:
        with pytest.raises(InvalidRequest, match="set --"):
            read_trace(tmp_path / "x.csv", **options)  # type: ignore[arg-type]

    def test_prompts_are_fixed_by_item_and_seed(self) -> None:
        item = TraceItem(id="a", prompt_tokens=50, output_tokens=1)
        other = dataclasses.replace(item, id="b")
        assert prompt_of(item, 100) == prompt_of(item, 100)
        assert prompt_of(item, 100) != prompt_of(other, 100)
        assert prompt_of(item, 100) != prompt_of(item, 100, seed=1)
        assert request_of(item, 100).max_tokens == 1

    def test_poisson_arrivals_have_the_rate_asked_for(self) -> None:
        items = poisson(2000, rate_per_s=5.0, prompt_tokens=(3, 9), output_tokens=(1, 2))
        assert items[-1].arrival_s == pytest.approx(400, rel=0.1)
        assert {item.prompt_tokens for item in items} == set(range(3, 10))


@pytest.mark.row("par-sarathi", "mechanism")
def test_chunked_prefills_lower_the_p99_token_gap_at_least_threefold_at_equal_load_and_output() -> None:
    load = poisson(60, rate_per_s=6.0, prompt_tokens=(200, 3000), output_tokens=(50, 150), seed=1)
    limits = EngineLimits(max_batch_tokens=4096, max_sequences=32, max_waiting=1000)
    options = SimulationOptions(limits=limits, kv_blocks=8000)
    prefill_first = simulate(load, LLAMA_1B, GPU, Fcfs(), options=options)
    stall_free = simulate(load, LLAMA_1B, GPU, Sarathi(token_budget=256), options=options)
    assert [r.tokens for r in stall_free.records] == [r.tokens for r in prefill_first.records]
    assert prefill_first.inter_token.p99 >= 3 * stall_free.inter_token.p99
    assert stall_free.throughput_tokens_per_s >= 0.95 * prefill_first.throughput_tokens_per_s


class TestSweep:
    def replay(self, allowed_s: float) -> Callable[[Sequence[TraceItem]], SimulationReport]:
        """On a small device, so that a replay takes a moment."""
        return lambda items: simulate(
            items, TINY, measured_device(), options=OPTIONS, objective=Objective(ttft_s=allowed_s)
        )

    def test_goodput_falls_behind_the_rate_beyond_the_knee_and_not_before(self) -> None:
        found = sweep(LOAD, [1.0, 10.0, 100.0, 1000.0], self.replay(0.2))
        assert found.bounded
        assert found.knee_per_s is not None
        for rate, report in found.points:
            assert (report.attainment >= found.share) == (rate <= found.knee_per_s)
        again = sweep(LOAD, [found.knee_per_s], self.replay(0.2))
        assert again.points[0][1].attainment >= found.share

    def test_a_knee_outside_the_rates_is_said_to_be_outside(self) -> None:
        none = sweep(LOAD, [1.0, 2.0], self.replay(1e-9))
        assert (none.knee_per_s, none.bounded) == (None, True)
        above = sweep(LOAD, [1.0, 2.0], self.replay(1e9))
        assert (above.knee_per_s, above.bounded) == (2.0, False)

    def test_the_load_comes_at_the_rate_that_was_asked_for(self) -> None:
        seen: list[float] = []

        def replay(items: Sequence[TraceItem]) -> SimulationReport:
            seen.append((len(items) - 1) / (items[-1].arrival_s - items[0].arrival_s))
            return simulate(items, TINY, measured_device(), options=OPTIONS)

        sweep(LOAD, [2.0, 8.0], replay)
        assert seen == [pytest.approx(2.0), pytest.approx(8.0)]

    def test_a_load_without_a_duration_is_refused(self) -> None:
        with pytest.raises(InvalidRequest, match="all arrive at once"):
            sweep(LOAD[:1], [1.0], self.replay(1.0))
