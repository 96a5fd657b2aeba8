"""WorkerClient over real engines: as an EngineLoop, and through deaths of its workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from typing import Any

import pytest

from pentad.errors import BackendFailed, BadModelFile, Conflict, Overloaded, PentadError, Unavailable
from pentad.execution.batch import RaggedBatch
from pentad.execution.engine import Engine
from pentad.execution.request import EmbeddedSpan, Guide, StepOutput, TokenRequest
from pentad.execution.worker.client import WorkerClient
from pentad.execution.worker.restarts import Restarts
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import token_request, toy_engine
from pentad.testing.runners import ToyRunner, greedy, reference
from pentad.types import Sampling
from worker_support import Host, ThreadWorker

pytestmark = pytest.mark.thorough

PATIENCE_S = 20.0


class Place:
    """Where workers are started, and what becomes of them."""

    def __init__(self, **limits: Any) -> None:
        self.workers: list[ThreadWorker] = []
        self.engines: list[Engine] = []
        self.host = Host()
        self.limits = limits
        self.pace_s = 0.0
        self.failing: list[PentadError] = []
        self.give_up_s = 300.0
        self.hangs_s: list[float] = []
        """How long the next steps take on top of their pace."""

    def start(self) -> ThreadWorker:
        self.workers.append(ThreadWorker(self._engine, self.host, give_up_s=self.give_up_s))
        return self.workers[-1]

    def _engine(self) -> Engine:
        if self.failing:
            raise self.failing.pop()
        engine = toy_engine(Sarathi(), runner=ToyRunner(before_step=self._before), **self.limits)
        self.engines.append(engine)
        return engine

    def _before(self, batch: RaggedBatch) -> None:
        del batch
        time.sleep(self.pace_s + (self.hangs_s.pop() if self.hangs_s else 0.0))


@asynccontextmanager
async def client(place: Place, **options: Any) -> AsyncIterator[WorkerClient]:
    made = WorkerClient(place.start, model="toy", **options)
    try:
        yield made
    finally:
        await made.close(0)


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await scenario()

    asyncio.run(bounded())


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 - other threads make it true
        await asyncio.sleep(0.005)


async def answer(worker: WorkerClient, *requests: TokenRequest) -> dict[str, list[StepOutput]]:
    found: dict[str, list[StepOutput]] = {request.id: [] for request in requests}
    async for output in worker.generate(requests):
        found[output.id].append(output)
    return found


def tokens(outputs: list[StepOutput]) -> list[int]:
    return [one.token for output in outputs for one in output.drawn]


def test_answers_are_those_of_the_model_and_nothing_is_left_behind() -> None:
    async def scenario() -> None:
        place = Place()
        async with client(place) as worker:
            asked = [token_request(f"r{i}", (1, 2, i), 20) for i in range(20)]
            found = await asyncio.gather(*(answer(worker, request) for request in asked))
            for request, one in zip(asked, found, strict=True):
                assert tokens(one[request.id]) == greedy(request.prompt, 20)
                assert one[request.id][-1].finish == "length"
                assert one[request.id][-1].stats is not None
            await until(lambda: not place.engines[0].has_work)
            await until(lambda: worker.stats()["requests_finished_total"] == 20)
            assert worker.stats()["consumers"] == 0
            assert worker.check() is None
        assert place.workers[0].join(5)

    play(scenario)


def test_choices_probabilities_and_scores_of_the_prompt_travel() -> None:
    async def scenario() -> None:
        async with client(Place()) as worker:
            sampling = Sampling(temperature=0.8, logprobs=2, prompt_logprobs=1)
            asked = [
                token_request("c0", range(9), 6, sampling=sampling, seed=3),
                token_request(
                    "c1", range(9), 6, sampling=replace(sampling, prompt_logprobs=None), choice=1, seed=3
                ),
            ]
            found = await answer(worker, *asked)
            for request in asked:
                assert tokens(found[request.id]) == reference(request)
                drawn = [one for output in found[request.id] for one in output.drawn]
                assert all(one.logprob is not None and len(one.alternatives) == 2 for one in drawn)
            assert sum(len(output.prompt) for output in found["c0"]) == 8

    play(scenario)


def test_refusals_of_the_engine_come_before_any_output() -> None:
    async def scenario() -> None:
        async with client(Place(max_waiting=2, max_sequences=1)) as worker:
            with pytest.raises(PentadError, match="prompt token 4000 is unknown"):
                await answer(worker, token_request("a", (4000,)))
            with pytest.raises(PentadError, match="lower n or raise --max-waiting"):
                await answer(worker, *(token_request(f"c{i}", (1,), choice=i) for i in range(3)))
            with pytest.raises(Conflict):
                await answer(worker, token_request("b", (1,)), token_request("b", (1,)))

    play(scenario)


def test_a_stream_that_is_closed_ends_its_sequence_within_two_steps() -> None:
    async def scenario() -> None:
        place = Place()
        place.pace_s = 0.01
        async with client(place) as worker:
            stream = worker.generate([token_request("a", range(4), 240)])
            await anext(stream)
            await stream.aclose()  # type: ignore[attr-defined]
            steps = place.engines[0].steps
            await until(lambda: not place.engines[0].has_work)
            # Two steps, and those that begin while the message is on its way through the threads.
            assert place.engines[0].steps - steps <= 4
            assert worker.stats()["consumers"] == 0

    play(scenario)


class TestDeaths:
    @pytest.mark.parametrize("after", [0, 1, 5])
    def test_an_answer_goes_on_in_the_next_worker_without_a_break(self, after: int) -> None:
        async def scenario() -> None:
            place = Place()
            place.pace_s = 0.01
            sampling = Sampling(temperature=0.9, frequency_penalty=0.5, repetition_penalty=1.2)
            asked = token_request("a", range(5), 40, sampling=sampling, seed=9)
            async with client(place) as worker:
                found: list[StepOutput] = []
                async for output in worker.generate([asked]):
                    found.append(output)
                    if len(found) == after + 1:
                        place.workers[0].kill()
                assert tokens(found) == reference(asked)
                stats = found[-1].stats
                assert stats is not None
                assert (stats.prompt_tokens, stats.completion_tokens) == (5, 40)
                assert stats.first_token_s is not None
                assert stats.scheduled_s is not None
                assert stats.arrived_s <= stats.scheduled_s <= stats.first_token_s <= (stats.finished_s or 0)
                assert [(d.subject, d.chosen) for d in stats.decisions][-1] == ("worker", "resume")
                assert worker.stats()["worker_restarts_total"] == 1
                assert worker.check() is None
            assert len(place.workers) == 2

        play(scenario)

    def test_choices_before_their_first_token_still_share_their_prompt(self) -> None:
        async def scenario() -> None:
            place = Place()
            place.pace_s = 0.05
            async with client(place) as worker:
                asked = [token_request(f"c{i}", range(40), 5, choice=i) for i in range(3)]
                task = asyncio.ensure_future(answer(worker, *asked))
                await until(lambda: place.engines[0].has_work)
                place.workers[0].kill()
                found = await task
                for request in asked:
                    assert tokens(found[request.id]) == reference(request)
                assert place.engines[1].stats()["prefix_hit_tokens_total"] > 0

        play(scenario)

    def test_a_watcher_stands_behind_what_was_generated(self) -> None:
        async def scenario() -> None:
            place = Place()
            place.pace_s = 0.01
            whole = greedy(range(4), 30)
            stop = whole[20]
            first = whole.index(stop)
            async with client(place) as worker:
                asked = token_request("a", range(4), 30, guide=Guide(watcher=bytes([stop])))
                found: list[StepOutput] = []
                async for output in worker.generate([asked]):
                    found.append(output)
                    if len(found) == 2:
                        place.workers[0].kill()
                assert tokens(found) == whole[: first + 1]
                assert found[-1].finish == "stop"
                assert place.host.watchers[-1].seen == whole[: first + 1]

        play(scenario)

    def test_a_request_under_which_two_workers_died_is_given_up(self) -> None:
        async def scenario() -> None:
            place = Place()
            place.pace_s = 0.01
            async with client(place) as worker:
                bystanders: list[asyncio.Task[Any]] = []

                async def deadly() -> None:
                    async for _ in worker.generate([token_request("a", range(4), 240)]):
                        if len(place.workers) == 2 and not bystanders:
                            other = answer(worker, token_request("b", range(3), 9))
                            bystanders.append(asyncio.ensure_future(other))
                            await until(lambda: worker.stats()["consumers"] == 2)
                        place.workers[-1].kill()

                with pytest.raises(BackendFailed, match="was killed by SIGKILL while it served"):
                    await deadly()
                assert tokens((await bystanders[0])["b"]) == greedy(range(3), 9)
                assert len(place.workers) == 3

        play(scenario)

    def test_workers_that_die_in_a_row_are_held_back_and_say_so(self) -> None:
        async def scenario() -> None:
            place = Place()
            async with client(place, restarts=Restarts(first_pause_s=60.0, longest_pause_s=60.0)) as worker:
                place.workers[0].kill()
                await until(lambda: len(place.engines) == 2 and worker.check() is None)
                place.workers[1].kill()
                await until(lambda: worker.check() is not None)
                assert "death 2 in a row: was killed by SIGKILL; it is started again in 60.0 s" in str(
                    worker.check()
                )
                for ask in (worker.refuse_if_full, lambda: worker.call(b"x")):
                    with pytest.raises(Unavailable, match="death 2 in a row") as held:
                        ask()
                    assert 55 < held.value.retry_after_s <= 60
                with pytest.raises(Unavailable):
                    await answer(worker, token_request("a", range(4)))
                assert worker.stats()["worker_up"] == 0
                assert len(place.workers) == 2

        play(scenario)

    def test_a_worker_that_gives_no_sign_of_life_is_ended(self) -> None:
        async def scenario() -> None:
            place = Place()
            place.pace_s = 0.01
            async with client(place, silence_s=0.3) as worker:
                found: list[StepOutput] = []
                async for output in worker.generate([token_request("a", range(4), 60)]):
                    found.append(output)
                    if len(found) == 3:
                        place.workers[0].silent = True
                assert place.workers[0].killed.is_set()
                assert tokens(found) == greedy(range(4), 60)

        play(scenario)

    def test_a_worker_whose_step_hangs_is_ended_although_it_gives_signs_of_life(self) -> None:
        async def scenario() -> None:
            place = Place()
            place.give_up_s = 0.3
            async with client(place) as worker:
                found: list[StepOutput] = []
                async for output in worker.generate([token_request("a", range(4), 60)]):
                    found.append(output)
                    if len(found) == 3:
                        place.hangs_s.append(1.5)
                assert place.workers[0].killed.is_set()
                assert tokens(found) == greedy(range(4), 60)

        play(scenario)

    def test_a_worker_whose_engine_breaks_is_replaced(self) -> None:
        async def scenario() -> None:
            place = Place()
            async with client(place) as worker:
                place.engines[0].step = None  # type: ignore[assignment]
                with pytest.raises(BackendFailed, match="the engine broke with TypeError"):
                    await answer(worker, token_request("a", range(4), 10))
                await until(lambda: len(place.workers) == 2)
                await until(lambda: worker.stats()["worker_up"] == 1)
                assert tokens((await answer(worker, token_request("b", range(4), 10)))["b"]) == greedy(
                    range(4), 10
                )

        play(scenario)

    def test_counters_go_on_over_deaths(self) -> None:
        async def scenario() -> None:
            place = Place()
            async with client(place) as worker:
                await answer(worker, token_request("a", range(4), 10))
                await until(lambda: worker.stats()["generation_tokens_total"] == 10)
                place.workers[0].kill()
                await answer(worker, token_request("b", range(4), 10))
                await until(lambda: worker.stats()["generation_tokens_total"] == 20)
                assert worker.stats()["running"] == 0

        play(scenario)

    def test_while_there_is_no_worker_so_many_requests_wait(self) -> None:
        async def scenario() -> None:
            place = Place()
            async with client(place, max_waiting=2, restarts=Restarts(first_pause_s=1.0)) as worker:
                for number in (1, 2):
                    place.workers[-1].kill()
                    await until(lambda n=number: worker.stats()["worker_restarts_total"] == n)  # type: ignore[misc]
                    if number == 1:
                        await until(lambda: worker.check() is None)
                waiting = [
                    asyncio.ensure_future(answer(worker, token_request(f"r{i}", (i, 1), 5))) for i in range(2)
                ]
                await until(lambda: worker.stats()["consumers"] == 2)
                with pytest.raises(Overloaded, match="2 requests wait for the engine to start again"):
                    await answer(worker, token_request("x", (1,)))
                for i, found in enumerate(await asyncio.gather(*waiting)):
                    assert tokens(found[f"r{i}"]) == greedy((i, 1), 5)

        play(scenario)

    def test_a_model_that_cannot_be_loaded_says_why_and_no_worker_is_left(self) -> None:
        place = Place()
        place.failing = [BadModelFile("the header is torn", hint="pull it again")]
        with pytest.raises(BadModelFile, match="the header is torn; pull it again"):
            WorkerClient(place.start, model="toy")
        assert place.workers[0].killed.is_set()


class TestQuestions:
    def test_are_answered_with_what_was_found_or_its_error(self) -> None:
        async def scenario() -> None:
            async with client(Place()) as worker:
                assert await asyncio.to_thread(worker.call, b"abc") == b"cba"
                with pytest.raises(PentadError, match="no answer to that; ask something else"):
                    await asyncio.to_thread(worker.call, b"error")

        play(scenario)


class TestClosing:
    def test_lets_requests_finish_and_refuses_new_ones(self) -> None:
        async def scenario() -> None:
            place = Place()
            place.pace_s = 0.01
            worker = WorkerClient(place.start, model="toy")
            present = asyncio.ensure_future(answer(worker, token_request("a", range(4), 30)))
            await until(lambda: place.engines[0].has_work)
            closing = asyncio.ensure_future(worker.close(PATIENCE_S))
            await asyncio.sleep(0)
            with pytest.raises(Unavailable):
                await answer(worker, token_request("b", range(4)))
            await closing
            assert tokens((await present)["a"]) == greedy(range(4), 30)
            assert worker.check() == "the engine is closed"
            assert len(place.workers) == 1

        play(scenario)

    def test_cancels_what_is_not_drained_in_time(self) -> None:
        async def scenario() -> None:
            place = Place()
            place.pace_s = 0.01
            worker = WorkerClient(place.start, model="toy")
            present = asyncio.ensure_future(answer(worker, token_request("a", range(4), 240)))
            await until(lambda: place.engines[0].has_work)
            await worker.close(0.1)
            assert (await present)["a"][-1].finish == "cancelled"

        play(scenario)


@pytest.mark.parametrize(
    ("lived", "pauses"),
    [
        ([1] * 10, [0, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]),
        ([1, 1, 100, 1, 1, 100, 100], [0, 0.5, 0, 0.5, 1, 0, 0]),
    ],
)
def test_the_pause_grows_with_deaths_in_a_row_and_a_long_life_ends_the_row(
    lived: list[float], pauses: list[float]
) -> None:
    restarts = Restarts()
    assert [restarts.died(life_s) for life_s in lived] == pauses
    assert restarts.deaths == len(lived)


def test_every_field_of_a_request_travels() -> None:
    from pentad.execution.worker.messages import WIRE, Generate

    span = EmbeddedSpan(start=0, count=1, rows=bytes(32), digest=bytes(16))
    request = token_request(
        "a", (1, 2), generated=(3,), guide=Guide(b"x", b"y"), reference=(4,), embedded=(span,)
    )
    sent = WIRE.decode(WIRE.encode(Generate(7, (request,))))
    for field in fields(TokenRequest):
        assert getattr(sent.requests[0], field.name) == getattr(request, field.name)


def test_what_is_too_large_to_be_sent_is_refused_and_nothing_else() -> None:
    from pentad.errors import TooLarge
    from pentad.execution.worker.messages import Answer, Cancel, Generate, Question, Refused, refusal_of

    error = TooLarge("a frame of 5 bytes", hint="send it in parts")
    refused = refusal_of(Generate(7, (token_request("a", (1,)), token_request("b", (1,)))), error)
    assert isinstance(refused, Refused)
    assert (refused.numbers, refused.fault.kind) == ((7, 8), "TooLarge")
    answer = refusal_of(Question(3, b"x"), error)
    assert isinstance(answer, Answer)
    assert answer.number == 3
    assert answer.fault is not None
    assert refusal_of(Cancel((1,)), error) is None
