"""Answers under a grammar are as right as free ones: 200 extractions and 200 tool calls, three models.

The same case is asked free and constrained, greedy, so the two answers are paired. A grammar may cost what
chance costs and no more: of the cases that only one of the two gets right, too few are the constrained
one's if a fair coin would leave it that few in less than one of a hundred trials (McNemar, exact).
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

import pytest

from extraction_cases import TOOLS, Case, calls, extractions, is_right, object_in
from native_support import HERE
from pentad.application.bench.facts import append_line, commit, machine
from pentad.execution.backend import Completion, Delta, StreamDone, fold
from pentad.execution.engine import Engine
from pentad.execution.loop import EngineLoop
from pentad.execution.native.runner import NativeRunner
from pentad.execution.scheduling import EngineLimits
from pentad.model.backends.choices import open_choices, usage_of
from pentad.model.backends.engine import EngineBackend
from pentad.model.loading import open_model
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.types import OutputFormat, Request, Sampling, ToolChoice

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not HERE, reason="no native kernels are built")]

RESULTS = pathlib.Path(__file__).parent.parent.parent / "benchmarks" / "results" / "constraint-accuracy.jsonl"
MODELS = {"smollm2-135m": "smollm2_path", "qwen-0.5b": "qwen_path", "qwen-1.5b": "qwen_large_path"}
CASES = 200
"""Of each kind."""
AT_ONCE = 32
MAX_TOKENS = 64
NOISE = 0.01
"""How unlikely a fair coin must be to have dealt so badly before a loss counts."""


class Asking:
    """One model, asked with and without its grammars."""

    def __init__(self, path: pathlib.Path) -> None:
        files = open_model(path)
        runner = NativeRunner.load(files.spec, files.weights, num_blocks=2048, threads=2)
        engine = Engine(runner, Sarathi(), limits=EngineLimits(max_sequences=AT_ONCE))
        self.backend = EngineBackend(files, EngineLoop(engine))
        files.close()

    async def all(self, requests: Sequence[Request], *, free: bool) -> list[Completion]:
        """The answers in order, some at a time."""
        room = asyncio.Semaphore(AT_ONCE)

        async def one(request: Request) -> Completion:
            async with room:
                return await self.answer(request, free=free)

        return await asyncio.gather(*(one(request) for request in requests))

    async def answer(self, request: Request, *, free: bool) -> Completion:
        """As EngineBackend.stream answers, but `free` leaves the grammar out."""
        codec = self.backend.codec
        prepared = await asyncio.to_thread(codec.prepare, request)
        if free:
            prepared = dataclasses.replace(prepared, constraints=(None,))
        asked, choices = open_choices(codec, request, prepared)
        deltas: list[Delta] = []
        async with aclosing(cast("Any", self.backend._loop.generate(asked))) as outputs:
            async for output in outputs:
                deltas += choices[output.id].take(output)
        return fold([*deltas, StreamDone(usage=usage_of(prepared, list(choices.values()), 0.0, 0.0))])


@dataclass(frozen=True)
class Pair:
    """What a form got right of the cases, and what free answers got right of them."""

    form: str
    free: tuple[bool, ...]
    bound: tuple[bool, ...]

    @property
    def lost(self) -> int:
        return sum(f and not b for f, b in zip(self.free, self.bound, strict=True))

    @property
    def won(self) -> int:
        return sum(b and not f for f, b in zip(self.free, self.bound, strict=True))

    @property
    def chance(self) -> float:
        """How likely a fair coin deals the constrained answers so few of the cases that differ."""
        differ = self.lost + self.won
        return sum(math.comb(differ, k) for k in range(self.won + 1)) / 2**differ

    def summary(self) -> dict[str, Any]:
        count = len(self.free)
        gain = (self.won - self.lost) / count
        error = math.sqrt(max(self.won + self.lost - (self.won - self.lost) ** 2 / count, 0)) / count
        return {
            "form": self.form,
            "cases": count,
            "free": sum(self.free) / count,
            "bound": sum(self.bound) / count,
            "lost": self.lost,
            "won": self.won,
            "gain": round(gain, 4),
            "gain_95": [round(gain - 1.96 * error, 4), round(gain + 1.96 * error, 4)],
            "chance": round(self.chance, 5),
        }


def request(
    case: Case,
    index: int,
    format: OutputFormat,
    choice: ToolChoice = ToolChoice(),  # noqa: B008 - frozen
) -> Request:
    return Request(
        id=f"{case.call or 'object'}-{index}-{format.kind}-{choice.mode}",
        tool_choice=choice,
        model="m",
        messages=case.messages,
        tools=TOOLS if case.call else (),
        format=format,
        sampling=Sampling(temperature=0, max_tokens=MAX_TOKENS),
    )


def right_object(case: Case, answer: Completion) -> bool:
    return is_right(case, object_in(answer.message.content))


def right_call(case: Case, answer: Completion) -> bool:
    made = answer.message.tool_calls
    if len(made) != 1 or made[0].name != case.call:
        return False
    try:
        return is_right(case, json.loads(made[0].arguments))
    except ValueError:
        return False


async def measured(asking: Asking, count: int) -> list[Pair]:
    """All forms, each beside free answers to the same questions."""

    async def ask(
        cases: Sequence[Case],
        form: Callable[[Case], OutputFormat],
        right: Callable[[Case, Completion], bool],
        *,
        free: bool = False,
        choice: ToolChoice = ToolChoice(),  # noqa: B008 - frozen
    ) -> tuple[bool, ...]:
        requests = [request(case, i, form(case), choice) for i, case in enumerate(cases)]
        answers = await asking.all(requests, free=free)
        found = tuple(right(case, answer) for case, answer in zip(cases, answers, strict=True))
        print(f"{form(cases[0]).kind}, {choice.mode}, free {free}: {sum(found)} of {count}", flush=True)
        return found

    objects, made = extractions(count), calls(count)
    text = OutputFormat()
    free = await ask(objects, lambda case: text, right_object, free=True)
    any_object = await ask(objects, lambda case: OutputFormat(kind="json_object"), right_object)
    schema = await ask(
        objects, lambda case: OutputFormat(kind="json_schema", value=case.schema), right_object
    )
    free_calls = await ask(made, lambda case: text, right_call, free=True)
    bound_calls = await ask(made, lambda case: text, right_call)
    must_call = ToolChoice(mode="required", parallel=False)
    required_calls = await ask(made, lambda case: text, right_call, choice=must_call)
    return [
        Pair("json_object", free, any_object),
        Pair("json_schema", free, schema),
        Pair("tools", free_calls, bound_calls),
        Pair("tools, required", free_calls, required_calls),
    ]


@pytest.mark.parametrize("model", MODELS)
def test_a_grammar_makes_no_model_less_right_than_chance_would(
    model: str, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    asking = Asking(request.getfixturevalue(MODELS[model]))

    async def run() -> list[Pair]:
        try:
            return await measured(asking, CASES)
        finally:
            await asking.backend.close()

    pairs = asyncio.run(run())
    for pair in pairs:
        print(f"\n{model}: {json.dumps(pair.summary())}")
        record_property(f"{model}, {pair.form}", pair.summary())
    if request.config.getoption("--rows-file"):
        found = [pair.summary() for pair in pairs]
        append_line(RESULTS, {"model": model, "found": found, "commit": commit(), "machine": machine()})
    worse = [pair.summary() for pair in pairs if pair.chance < NOISE]
    assert not worse
