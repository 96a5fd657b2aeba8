"""Teams that share out work: by load, from a queue, along a graph, along a chain of cards that fit."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from pentad.agent.coordination.base import Concludes, GivesUp, coordinator_for
from pentad.agent.coordination.board import Piece, allot, pieces_of, worded
from pentad.agent.spec import AgentSpec
from pentad.choice import Choice
from pentad.errors import InvalidRequest
from team_support import agent, rehearsed, team

EIGHT = tuple(f"m{n}" for n in range(8))
Says = Mapping[str, Callable[[str], str | None]]


def lead(name: str, members: Mapping[str, str], options: Mapping[str, Any] | None = None) -> AgentSpec:
    made = {n: agent(n, description=card) for n, card in members.items()}
    return team(made, coordinator=Choice(name=name, options=options or {}), max_steps=200)


# The board


def test_a_goals_list_is_its_pieces_and_what_stands_before_is_said_with_each() -> None:
    goal = "Furnish the hall.\nIn oak.\n1. a lamp\n2) a chair\n* a table"
    assert pieces_of(goal) == ("a lamp", "a chair", "a table")
    assert worded(goal, "a chair") == "Furnish the hall.\nIn oak.\na chair"
    assert pieces_of("just this") == ("just this",)


def test_the_best_scores_are_given_first_and_nobody_more_than_allowed() -> None:
    pieces = [Piece(number=n, task=str(n)) for n in range(3)]
    scores = {"a": {0: 0.9, 1: 0.8, 2: 0.1}, "b": {0: 0.5, 1: 0.7}}
    assert [(g.member, g.about) for g in allot(pieces, scores, 1)] == [("a", 0), ("b", 1)]
    assert [(g.member, g.about) for g in allot(pieces, scores, 2)] == [("a", 0), ("a", 1)]
    assert allot(pieces, {}, 1) == ()


# Balance


@pytest.mark.row("ma-balance", "mechanism")
def test_skewed_work_is_spread_where_round_robin_overloads() -> None:
    """240 pieces, every eighth some 25 times the others: in turn they all fall to one of eight."""
    dice = random.Random(7)
    sizes = [dice.randint(200, 300) if n % 8 == 0 else dice.randint(8, 12) for n in range(240)]
    goal = "\n".join(f"- piece {n}" for n in range(240))
    says: Says = dict.fromkeys(EIGHT, lambda task: "done")
    made = lead("balance", dict.fromkeys(EIGHT, ""), {"max_tasks": 250})
    move, _ = rehearsed(made, goal, says, tokens=lambda task: sizes[int(task.split()[1])])
    assert isinstance(move, Concludes)
    assert move.answer.count("done") == 240
    load = dict(move.decisions[-1].candidates)
    ours = max(v or 0 for v in load.values()) / (sum(v or 0 for v in load.values()) / 8)
    turn = [sum(sizes[n] for n in range(240) if n % 8 == m) for m in range(8)]
    print(f"max/mean {ours:.2f}, in turn {max(turn) / (sum(turn) / 8):.2f}")
    assert ours <= 1.3
    assert max(turn) / (sum(turn) / 8) >= 2


def test_a_piece_goes_to_who_fits_it_while_loads_are_equal() -> None:
    made = lead("balance", {"ann": "knows chairs", "bob": "knows lamps"})
    says: Says = {"ann": lambda t: "ann did", "bob": lambda t: "bob did"}
    move, _ = rehearsed(made, "- buy lamps\n- buy chairs", says)
    assert move.answer == "buy lamps: bob did\nbuy chairs: ann did"


def test_a_piece_that_one_fails_at_goes_to_another() -> None:
    made = lead("balance", {"ann": "knows lamps", "bob": ""})
    move, seen = rehearsed(made, "buy lamps", {"ann": lambda t: None, "bob": lambda t: "bought"})
    assert (move.answer, [r.member for r in seen.reports]) == ("bought", ["ann", "bob"])
    move, _ = rehearsed(made, "buy lamps", dict.fromkeys(("ann", "bob"), lambda t: None))
    assert isinstance(move, GivesUp)


# BabyAGI


def roles(depth: int) -> Says:
    """Executes; derives two parts of every task until `depth`, one of them twice; orders backwards."""

    def creates(task: str) -> str:
        done = task.split("Just done: ")[1].split("\n")[0].removeprefix("Do this part now: ")
        name = done.split()[-1] if "part" in done else "x"
        if len(name) > depth:
            return "none"
        return "\n".join(f"- do part {name}{n}" for n in "ab") + f"\n- do that part {name}a"

    def orders(task: str) -> str:
        return "\n".join(reversed([line for line in task.splitlines() if line.startswith("- ")]))

    return {"exe": lambda task: f"did {task.splitlines()[-1]}", "new": creates, "order": orders}


@pytest.mark.row("ma-babyagi", "mechanism")
def test_the_queue_drains_and_duplicates_are_not_queued() -> None:
    drained = duplicates = tasks = 0
    for goal in range(10):
        made = lead("babyagi", {"exe": "", "new": "", "order": ""}, {"same": 0.7})
        move, seen = rehearsed(made, f"objective {goal}", roles(2))
        queue, known = coordinator_for(made).queue(seen)  # type: ignore[attr-defined]
        drained += queue == [] and isinstance(move, Concludes)
        tasks += len(known)
        duplicates += len(known) - len(set(known))
        assert sum(r.purpose == "execute" for r in seen.reports) == len(known)
        assert not any("that" in task for task in known)
    assert drained == 10
    assert duplicates == 0
    assert tasks == 10 * (1 + 2 + 4)


def test_tasks_are_done_in_the_order_that_the_third_role_gives_and_results_are_recalled() -> None:
    made = lead("babyagi", {"exe": "", "new": "", "order": ""})
    says = dict(roles(0)) | {
        "new": lambda t: "- buy lamps\n- sell chairs" if "Just done: furnish" in t else "none"
    }
    move, seen = rehearsed(made, "furnish", says)
    done = [r for r in seen.reports if r.purpose == "execute"]
    assert [r.task.split("\n")[2] for r in done[1:]] == [
        "Do this part now: sell chairs",
        "Do this part now: buy lamps",
    ]
    assert "What is known:\ndid furnish" in done[1].task
    assert move.answer.startswith("furnish: did furnish\n")


# Graphs


def test_a_loop_is_stopped_within_three_cycles() -> None:
    made = lead("agent-graph", {"a": "", "b": ""}, {"edges": {"a": ["b"], "b": ["a"]}})
    move, seen = rehearsed(made, "go", {"a": lambda t: "same", "b": lambda t: "same"})
    assert isinstance(move, Concludes)
    assert [d.subject for d in move.decisions] == ["loop", "answer"]
    assert 4 <= len(seen.reports) <= 6, "three cycles of two"


@pytest.mark.row("ma-talebirad", "mechanism")
@pytest.mark.parametrize(
    ("members", "edges", "order"),
    [
        (("auto",), {"auto": ["auto"]}, "auto auto auto"),
        (
            ("exe", "new", "order"),
            {"exe": ["new"], "new": ["order"], "order": ["exe"]},
            "exe new order exe new order exe",
        ),
        (("retrieve", "write"), {"retrieve": ["write"]}, "retrieve write"),
    ],
    ids=["autogpt", "babyagi", "gorilla"],
)
def test_the_case_studies_are_graphs(members: tuple[str, ...], edges: Any, order: str) -> None:
    """AutoGPT and BabyAGI end by a node that says so; Gorilla where no edge leads on."""
    turns = 0

    def node(task: str) -> str:
        nonlocal turns
        turns += 1
        return f"result {turns}" + ("\nhalt: all" if turns == len(order.split()) else "")

    made = lead("agent-graph", dict.fromkeys(members, ""), {"edges": edges})
    move, seen = rehearsed(made, "go", dict.fromkeys(members, node))
    assert " ".join(r.member for r in seen.reports) == order
    assert move.answer == f"result {len(order.split())}"


def test_nodes_create_others_up_to_the_limit_and_may_halt_them() -> None:
    said = {
        "boss": lambda t: (
            "create: scout: You look around.\nask: scout: look" if t == "go" else "halt: all\nseen"
        ),
        "scout": lambda t: "create: spare: You wait.\nask: spare: wait\nask: boss: I saw it",
        "spare": lambda t: "never",
    }
    made = lead("agent-graph", {"boss": ""}, {"max_created": 1})
    move, seen = rehearsed(made, "go", said)
    assert [r.member for r in seen.reports] == ["boss", "scout", "boss"]
    assert (seen.members["scout"].instructions, "spare" in seen.members) == ("You look around.", False)
    assert move.answer == "seen"
    made = lead("agent-graph", {"boss": "", "scout": ""})
    _, seen = rehearsed(
        made, "go", {"boss": lambda t: "halt: scout\nask: scout: look", "scout": lambda t: "x"}
    )
    assert [r.member for r in seen.reports] == ["boss"]


# Compatible

CHAIN = {
    "reader": "takes: scan; gives: text",
    "clerk": "takes: Text; gives: table",
    "drawer": "takes: table; gives: chart",
    "poet": "takes: mood; gives: poem",
}


def test_members_are_chained_where_what_one_gives_the_next_takes() -> None:
    says: Says = {n: (lambda t, n=n: f"{n} on {t.splitlines()[-1]}") for n in CHAIN}  # type: ignore[misc]
    move, seen = rehearsed(lead("compatible", CHAIN, {"team": 3}), "the scan", says)
    assert [r.member for r in seen.reports] == ["reader", "clerk", "drawer"]
    assert move.answer == "drawer on clerk on reader on the scan"


@pytest.mark.row("het-agent-compat", "mechanism")
def test_what_does_not_fit_is_refused_before_anything_runs() -> None:
    cards = {"clerk": "takes: text; gives: table", "poet": "takes: mood; gives: poem"}
    move, seen = rehearsed(lead("compatible", cards), "go", {})
    assert isinstance(move, GivesUp)
    assert seen.reports == ()
    assert "no 2 members fit together by their cards (clerk: takes: text" in move.why
    says: Says = {"clerk": lambda t: "a table", "poet": lambda t: "a poem"}
    move, _ = rehearsed(lead("compatible", cards, {"same": {"mood": "table"}}), "go", says)
    assert move.answer == "a poem", "the ontology says that a mood is a table"


@pytest.mark.row("het-agent-compat", "mechanism")
def test_pairs_chosen_by_a_trial_beat_pairs_at_random() -> None:
    """Six members of different skill; a pair is right when both are; the trial shows who is able."""
    skill = {f"p{n}": 0.95 if n in (2, 5) else 0.5 for n in range(6)}

    def member(name: str) -> Callable[[str], str]:
        def says(task: str) -> str:
            able = random.Random(f"{name}|{task.splitlines()[0]}").random() < skill[name]
            return ("42" if skill[name] > 0.9 else "41") if task == "trial" else "good" if able else "bad"

        return says

    says: Says = {name: member(name) for name in skill}
    made = lead("compatible", dict.fromkeys(skill, ""), {"trial": "trial", "expects": "42"})
    chosen = rivals = 0
    dice = random.Random(1)
    for case in range(200):
        _, seen = rehearsed(made, f"case {case}", says)
        chosen += all(r.text == "good" for r in seen.reports if r.purpose == "link")
        rivals += all(says[n](f"case {case}") == "good" for n in dice.sample(sorted(skill), 2))
    print(f"chosen {chosen / 200:.0%}, at random {rivals / 200:.0%}")
    assert chosen >= rivals + 20


def test_options_that_make_no_sense_are_refused() -> None:
    for name, options in (
        ("balance", {"per_member": 0}),
        ("agent-graph", {"loops": 0}),
        ("compatible", {"team": 0}),
    ):
        made = lead(name, {"a": ""}, options)
        with pytest.raises(InvalidRequest):
            coordinator_for(made)
