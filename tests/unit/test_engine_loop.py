"""EngineLoop: consumers in event loops, one engine thread, and everything that may go wrong between."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from pentad.errors import BackendFailed, Conflict, InvalidRequest, Overloaded, Unavailable
from pentad.execution.batch import RaggedBatch
from pentad.execution.engine import Engine
from pentad.execution.loop import EngineLoop
from pentad.execution.request import StepOutput, TokenRequest
from pentad.execution.scheduling import SchedulerInput, StepPlan
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import Answer, token_request, toy_engine
from pentad.testing.runners import ToyRunner, greedy

PATIENCE_S = 20.0


class Gate:
    """Lets a runner's steps through one by one, or all of them."""

    def __init__(self) -> None:
        self.permits = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)
        self.opened = False

    def __call__(self, batch: RaggedBatch) -> None:
        if not self.opened:
            self.entered.release()
            assert self.permits.acquire(timeout=PATIENCE_S)

    def open(self) -> None:
        self.opened = True
        for _ in range(100):
            self.permits.release()

    async def step_begun(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=PATIENCE_S)


def engine(before_step: Callable[[RaggedBatch], None] | None = None, **options: object) -> Engine:
    runner = ToyRunner(num_blocks=400, context_length=2000, before_step=before_step)
    return toy_engine(Sarathi(), runner=runner, **options)  # type: ignore[arg-type]


async def collect(loop: EngineLoop, *requests: TokenRequest) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}
    async for output in loop.generate(requests):
        answers.setdefault(output.id, Answer()).take(output)
    return answers


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - the condition is the state of another thread
            await asyncio.sleep(0.001)


def idle(loop: EngineLoop) -> bool:
    stats = loop.stats()
    return not (stats["running"] or stats["waiting"] or stats["kv_blocks_held"] or stats["consumers"])


def play(scenario: Callable[[], AsyncIterator[None]] | Callable[[], object]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await scenario()  # type: ignore[misc]

    asyncio.run(bounded())


def test_many_consumers_each_get_their_own_tokens() -> None:
    async def scenario() -> None:
        loop = EngineLoop(engine())
        prompts = [(1, 2, 3, i) for i in range(40)]
        answers = await asyncio.gather(
            *(collect(loop, token_request(f"r{i}", prompt, 20)) for i, prompt in enumerate(prompts))
        )
        for i, prompt in enumerate(prompts):
            assert answers[i][f"r{i}"].tokens == greedy(prompt, 20)
        await until(lambda: idle(loop))
        assert loop.check() is None
        await loop.close(1)

    play(scenario)


def test_choices_given_together_come_out_of_one_stream() -> None:
    async def scenario() -> None:
        runner = ToyRunner()
        loop = EngineLoop(toy_engine(Sarathi(), runner=runner))
        answers = await collect(loop, *(token_request(f"c{i}", range(21), 5, choice=i) for i in range(3)))
        assert {id: answer.tokens for id, answer in answers.items()} == {
            f"c{i}": greedy(range(21), 5) for i in range(3)
        }
        assert runner.tokens_computed == 21 + 2 + 3 * 4
        await loop.close(1)

    play(scenario)


def test_consumers_in_several_event_loops_are_served() -> None:
    loop = EngineLoop(engine())
    results: dict[int, list[int]] = {}

    def consume(i: int) -> None:
        async def one() -> None:
            results[i] = (await collect(loop, token_request(f"r{i}", (5, i), 30)))[f"r{i}"].tokens

        asyncio.run(one())

    threads = [threading.Thread(target=consume, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert results == {i: greedy((5, i), 30) for i in range(4)}
    asyncio.run(loop.close(1))


def test_closing_the_stream_cancels_within_two_steps() -> None:
    async def scenario() -> None:
        gate = Gate()
        loop = EngineLoop(engine(gate))
        stream = loop.generate([token_request("a", range(8), 500)])
        reading = asyncio.ensure_future(anext(stream))
        for _ in range(3):
            await gate.step_begun()
            gate.permits.release()
        await reading
        await gate.step_begun()  # one step is in progress when the consumer leaves
        steps = loop.engine.steps
        await stream.aclose()  # type: ignore[attr-defined]
        gate.open()
        await until(lambda: idle(loop))
        assert loop.engine.steps <= steps + 2
        assert loop.stats()["requests_cancelled_total"] == 1
        await loop.close(1)

    play(scenario)


def test_a_cancelled_task_cancels_its_sequences() -> None:
    async def scenario() -> None:
        gate = Gate()
        loop = EngineLoop(engine(gate))
        task = asyncio.ensure_future(
            collect(loop, token_request("a", range(8), 500), token_request("b", [1], 500))
        )
        await gate.step_begun()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open()
        await until(lambda: idle(loop))
        assert loop.stats()["requests_cancelled_total"] == 2
        await loop.close(1)

    play(scenario)


def test_a_thousand_dropped_streams_leave_nothing_behind() -> None:
    async def scenario() -> None:
        loop = EngineLoop(engine(max_sequences=16))

        async def drop(i: int) -> None:
            stream = loop.generate([token_request(f"r{i}", (i % 97, 3, 4, 5), 300)])
            for _ in range(i % 4):
                await anext(stream)
            await stream.aclose()  # type: ignore[attr-defined]

        for start in range(0, 1000, 100):
            await asyncio.gather(*(drop(i) for i in range(start, start + 100)))
        await until(lambda: idle(loop))
        loop.engine.check_integrity()
        answer = await collect(loop, token_request("last", range(20), 30))
        assert answer["last"].tokens == greedy(range(20), 30)
        await loop.close(1)

    play(scenario)


def test_what_a_slow_reader_left_is_merged_and_complete() -> None:
    async def scenario() -> None:
        loop = EngineLoop(engine())
        outputs: list[StepOutput] = []
        async for output in loop.generate([token_request("a", range(8), 100)]):
            outputs.append(output)
            if len(outputs) == 1:
                await until(lambda: loop.stats()["requests_finished_total"] == 1)
                await asyncio.sleep(0)
        assert len(outputs) <= 3, "one at a time, unless the machine was too slow even for the first"
        tokens = [drawn.token for output in outputs for drawn in output.drawn]
        assert tokens == greedy(range(8), 100)
        assert outputs[-1].finish == "length"
        await loop.close(1)

    play(scenario)


def test_a_reader_that_does_not_read_is_cut_off_and_others_are_not() -> None:
    async def scenario() -> None:
        loop = EngineLoop(engine(), max_unread_tokens=50)
        slow = loop.generate([token_request("slow", range(8), 1500)])
        await anext(slow)
        await until(lambda: loop.stats()["requests_cancelled_total"] == 1)
        answer = await collect(loop, token_request("fast", range(9), 200))
        assert answer["fast"].tokens == greedy(range(9), 200)
        with pytest.raises(Overloaded, match="more than 50 generated tokens were not read"):
            async for _ in slow:
                pass
        await until(lambda: idle(loop))
        await loop.close(1)

    play(scenario)


def test_a_reader_that_waits_is_not_cut_off_for_a_late_event_loop() -> None:
    async def scenario() -> None:
        loop = EngineLoop(engine(), max_unread_tokens=5)
        stream = loop.generate([token_request("a", range(8), 300)])
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        deadline = time.monotonic() + PATIENCE_S
        while loop.stats()["requests_finished_total"] == 0 and time.monotonic() < deadline:
            time.sleep(0.001)  # noqa: ASYNC251 - the event loop shall be late
        output = await reading
        assert [drawn.token for drawn in output.drawn] == greedy(range(8), 300)
        assert output.finish == "length"
        await loop.close(1)

    play(scenario)


def test_refusals_come_before_any_output() -> None:
    async def scenario() -> None:
        gate = Gate()
        loop = EngineLoop(engine(gate, max_waiting=1, max_sequences=1))
        with pytest.raises(InvalidRequest, match="the prompt is empty"):
            await collect(loop, token_request("a", []))
        first = asyncio.ensure_future(collect(loop, token_request("a", range(4), 5)))
        await gate.step_begun()
        second = asyncio.ensure_future(collect(loop, token_request("b", range(4), 5)))
        third = asyncio.ensure_future(collect(loop, token_request("c", range(4), 5)))  # refused by the engine
        await asyncio.sleep(0)
        gate.permits.release()
        with pytest.raises(Overloaded):
            await third
        with pytest.raises(Overloaded):  # refused at once: the queue is known to be full
            await collect(loop, token_request("d", range(4), 5))
        gate.open()
        assert (await first)["a"].tokens == (await second)["b"].tokens == greedy(range(4), 5)
        await loop.close(1)

    play(scenario)


def test_a_thundering_herd_is_served_up_to_the_bound_and_refused_beyond_it() -> None:
    async def scenario() -> None:
        loop = EngineLoop(engine(max_waiting=32, max_sequences=8))
        results = await asyncio.gather(
            *(collect(loop, token_request(f"r{i}", (i % 97, 2, 3), 6)) for i in range(1000)),
            return_exceptions=True,
        )
        served = 0
        for i, result in enumerate(results):
            if isinstance(result, dict):
                assert result[f"r{i}"].tokens == greedy((i % 97, 2, 3), 6)
                served += 1
            else:
                assert isinstance(result, Overloaded)
                assert 1.0 <= result.retry_after_s <= 60.0
        assert served >= 32
        assert loop.stats()["requests_finished_total"] == served
        assert loop.stats()["requests_refused_total"] == 1000 - served
        await until(lambda: idle(loop))
        await loop.close(1)

    play(scenario)


def test_a_second_request_of_an_id_is_refused_and_does_not_end_the_first() -> None:
    async def scenario() -> None:
        gate = Gate()
        loop = EngineLoop(engine(gate))
        first = asyncio.ensure_future(collect(loop, token_request("a", range(4), 5)))
        await gate.step_begun()
        impostor = loop.generate([token_request("a", range(9), 5)])
        waiting = asyncio.ensure_future(anext(impostor))
        await asyncio.sleep(0)
        another = asyncio.ensure_future(collect(loop, token_request("a", range(9), 5)))
        await asyncio.sleep(0)
        another.cancel()
        gate.open()
        with pytest.raises(Conflict, match="'a' is in use"):
            await waiting
        assert (await first)["a"].tokens == greedy(range(4), 5)
        await loop.close(1)

    play(scenario)


def test_a_failed_step_raises_in_its_consumers_and_the_loop_goes_on() -> None:
    failing = True

    def fail(batch: RaggedBatch) -> None:
        if failing:
            raise RuntimeError("broken device")

    async def scenario() -> None:
        nonlocal failing
        loop = EngineLoop(engine(fail))
        for _ in range(3):
            assert loop.check() is None
            with pytest.raises(BackendFailed, match="RuntimeError"):
                await collect(loop, token_request("a", range(4)), token_request("b", range(5)))
        assert loop.check() == "the model runner failed in each of the latest 3 steps"
        failing = False
        assert (await collect(loop, token_request("a", range(4))))["a"].tokens == greedy(range(4), 8)
        assert loop.check() is None
        await loop.close(1)

    play(scenario)


def test_one_failing_sequence_raises_even_in_a_reader_that_comes_late_and_cancels_its_siblings() -> None:
    class Broken:
        def accept(self, drawn: object) -> bool:
            raise RuntimeError

    async def scenario() -> None:
        loop = EngineLoop(engine())
        stream = loop.generate(
            [token_request("a", range(8), 1500), token_request("b", range(8), 9, watcher=Broken(), choice=1)]
        )
        await anext(stream)
        await until(lambda: idle(loop))
        with pytest.raises(BackendFailed, match="'b'"):
            async for _ in stream:
                pass
        single = loop.generate([token_request("c", range(8), 9, watcher=Broken())])
        with pytest.raises(BackendFailed, match="'c'"):
            await anext(single)
        await loop.close(1)

    play(scenario)


def test_a_broken_engine_tells_everyone_and_takes_no_more() -> None:
    class Broken:
        name = "broken"

        def plan(self, state: SchedulerInput) -> StepPlan:
            raise KeyError("no plan")

    async def scenario() -> None:
        loop = EngineLoop(toy_engine(Broken()))
        results = await asyncio.gather(
            *(collect(loop, token_request(f"r{i}", [1])) for i in range(3)), return_exceptions=True
        )
        assert all(isinstance(result, BackendFailed | Unavailable) for result in results)
        await until(lambda: loop.check() is not None)
        assert loop.check() == "the engine broke with KeyError; restart the server"
        with pytest.raises(Unavailable, match="restart the server"):
            await collect(loop, token_request("x", [1]))
        await loop.close(0)

    play(scenario)


def test_closing_lets_requests_finish_and_refuses_new_ones() -> None:
    async def scenario() -> None:
        gate = Gate()
        loop = EngineLoop(engine(gate))
        present = asyncio.ensure_future(collect(loop, token_request("a", range(4), 30)))
        await gate.step_begun()
        closing = asyncio.ensure_future(loop.close(PATIENCE_S))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable) as refused:
            await collect(loop, token_request("b", range(4)))
        assert refused.value.retry_after_s > 0
        gate.open()
        await closing
        assert (await present)["a"].tokens == greedy(range(4), 30)
        assert loop.check() == "the engine is closed"
        assert loop.engine.runner.closed  # type: ignore[attr-defined]
        with pytest.raises(Unavailable, match="the engine is closed"):
            await collect(loop, token_request("b", range(4)))
        await loop.close(1)  # closing twice is harmless

    play(scenario)


def test_what_is_not_drained_in_time_is_cancelled() -> None:
    async def scenario() -> None:
        gate = Gate()
        loop = EngineLoop(engine(gate))
        present = asyncio.ensure_future(collect(loop, token_request("a", range(4), 1000)))
        await gate.step_begun()
        closing = asyncio.ensure_future(loop.close(0))
        await until(lambda: loop.thread.stopping)
        gate.permits.release()
        await closing
        answer = (await present)["a"]
        assert answer.finish == "cancelled"
        assert len(answer.tokens) <= 2
        assert answer.tokens == greedy(range(4), len(answer.tokens))

    play(scenario)


def test_an_idle_loop_sleeps_and_is_healthy_however_long() -> None:
    now = 0.0

    async def scenario() -> None:
        nonlocal now
        idle_engine = engine(clock=lambda: now)
        stepped: list[None] = []
        step = idle_engine.step
        idle_engine.step = lambda: (stepped.append(None), step())[1]  # type: ignore[method-assign]
        loop = EngineLoop(idle_engine)
        now = 1000.0
        await asyncio.sleep(0.02)
        assert stepped == []
        assert loop.check() is None
        await collect(loop, token_request("a", range(4), 2))
        assert len(stepped) == 2
        await loop.close(1)

    play(scenario)


def test_a_hanging_step_is_noticed() -> None:
    now = 0.0

    async def scenario() -> None:
        nonlocal now
        gate = Gate()
        loop = EngineLoop(engine(gate, clock=lambda: now), stall_s=30.0)
        now = 500.0
        present = asyncio.ensure_future(collect(loop, token_request("a", range(4), 5)))
        await gate.step_begun()
        assert loop.check() is None  # the wait before the request does not count
        now += 29.0
        assert loop.check() is None
        now += 3.0
        assert loop.check() == "no step was completed for 32 s although requests wait"
        gate.open()
        await present
        assert loop.check() is None
        await loop.close(1)

    play(scenario)


def test_a_scheduler_that_finds_nothing_to_run_is_asked_again_without_haste() -> None:
    class Reluctant:
        name = "reluctant"

        def __init__(self) -> None:
            self.asked = 0
            self.willing = False

        def plan(self, state: SchedulerInput) -> StepPlan:
            self.asked += 1
            return Sarathi().plan(state) if self.willing else StepPlan()

    async def scenario() -> None:
        scheduler = Reluctant()
        loop = EngineLoop(toy_engine(scheduler))
        answer = asyncio.ensure_future(collect(loop, token_request("a", range(4), 5)))
        await asyncio.sleep(0.1)
        assert 1 <= scheduler.asked <= 40  # 5 ms apart at least; a spinning thread asks thousands of times
        scheduler.willing = True
        assert (await answer)["a"].tokens == greedy(range(4), 5)
        await loop.close(1)

    play(scenario)


def test_one_step_crosses_to_the_event_loop_in_one_call() -> None:
    async def scenario() -> None:
        gate = Gate()
        loop = EngineLoop(engine(gate))
        event_loop = asyncio.get_running_loop()
        calls: list[int] = []
        original = event_loop.call_soon_threadsafe

        def counting(callback: Callable[..., object], *args: Sequence[object], **others: object) -> object:
            if threading.current_thread().name == "pentad-engine":
                calls.append(len(args[0]))
            return original(callback, *args, **others)  # type: ignore[arg-type]

        event_loop.call_soon_threadsafe = counting  # type: ignore[assignment, method-assign]
        warm = asyncio.ensure_future(collect(loop, token_request("warm", [1], 1)))
        await gate.step_begun()
        tasks = [asyncio.ensure_future(collect(loop, token_request(f"r{i}", (1, i), 4))) for i in range(8)]
        await asyncio.sleep(0)
        gate.open()
        await asyncio.gather(warm, *tasks)
        assert calls == [1, 8, 8, 8, 8]
        await loop.close(1)

    play(scenario)


def test_consumers_of_a_closed_event_loop_are_dropped() -> None:
    gate = Gate()
    loop = EngineLoop(engine(gate))
    event_loop = asyncio.new_event_loop()
    stream = loop.generate([token_request("a", range(4), 500)])

    async def begin() -> None:
        waiting = asyncio.ensure_future(anext(stream))
        await gate.step_begun()
        waiting.cancel()

    event_loop.run_until_complete(begin())
    event_loop.close()
    gate.open()

    async def check() -> None:
        await until(lambda: idle(loop))
        assert (await collect(loop, token_request("b", range(4), 5)))["b"].tokens == greedy(range(4), 5)
        await loop.close(1)

    asyncio.run(check())
