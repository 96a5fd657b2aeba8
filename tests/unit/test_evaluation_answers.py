"""Answers of benchmarks: equivalence by symbols, letters, nested calls, and programs in the sandbox."""

from __future__ import annotations

import asyncio
import json
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import pytest

from agent_support import harness, run, spec
from evaluation_data import evaluated, write_data
from pentad.agent.evaluation import equivalence
from pentad.agent.evaluation.base import CaseSource
from pentad.agent.evaluation.call_sequence import Nest, carried_out, computed, same_calls
from pentad.agent.evaluation.equivalence import boxed, equivalent
from pentad.agent.evaluation.multiple_choice import letter_in
from pentad.agent.evaluation.program_judge import prints, program_of
from pentad.agent.evaluation.results import CaseResult
from pentad.agent.evaluation.suites.nestful import Nestful
from pentad.choice import Choice
from pentad.errors import InvalidRequest

pytestmark = pytest.mark.thorough

HAND = r"""
1/2|\frac{1}{2}|1
0.5|\frac12|1
\frac{3}{4}|0.75|1
\frac{3}{4}|\dfrac{3}{4}|1
\frac{3}{4}|\frac{6}{8}|1
\frac{3}{4}|\frac{4}{3}|0
12|12.0|1
12|12|1
1000|1,000|1
1,234,567|1234567|1
-7|-7|1
-7|7|0
\sqrt{2}|2^{1/2}|1
\sqrt{8}|2\sqrt{2}|1
\sqrt{12}|2\sqrt{3}|1
\sqrt{12}|3\sqrt{2}|0
\frac{1}{\sqrt{2}}|\frac{\sqrt{2}}{2}|1
\frac{\sqrt{3}}{3}|\frac{1}{\sqrt{3}}|1
\frac{\sqrt{3}}{3}|\frac{\sqrt{3}}{2}|0
\pi|\pi|1
2\pi|2 \pi|1
2\pi|\pi|0
\frac{\pi}{4}|\pi/4|1
\frac{\pi}{4}|\frac{1}{4}\pi|1
\frac{\pi}{4}|0.7|0
x^2+2x+1|(x+1)^2|1
x^2-1|(x-1)(x+1)|1
x^2-1|(x-1)^2|0
2x+3|3+2x|1
2x+3|2x-3|0
a+b|b+a|1
ab|ba|1
\frac{x}{2}|0.5x|1
\frac{x+1}{2}|\frac{x}{2}+\frac{1}{2}|1
\frac{x+1}{2}|\frac{x}{2}+1|0
(1,2)|(1, 2)|1
(1,2)|(2,1)|0
(3,-4)|(3,-4)|1
\left(\frac{1}{2},3\right)|(0.5,3)|1
(1,2,3)|(1,2,3)|1
(1,2,3)|(1,2)|0
\{1,2,3\}|\{3,2,1\}|1
\{1,2\}|\{1,2,3\}|0
\{1,2\}|\{2,1\}|1
[0,1]|[0,1]|1
[0,1]|[0,2]|0
(-\infty,3)|(-\infty, 3)|1
(-\infty,3)|(-\infty,4)|0
[2,\infty)|[2, \infty)|1
2^{10}|1024|1
2^{10}|1000|0
3^4|81|1
\log_2 8|3|1
\ln e|1|1
e^2|e^2|1
e^2|e^3|0
10!|3628800|1
\binom{5}{2}|10|1
\binom{5}{2}|20|0
i|i|1
3+4i|4i+3|1
3+4i|3-4i|0
(1+i)^2|2i|1
-\frac{1}{3}|\frac{-1}{3}|1
-\frac{1}{3}|-1/3|1
-\frac{1}{3}|\frac{1}{3}|0
\sin 30^\circ|\frac{1}{2}|1
\cos\frac{\pi}{3}|\frac{1}{2}|1
\tan\frac{\pi}{4}|1|1
\tan\frac{\pi}{4}|0|0
\frac{2}{\frac{1}{2}}|4|1
1+\sqrt{5}|\sqrt{5}+1|1
\frac{1+\sqrt{5}}{2}|\frac{1}{2}+\frac{\sqrt{5}}{2}|1
\frac{1+\sqrt{5}}{2}|\frac{1-\sqrt{5}}{2}|0
(\sqrt{3}-1)(\sqrt{3}+1)|2|1
\frac{1}{1-x}|-\frac{1}{x-1}|1
\frac{1}{1-x}|\frac{1}{x-1}|0
5\%|5\%|1
90^\circ|90^\circ|1
\$18|18|1
x=5|5|1
5|x=5|1
y=2x+1|y=2x+1|1
y=2x+1|y=2x-1|0
\text{Evelyn}|\text{Evelyn}|1
\text{even}|\text{odd}|0
\begin{pmatrix}1&2\\3&4\end{pmatrix}|\begin{pmatrix}1 & 2\\ 3 & 4\end{pmatrix}|1
\begin{pmatrix}1&2\\3&4\end{pmatrix}|\begin{pmatrix}1&2\\4&3\end{pmatrix}|0
0.333|\frac{1}{3}|0
3.14|\pi|0
17|seventeen|0
6|6 \text{ cm}|1
\frac{11}{2}|5.5|1
\frac{11}{2}|5\frac{1}{2}|1
11\sqrt{2}|\sqrt{242}|1
p-q|-q+p|1
p-q|q-p|0
x^3+3x-6|3x-6+x^3|1
9|3^2|1
1-12i|-12i+1|1
"""
"""Right answer, given answer, and whether a person calls them the same."""


@pytest.mark.row("bench-math-science", "effect", claims=(1,))
def test_symbols_are_compared_as_a_person_does_in_98_of_100_answers() -> None:
    pytest.importorskip("math_verify")
    labelled = [line.rsplit("|", 2) for line in HAND.strip().splitlines()]
    # In this process: a hundred of their own would take minutes.
    agreed = 0
    for gold, answer, same in labelled:
        first, second = equivalence.number(gold), equivalence.number(answer)
        if equivalence.plain(gold) == equivalence.plain(answer):
            found = True
        elif first is not None and second is not None:
            found = first == second
        else:
            found = equivalence.verified(gold, answer)
        agreed += found == (same == "1")
    assert len(labelled) == 100
    assert agreed >= 98


def test_an_answer_is_compared_in_a_process_that_is_killed_when_it_takes_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("math_verify")
    assert asyncio.run(equivalent(r"x^2-1", "(x-1)(x+1)"))
    assert not asyncio.run(equivalent(r"x^2-1", "x^2+1"))
    assert asyncio.run(equivalent("1,000", "1000.0"))
    monkeypatch.setattr(equivalence, "TIMEOUT_S", 0.2)
    begun = time.monotonic()
    assert not asyncio.run(equivalent("x", "9^{9^{9^{9^{9}}}}"))
    assert time.monotonic() - begun < 30
    assert not asyncio.run(equivalent("x", "x" * 10_000))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{1}, no: \boxed{2}", "2"),
        ("#### 7\n", "7"),
        (r"\boxed{open", None),
        ("nothing", None),
    ],
)
def test_the_boxed_answer_is_found(text: str, found: str | None) -> None:
    assert boxed(text) == found


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("I think so. The answer is (C).", "C"),
        ("The answer is **J**", "J"),
        ("Answer: B", "B"),
        (r"\boxed{D}", "D"),
        ("E.", "E"),
        ("A dog runs.", None),
        ("", None),
    ],
)
def test_the_letter_of_an_answer_is_found(text: str, letter: str | None) -> None:
    assert letter_in(text) == letter


@pytest.mark.row("tool-nestful", "mechanism")
def test_gold_sequences_come_to_their_gold_answers(tmp_path: pathlib.Path) -> None:
    source = CaseSource(data=write_data(tmp_path))
    lines = [json.loads(text) for text in (tmp_path / "nestful_data.jsonl").read_text("utf-8").splitlines()]
    for line in lines:
        calls = [
            Nest(name=c["name"], arguments=c["arguments"], label=c["label"])
            for c in json.loads(line["output"])
        ]
        assert carried_out(calls)[-1][1] == pytest.approx(line["gold_answer"])
    assert len(Nestful().cases(source)) == len(lines) == 4


@pytest.mark.row("tool-nestful", "mechanism")
def test_nested_sequences_are_executed_by_the_runtime_and_come_to_their_gold_answers(
    tmp_path: pathlib.Path,
) -> None:
    """Each sequence of the data is a plan of calls fed by calls, carried out by the real tool calls."""
    lines = [
        json.loads(text)
        for text in (write_data(tmp_path / "data") / "nestful_data.jsonl").read_text("utf-8").splitlines()
    ]
    source = CaseSource(data=tmp_path / "data")
    cases = {case.id: case for case in Nestful().cases(source)}

    def planned(line: Mapping[str, Any]) -> str:
        calls = json.loads(line["output"])
        places = {call["label"]: f"${place}" for place, call in enumerate(calls, 1)}
        return json.dumps(
            {
                "plan": [
                    {
                        "tool": call["name"],
                        "arguments": {
                            name: places[value.split(".")[0]] if isinstance(value, str) else value
                            for name, value in call["arguments"].items()
                        },
                        "after": [],
                    }
                    for call in calls
                ]
            }
        )

    async def last_result(line: Mapping[str, Any]) -> float:
        case = cases[line["sample_id"]]
        agent = spec(planner=Choice(name="parallel"), environment=case.environment)
        journal = f"{case.id}.db"
        async with harness(tmp_path, [[planned(line)], ["Done."]], repeat=True, journal=journal) as h:
            state = await h.work(agent, case.goal)
            assert (await Nestful(judged_by="full-match").judge(case, state)).about.startswith("win: yes")
            (made,) = [e for e in state.exchanges if e.calls]
            return float(made.results[len(made.calls) - 1].content)

    for line in lines:
        assert run(last_result(line)) == pytest.approx(line["gold_answer"])


@pytest.mark.row("tool-nestful", "mechanism", claims=(3,))
def test_a_right_result_by_another_way_is_a_win_and_no_full_match(tmp_path: pathlib.Path) -> None:
    first, again = list[CaseResult](), list[CaseResult]()
    (line,) = evaluated(tmp_path, "nestful:judged_by=full-match", "oracle", seen=first)
    assert line.successes == 4
    assert {result.about for result in first} == {"win: yes, full match: yes"}
    (idle,) = evaluated(tmp_path, "nestful", "idle", seen=again)
    assert (idle.successes, {result.about for result in again}) == (0, {"win: no, full match: no"})
    straight = carried_out([Nest(name="add", arguments={"arg_0": 2, "arg_1": 3})])
    turned = carried_out([Nest(name="add", arguments={"arg_0": 3, "arg_1": 2})])
    assert straight[-1][1] == turned[-1][1]
    assert not same_calls(straight, turned)


def test_a_sequence_that_cannot_be_carried_out_is_refused_in_a_line() -> None:
    with pytest.raises(InvalidRequest, match="names no earlier call"):
        carried_out([Nest(name="add", arguments={"arg_0": "$var_9.result$", "arg_1": 1})])
    with pytest.raises(InvalidRequest, match="no function 'launch'"):
        computed("launch", {})
    for arguments in ({"arg_0": 1, "arg_1": 0}, {"arg_0": "x", "arg_1": 1}, {"arg_0": 1}):
        with pytest.raises(InvalidRequest, match="divide"):
            computed("divide", arguments)


@pytest.mark.row("bench-code", "mechanism")
def test_gold_programs_pass_and_empty_ones_fail(tmp_path: pathlib.Path) -> None:
    seen: list[CaseResult] = []
    oracle, idle = evaluated(tmp_path, "programs", "oracle", "idle", seen=seen)
    assert (oracle.successes, oracle.cases, idle.successes) == (4, 4, 0), [r.about for r in seen]
    assert program_of("```python\nprint(1)\n```") == "print(1)\n"


@pytest.mark.row("bench-code", "mechanism", claims=(3,))
def test_a_program_is_held_to_its_time_and_reaches_nothing_of_ours(tmp_path: pathlib.Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("hidden", encoding="utf-8")

    async def scenario() -> None:
        begun = time.monotonic()
        assert not (slow := await prints("while True: pass", "", time_s=0.5)).output
        assert not slow.ended or slow.code != 0
        assert time.monotonic() - begun < 30
        spied = await prints(f"print(open({str(secret)!r}).read())", "", time_s=1)
        assert spied.code != 0
        assert "hidden" not in spied.output
        assert (await prints("print(int(input()) + 1)", "41\n", time_s=1)).output.split() == ["42"]

    asyncio.run(scenario())
