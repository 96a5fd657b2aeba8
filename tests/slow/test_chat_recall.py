"""A chat of twenty turns recalls what was said early, and a short prompt is answered at once."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable

import pytest

from chat_models import real_backend
from evidence.plugin import Measure
from pentad.execution.backend import TextDelta, collect
from pentad.types import Message, Request, Sampling

pytestmark = pytest.mark.slow

FACTS: list[list[tuple[str, str, str]]] = [
    [
        ("My dog is called Biscuit.", "What is my dog called?", "biscuit"),
        ("I live in Lisbon.", "In which city do I live?", "lisbon"),
        ("My favourite colour is teal.", "What is my favourite colour?", "teal"),
        ("I work as a carpenter.", "What is my job?", "carpenter"),
        ("My sister's name is Ingrid.", "What is my sister's name?", "ingrid"),
        ("I was born in 1987.", "In which year was I born?", "1987"),
        ("I am allergic to walnuts.", "What am I allergic to?", "walnut"),
        ("My car is a red Fiat.", "What make is my car?", "fiat"),
        ("I play the cello.", "Which instrument do I play?", "cello"),
        ("My locker number is 4417.", "What is my locker number?", "4417"),
    ],
    [
        ("The project is code-named Heron.", "What is the project's code name?", "heron"),
        ("The deadline is the 14th of March.", "When is the deadline?", "14"),
        ("Our budget is 52 thousand euros.", "How large is our budget?", "52"),
        ("Marta leads the design team.", "Who leads the design team?", "marta"),
        ("The server room is on floor 6.", "On which floor is the server room?", "6"),
        ("We meet every Tuesday.", "On which day do we meet?", "tuesday"),
        ("The client is called Oakline.", "What is the client called?", "oakline"),
        ("The wifi password is plum-tree.", "What is the wifi password?", "plum"),
        ("Our printer is made by Brother.", "Who makes our printer?", "brother"),
        ("The logo shows a lighthouse.", "What does the logo show?", "lighthouse"),
    ],
]


@pytest.mark.row("app-chat", "effect", claims=(2,))
def test_twenty_turns_recall_early_facts_in_nine_of_ten_cases(
    qwen_large_path: pathlib.Path, measured: Measure
) -> None:
    """Ten turns each tell one fact, ten more each ask for one, oldest first."""
    recalled: list[bool] = []
    with real_backend(qwen_large_path, dtype="bfloat16", tokens=4096) as (backend, run):
        for dialogue, facts in enumerate(FACTS):
            history = [
                Message(role="system", content="You are a helpful assistant. Answer in one short sentence.")
            ]
            said = [(fact, None) for fact, _, _ in facts] + [(q, answer) for _, q, answer in facts]
            for turn, (text, answer) in enumerate(said):
                history.append(Message(role="user", content=text))
                request = Request(
                    id=f"{dialogue}-{turn}",
                    model="",
                    messages=tuple(history),
                    sampling=Sampling(temperature=0, max_tokens=24),
                )
                got = run(collect(backend.stream(request)))
                history.append(got.message)
                if answer is not None:
                    recalled.append(answer in got.message.content.lower())
                    print(f"{text} -> {got.message.content!r} ({got.usage.cached_tokens} cached)")
                if turn:
                    assert got.usage.cached_tokens > 0
    share = sum(recalled) / len(recalled)
    print(f"\n{sum(recalled)} of {len(recalled)} facts recalled")
    measured("early facts recalled", share, at_least=0.9)


@pytest.mark.row("app-chat", "effect", claims=(3,))
def test_a_short_prompt_is_answered_within_a_second_at_half_a_billion_parameters(
    qwen_path: pathlib.Path, record_property: Callable[[str, object], None], measured: Measure
) -> None:
    """Time to the first text, median of five cold prompts after one that warms the process up."""
    times_s: list[float] = []
    with real_backend(qwen_path, dtype="bfloat16", tokens=2048) as (backend, run):

        async def first_text(number: int) -> float:
            request = Request(
                id=str(number),
                model="",
                messages=(Message(role="user", content=f"What is {number} plus {number}?"),),
                sampling=Sampling(temperature=0, max_tokens=4),
                cache_salt=str(number),
            )
            started_s = time.monotonic()
            stream = backend.stream(request)
            async for delta in stream:
                if isinstance(delta, TextDelta) and delta.text:
                    break
            elapsed_s = time.monotonic() - started_s
            await stream.aclose()
            return elapsed_s

        run(first_text(0))
        times_s = sorted(run(first_text(number)) for number in range(1, 6))
    record_property("ttft_s", times_s)
    print(f"\nTTFT of a short prompt: {[round(t, 3) for t in times_s]} s")
    measured("median TTFT", times_s[2], at_most=1.0, unit=" s")
