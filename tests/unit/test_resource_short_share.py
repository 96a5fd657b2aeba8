"""Short requests behind a long prompt: the policy on plain data, and its effect on a virtual clock."""

from __future__ import annotations

import dataclasses

import pytest
from resource_samples import measured_device
from test_resource_scheduling import Seq, running, state, work

from pentad.execution.engine import Engine
from pentad.execution.pace import Pace
from pentad.execution.scheduling import EngineLimits, SchedulerInput
from pentad.execution.spec import Rope
from pentad.execution.uniform import uniform_spec
from pentad.registry import load
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.resource.scheduling.short_requests import chunk_tokens
from pentad.resource.simulator import SimulationOptions, TraceItem, simulate
from pentad.testing.engines import run, token_request, toy_engine

PACE = Pace(least_s=0.02, prompt_token_s=0.001)
SMALL = uniform_spec(
    name="small",
    family="llama",
    vocab_size=1000,
    layers=12,
    width=512,
    heads=8,
    kv_heads=2,
    head_dim=64,
    ffn_width=2048,
    context_length=32_768,
    positions=Rope(dim=64),
)


def paced(state: SchedulerInput) -> SchedulerInput:
    return dataclasses.replace(state, pace=PACE)


def document(ended_s: float = 999.9) -> Seq:
    """A long prompt in progress, whose latest chunk took 0.2 s; the tests' present is 1000 s."""
    return running("doc", 19_000, 4_000, arrived_s=1.0, chunk_s=0.2, chunk_ended_s=ended_s)


def test_a_short_prompt_starts_at_once_and_the_long_one_pauses() -> None:
    chat = Seq(id="chat", num_tokens=30, arrived_s=9.0)
    plan = Sarathi().plan(paced(state(running=(document(),), waiting=(chat,), free=2000, tokens=512)))
    assert work(plan) == {"chat": 30}


@pytest.mark.parametrize(("ended_s", "chunk"), [(999.9, 0), (999.81, 0), (999.79, 192), (0.0, 192)])
def test_beside_a_short_answer_the_long_prompt_gets_half_of_the_time(ended_s: float, chunk: int) -> None:
    chat = running("chat", 45, arrived_s=9.0)
    plan = Sarathi().plan(paced(state(running=(document(ended_s), chat), free=2000, tokens=512)))
    assert work(plan).get("doc", 0) == chunk
    assert work(plan)["chat"] == 1


def test_alone_a_long_prompt_is_cut_only_to_what_a_newcomer_can_wait_for() -> None:
    assert work(Sarathi().plan(paced(state(running=(document(),), free=2000, tokens=512)))) == {"doc": 192}
    unmeasured = state(running=(document(),), free=2000, tokens=512)
    assert work(Sarathi().plan(unmeasured)) == {"doc": 512}


def test_who_has_generated_much_is_not_short_any_more() -> None:
    plan = Sarathi().plan(paced(state(running=(document(), running("story", 900)), free=2000, tokens=512)))
    assert work(plan) == {"story": 1, "doc": 192}


def test_a_cached_beginning_makes_a_request_short() -> None:
    step = Seq(id="step", num_tokens=6_000, num_cached=5_900, arrived_s=9.0)
    plan = Sarathi().plan(paced(state(running=(document(),), waiting=(step,), free=2000, tokens=512)))
    assert work(plan) == {"step": 100}


def test_many_short_prompts_take_half_of_a_step_before_the_long_one_and_then_what_it_leaves() -> None:
    chats = tuple(Seq(id=f"c{i}", num_tokens=100, arrived_s=2.0 + i) for i in range(6))
    plan = Sarathi().plan(paced(state(running=(document(0.0),), waiting=chats, free=2000, tokens=512)))
    assert work(plan) == {"c0": 100, "c1": 100, "c2": 56, "doc": 192, "c3": 64}


def test_a_lower_priority_overtakes_nobody() -> None:
    chat = Seq(id="chat", num_tokens=30, arrived_s=9.0, priority=1)
    plan = Sarathi().plan(paced(state(running=(document(),), waiting=(chat,), free=2000, tokens=512)))
    assert work(plan) == {"doc": 192, "chat": 30}
    assert [seq.id for seq, _ in plan.work] == ["doc", "chat"]


def test_a_waiting_long_prompt_loses_neither_its_blocks_nor_its_place_to_short_ones() -> None:
    waiting = (
        Seq(id="doc", num_tokens=1600, arrived_s=1.0),
        Seq(id="chat", num_tokens=30, arrived_s=2.0),
    )
    assert work(Sarathi().plan(paced(state(waiting=waiting, free=50, tokens=512)))) == {}
    assert work(Sarathi().plan(paced(state(waiting=waiting, free=101, tokens=512)))) == {"doc": 192}
    assert set(work(Sarathi().plan(paced(state(waiting=waiting, free=104, tokens=512))))) == {"doc", "chat"}
    assert work(Sarathi().plan(paced(state(waiting=waiting, free=200, tokens=512, sequences=1)))) == {
        "doc": 192
    }


def test_without_a_slowdown_prompts_fill_every_step_in_their_order() -> None:
    chat = Seq(id="chat", num_tokens=30, arrived_s=9.0)
    plan = Sarathi(short_slowdown=None).plan(
        paced(state(running=(document(),), waiting=(chat,), free=2000, tokens=512))
    )
    assert work(plan) == {"doc": 512}


@pytest.mark.parametrize("slowdown", [1.0, 0.0, -3.0, 1001.0, float("nan")])
def test_an_impossible_slowdown_is_refused(slowdown: float) -> None:
    with pytest.raises(ValueError, match="short_slowdown"):
        Sarathi(short_slowdown=slowdown)


def test_a_chunk_is_never_so_small_that_little_is_computed() -> None:
    slow = Pace(least_s=0.01, prompt_token_s=10.0)
    assert chunk_tokens(slow, 512, 3.0) == 64
    assert chunk_tokens(slow, 5, 3.0) == 5


def test_the_pace_follows_the_steps() -> None:
    pace = Pace().after(512, 1.0)
    assert pace.prompt_token_s == pytest.approx(1 / 512)
    pace = pace.after(1, 0.02).after(4, 0.02)
    assert pace.least_s == pytest.approx(0.02)
    for _ in range(12):
        pace = pace.after(100, 0.02 + 0.3)
    assert pace.prompt_token_s == pytest.approx(0.003, rel=0.01)


def test_the_engine_shows_its_pace_to_the_scheduler() -> None:
    seen: list[Pace] = []

    class Watching(Sarathi):
        def plan(self, state: SchedulerInput):  # type: ignore[no-untyped-def]
            seen.append(state.pace)
            return super().plan(state)

    now = [0.0]

    def clock() -> float:
        now[0] += 0.001
        return now[0]

    engine: Engine = toy_engine(Watching(), clock=clock)
    run(engine, token_request("a", range(40), 4))
    assert seen[0] == Pace()
    assert seen[-1].least_s == pytest.approx(0.001)
    assert seen[-1].prompt_token_s > 0


def test_simulated_short_chats_take_thrice_their_time_at_most_and_the_long_prompt_a_tenth_more() -> None:
    def replay(*trace: TraceItem, scheduler: object = None) -> dict[str, float]:
        report = simulate(
            trace,
            SMALL,
            measured_device(),
            scheduler or load("scheduler", "sarathi")(),  # type: ignore[arg-type]
            options=SimulationOptions(limits=EngineLimits(), kv_blocks=2000),
        )
        return {i.id: r.completion_s for i, r in zip(trace, report.records, strict=True)}

    warm = TraceItem(id="warm", prompt_tokens=20, output_tokens=4)
    document = TraceItem(id="doc", arrival_s=2.0, prompt_tokens=19_000, output_tokens=1)
    alone = replay(warm, document)["doc"]
    gap_s = alone / 6
    chats = [
        TraceItem(id=f"chat{i}", arrival_s=2.0 + gap_s * (i + 0.5), prompt_tokens=20, output_tokens=20)
        for i in range(5)
    ]
    quiet = replay(warm, *chats)
    behind = replay(warm, document, *chats)
    before = replay(warm, document, *chats, scheduler=Sarathi(short_slowdown=None))
    slowdowns = [behind[chat.id] / quiet[chat.id] for chat in chats]
    uncut = replay(warm, document, scheduler=Sarathi(short_slowdown=None))["doc"]
    print(f"chats {max(slowdowns):.2f}x, document {behind['doc'] / uncut:.3f}x of {uncut:.1f} s")
    assert max(slowdowns) <= 3
    assert alone <= 1.03 * uncut
    assert behind["doc"] <= 1.1 * uncut
    assert max(before[chat.id] / quiet[chat.id] for chat in chats) > 10
