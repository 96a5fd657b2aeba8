"""Teams without a lead's model: who is asked what, what decides, and what a lost member costs."""

from __future__ import annotations

import asyncio
import pathlib
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from agent_support import FREE, Harness, call, harness, run
from pentad.agent.coordination.base import coordinator_for
from pentad.agent.loading import load_agent
from pentad.agent.model_events import TextStreamed
from pentad.agent.spec import AgentSpec
from pentad.agent.state import RunState
from pentad.agent.sub_run_events import Coordinated, SubRunStarted
from pentad.choice import Choice
from pentad.errors import InvalidRequest
from pentad.types import Budget, Decision
from team_support import agent, by_task, team

pytestmark = pytest.mark.thorough

Says = Mapping[str, Callable[[str], Any]]
NAMES = ("ann", "bob", "cid", "dee")


def members(*names: str) -> dict[str, AgentSpec]:
    return {name: agent(name) for name in names}


def played(
    path: pathlib.Path, coordinator: str, says: Says, goal: str, **fields: Any
) -> tuple[RunState, list[Coordinated], list[SubRunStarted]]:
    """The end of a run of these members, what the coordinator decided, and what was given out."""

    async def scenario() -> tuple[RunState, list[Coordinated], list[SubRunStarted]]:
        async with harness(path, [by_task(says)], repeat=True) as h:
            lead = team(
                {n: agent(n) for n in says if n != "lead"}, coordinator=Choice.of(coordinator), **fields
            )
            state = await h.work(lead, goal)
            return state, _of(h, state.run_id, Coordinated), _of(h, state.run_id, SubRunStarted)

    played: tuple[RunState, list[Coordinated], list[SubRunStarted]] = run(scenario(), timeout_s=60)
    return played


def _of(h: Harness, run_id: str, kind: type[Any]) -> list[Any]:
    return [
        r.event
        for r in h.records(run_id)
        if isinstance(r.event, kind) and not isinstance(r.event, TextStreamed)
    ]


def decisions(moves: list[Coordinated]) -> list[Decision]:
    return [decision for move in moves for decision in move.decisions]


# Debate


def stubborn(answer: str) -> Callable[[str], str]:
    return lambda task: f"answer: {answer}"


def follower(first: str) -> Callable[[str], str]:
    """Gives its own answer first, then the one that most others gave."""

    def says(task: str) -> str:
        heard = re.findall(r"said:\nanswer: (\w+)", task)
        return f"answer: {max(heard, key=heard.count) if heard else first}"

    return says


@pytest.mark.row("ma-debate", "mechanism")
def test_members_read_each_other_and_revise_until_they_agree(tmp_path: pathlib.Path) -> None:
    says = {"ann": stubborn("12"), "bob": stubborn("12"), "cid": follower("13")}
    state, moves, given = played(tmp_path, "debate:rounds=4,agreement=0.4", says, "what is 3 times 4")
    assert (state.status, state.answer) == ("answered", "answer: 12")
    assert len(given) == 6, "the second round agrees, so there is no third"
    revision = next(e.goal for e in given if e.agent == "cid" and e.step == 2)
    assert "ann said:\nanswer: 12" in revision
    assert "cid said" not in revision
    assert "agree with the others 40% of the time" in revision
    first, last = decisions(moves)
    assert (first.subject, first.constraint) == ("round", "67% agree, 100% would be enough")
    assert dict(first.candidates) == {"12": 2.0, "13": 1.0}
    assert (last.policy, last.subject, last.constraint) == ("debate", "answer", "100% of the votes")
    assert last.at_s > 0


def test_the_vote_decides_where_members_never_agree_and_numbers_compare_by_value(
    tmp_path: pathlib.Path,
) -> None:
    says = {"ann": stubborn("13"), "bob": stubborn("1,200.0"), "cid": stubborn("**1200**")}
    state, moves, given = played(tmp_path, "debate:rounds=3", says, "how many")
    assert (state.status, state.answer, len(given)) == ("answered", "answer: 1,200.0", 9)
    assert dict(decisions(moves)[-1].candidates) == {"13": 1.0, "1200": 2.0}


def test_a_debate_that_runs_out_of_steps_says_what_it_has_and_what_bound_it(tmp_path: pathlib.Path) -> None:
    says = {"ann": stubborn("1"), "bob": stubborn("2")}
    state, moves, _ = played(tmp_path, "debate:rounds=9", says, "how many", max_steps=3)
    assert (state.status, state.answer) == ("answered", "answer: 1")
    assert decisions(moves)[-1].constraint == "max_steps"
    state, moves, _ = played(tmp_path, "debate:rounds=9,max_tasks=4", says, "how many")
    assert (state.status, len(state.children)) == ("answered", 4)
    assert decisions(moves)[-1].constraint == "max_tasks"


def test_the_shown_panel_is_sound_and_debates(tmp_path: pathlib.Path) -> None:
    panel = load_agent(pathlib.Path(__file__).parents[2] / "examples/agents/panel.yaml")
    says = dict.fromkeys(("steps", "catch", "estimate"), stubborn("408"))
    named = {n: replace(m, instructions=f"I am {n}.", planner=FREE) for n, m in panel.agents.items()}

    async def scenario() -> None:
        async with harness(tmp_path, [by_task(says)], repeat=True) as h:
            state = await h.work(replace(panel, agents=named), "What is 17 times 24?")
            assert (state.status, state.answer, len(state.children)) == ("answered", "answer: 408", 3)

    run(scenario())


# Peer verification


def solves(goal: str) -> str:
    """A member who adds, and notices when it is told that it was wrong."""
    a, b, wrong = map(int, re.findall(r"-?\d+", goal.split("\n")[0]))
    return f"answer: {a + b if 'not accepted' in goal else a + b + wrong}"


def judges(goal: str) -> str:
    """A member who adds for itself and compares."""
    a, b, *_ = map(int, re.findall(r"-?\d+", goal.split("\n")[1]))
    said = int(re.findall(r"answer: (-?\d+)", goal)[-1])
    return f"I find {a + b}.\nverdict: {'correct' if said == a + b else 'wrong'}"


@pytest.mark.row("ma-peer-verify", "mechanism")
def test_planted_errors_are_caught_and_good_answers_are_committed(tmp_path: pathlib.Path) -> None:
    """100 answers with 30 planted errors; the judge of this script adds, so it should catch them all."""
    caught = rejected = 0

    async def scenario() -> None:
        nonlocal caught, rejected
        says = {"ann": solves, "bob": judges}
        async with harness(tmp_path, [by_task(says)], repeat=True) as h:
            lead = team(members("ann", "bob"), coordinator=Choice.of("peer-verify:tries=1"))
            for number in range(100):
                wrong = int(number % 10 < 3)
                state = await h.work(lead, f"add {number} and {number + 1}, slip {wrong}")
                refused = state.status == "refused"
                caught += refused and wrong
                rejected += refused and not wrong
                assert refused or state.answer == f"answer: {2 * number + 1}"

    run(scenario(), timeout_s=120)
    assert (caught, rejected) == (30, 0)


def test_a_rejected_result_is_done_again_with_the_reason(tmp_path: pathlib.Path) -> None:
    says = {"ann": solves, "bob": judges}
    state, moves, given = played(tmp_path, "peer-verify", says, "add 2 and 3, slip 1")
    assert (state.status, state.answer) == ("answered", "answer: 5")
    assert [e.agent for e in given] == ["ann", "bob", "ann", "bob"]
    assert "answer: 6" in given[2].goal
    assert "I find 5." in given[2].goal
    assert decisions(moves)[-1].chosen == "approved"


def test_what_nobody_verified_is_not_the_answer(tmp_path: pathlib.Path) -> None:
    says = {"ann": stubborn("6"), "bob": lambda task: "Hard to say, perhaps."}
    state, *_ = played(tmp_path, "peer-verify", says, "add 2 and 3")
    assert (state.status, state.answer) == ("refused", "answer: 6")
    assert state.error == "the result was not verified in 2 of 2 tries (unclear)"


def test_a_judge_that_derives_never_sees_the_result(tmp_path: pathlib.Path) -> None:
    says = {"ann": stubborn("6"), "bob": stubborn("6.0")}
    state, _, given = played(tmp_path, "peer-verify:mode=derive", says, "add 2 and 4")
    assert (state.status, state.answer) == ("answered", "answer: 6")
    assert [e.goal for e in given] == ["add 2 and 4", "add 2 and 4"]


def test_a_team_of_one_has_nobody_to_verify() -> None:
    with pytest.raises(InvalidRequest, match="'peer-verify' needs two members, agent 'lead' has 1"):
        coordinator_for(team(members("ann"), coordinator=Choice(name="peer-verify")))


# Decentralized

PIECES = "Furnish the hall.\n" + "\n".join(f"- place chair {n}" for n in range(1, 21))


def bidder(likes: int) -> Callable[[str], str]:
    """Bids high for every piece whose number leaves `likes` over, and does what it is given."""

    def says(task: str) -> str:
        if "on offer" in task:
            return "\n".join(f"{n}: {0.9 if n % 4 == likes else 0.2}" for n in range(1, 21))
        return f"placed by {likes}"

    return says


@pytest.mark.row("ma-decentralized", "mechanism")
def test_the_best_bid_gets_the_piece(tmp_path: pathlib.Path) -> None:
    says = {name: bidder(n) for n, name in enumerate(NAMES)}
    state, moves, given = played(tmp_path, "decentralized", says, PIECES, max_steps=12)
    assert state.status == "answered"
    lines = state.answer.splitlines()
    assert lines == [f"place chair {n}: placed by {n % 4}" for n in range(1, 21)]
    assert given[4].goal.startswith("Furnish the hall.\nplace chair ")
    first = decisions(moves)[0]
    assert (first.subject, first.chosen, first.constraint) == ("piece", "bob", "place chair 1")
    assert dict(first.candidates) == {"ann": 0.2, "bob": 0.9, "cid": 0.2, "dee": 0.2}


@pytest.mark.row("ma-decentralized", "mechanism")
@pytest.mark.parametrize("lost", NAMES)
def test_any_member_may_be_lost_and_the_pieces_are_done_all_the_same(
    tmp_path: pathlib.Path, lost: str
) -> None:
    """The member is killed in its third task and answers nothing after it; a supervisor's loss ends all."""
    given = 0

    async def scenario() -> None:
        hang, hanging = asyncio.Event(), asyncio.Queue[int]()

        def dying(likes: int) -> Callable[[str], Any]:
            def says(task: str) -> Any:
                nonlocal given
                given += 1
                if given <= 2:
                    return bidder(likes)(task)
                hanging.put_nowait(given)
                return [hang]

            return says

        says = {n: dying(i) if n == lost else bidder(i) for i, n in enumerate(NAMES)}
        async with harness(tmp_path, [by_task(says)], repeat=True) as h:
            lead = team(members(*NAMES), coordinator=Choice(name="decentralized"), max_steps=16)
            run_id = await h.runtime.start(lead, PIECES)
            for _ in range(2):
                await hanging.get()
                (child,) = [
                    c for c in h.runtime.show(run_id).children.values() if c.agent == lost and not c.ended
                ]
                await h.runtime.cancel(child.run_id)
            state = await h.runtime.wait(run_id)
            assert state.status == "answered"
            done = [line for line in state.answer.splitlines() if "placed by" in line]
            assert len(done) >= 19, "95% of the pieces"
            later = [c for c in state.children.values() if c.agent == lost]
            assert sum(c.status == "cancelled" for c in later) == 2, "after two failures nobody asks it"
            assert hanging.empty()

    run(scenario())


def test_a_supervised_run_is_lost_with_its_lead(tmp_path: pathlib.Path) -> None:
    says = {"lead": lambda task: [RuntimeError("the lead's model is gone")], "ann": bidder(0)}

    async def scenario() -> None:
        async with harness(tmp_path, [by_task(says)], repeat=True) as h:
            state = await h.work(team(members("ann")), PIECES)
            assert state.status == "failed"
            assert state.children == {}

    run(scenario())


def test_a_piece_is_handed_over_to_the_peer_that_is_named(tmp_path: pathlib.Path) -> None:
    def passes(task: str) -> str:
        return "1: 1.0" if "on offer" in task else "hand over: cid"

    says = {
        "ann": passes,
        "bob": lambda task: "1: 0.9" if "on offer" in task else "bob did it",
        "cid": lambda task: "1: 0.1" if "on offer" in task else "cid did it",
    }
    state, _, given = played(tmp_path, "decentralized", says, "place a lamp")
    assert (state.status, state.answer) == ("answered", "cid did it")
    assert [e.agent for e in given[3:]] == ["ann", "cid"]
    assert "`hand over: NAME`. Peers: bob, cid." in given[3].goal


def test_a_piece_that_everybody_passes_on_ends_and_is_named(tmp_path: pathlib.Path) -> None:
    says = {n: lambda task: "1: 1" if "on offer" in task else "Hand over: ann" for n in ("ann", "bob")}
    state, *_ = played(tmp_path, "decentralized", says, "place a lamp")
    assert (state.status, state.error) == ("refused", "none of 1 pieces of work was done")
    assert len(state.children) == 4


# A tree of supervisors


def chief(task: str) -> list[Any]:
    """Gives each number of the task to the member, or the group of members, whose part it is."""
    numbers = re.findall(r"leaf (\d+)", task)
    parts = [numbers[n * len(numbers) // 3 : (n + 1) * len(numbers) // 3] for n in range(3)]
    if len(numbers) == 3:
        return [
            call("delegate", f"c{n}", member=f"leaf-{part[0]}", task=f"leaf {part[0]}")
            for n, part in enumerate(parts)
        ]
    return [
        call("delegate", f"c{n}", member=f"group-{n + 1}", task=", ".join(f"leaf {i}" for i in part))
        for n, part in enumerate(parts)
    ]


@pytest.mark.row("ma-bedrock", "mechanism")
@pytest.mark.parametrize(
    ("coordinator", "runs"), [("supervisor:depth=3,span=3", 40), ("supervisor:max_tasks=27", 28)]
)
def test_a_tree_of_supervisors_keeps_every_prompt_small_and_loses_no_leaf(
    tmp_path: pathlib.Path, coordinator: str, runs: int
) -> None:
    """27 leaves, each described at length: the flat lead's prompt names all of them, no tree's does."""
    long = "knows everything about its own part of the house and nothing of any other. " * 15
    leaves = {f"leaf-{n}": agent(f"leaf-{n}", description=long) for n in range(27)}
    flat = "depth" not in coordinator

    def lead(task: str) -> list[Any]:
        numbers = re.findall(r"leaf (\d+)", task)
        return (
            [call("delegate", f"c{n}", member=f"leaf-{n}", task=f"leaf {n}") for n in numbers]
            if flat
            else chief(task)
        )

    says: Says = {name: (lambda task: f"{task} done") for name in leaves} | {"lead": lead}

    async def scenario() -> None:
        async with harness(tmp_path, [_merging(says)], repeat=True, context_length=65_536) as h:
            made = team(leaves, coordinator=Choice.of(coordinator), budget=Budget(tokens=4_000_000))
            state = await h.work(made, ", ".join(f"leaf {n}" for n in range(27)))
            assert state.status == "answered"
            assert sorted(map(int, re.findall(r"leaf (\d+) done", state.answer))) == list(range(27))
            assert len(h.runtime.list()) == runs
            longest = max(map(_words, h.backend.requests))
            assert (longest > 4000) == flat, longest

    run(scenario(), timeout_s=60)


def _words(request: Any) -> int:
    """Words of a prompt, the tools that it shows among them: fewer than its tokens."""
    return len(
        " ".join([*(m.content for m in request.messages), *(t.description for t in request.tools)]).split()
    )


def _merging(says: Says) -> Callable[[Any], Any]:
    """As `by_task`, but a lead answers with all that its team returned."""
    plain = by_task(says)

    def turn(request: Any) -> Any:
        returned = [m.content for m in request.messages if m.role == "tool"]
        return ["; ".join(returned)] if returned else plain(request)

    return turn
