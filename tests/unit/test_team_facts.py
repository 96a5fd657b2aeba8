"""What a team knows together: facts with provenance and readers; terms and goals that must not drift."""

from __future__ import annotations

import random

import pytest

from drift_terms import OTHER, SAME, TERMS
from pentad.agent.coordination.base import Concludes, GivesUp
from pentad.agent.team.facts import Blackboard, Fact
from pentad.agent.team.glossary import Contract
from pentad.agent.team.replica import State
from pentad.choice import Choice
from pentad.errors import InvalidRequest
from team_support import agent, rehearsed, team

LAMP = Fact(subject="lamp", value="costs 20", source="ann", evidence="run_7, step 2", confidence=0.9)


def test_a_fact_keeps_who_said_it_and_where_it_is_from() -> None:
    board = Blackboard().say(LAMP)
    assert board.facts("bob") == (LAMP,)
    assert board.resolved("bob")["lamp"].evidence == "run_7, step 2"


def test_conflicting_facts_stand_side_by_side_and_the_better_supported_value_holds() -> None:
    others = [
        Fact(subject="lamp", value="costs 30", source="bob", confidence=0.6),
        Fact(subject="lamp", value="costs 30", source="cid", confidence=0.5),
    ]
    parted = [Blackboard().say(fact) for fact in (LAMP, *others)]
    board = parted[0].merge(parted[1]).merge(parted[2])
    assert board == parted[2].merge(parted[0]).merge(parted[1])
    assert [f.source for f in board.conflicts("dee")["lamp"]] == ["ann", "bob", "cid"]
    assert board.resolved("dee")["lamp"] == others[0], "1.1 stand behind it, 0.9 behind the other"
    assert board.take_back("bob", "lamp").resolved("dee")["lamp"] == LAMP


def test_a_source_corrects_itself_and_nobody_else() -> None:
    board = Blackboard().say(LAMP).say(Fact(subject="lamp", value="costs 25", source="ann"))
    assert [f.value for f in board.facts("bob")] == ["costs 25"]
    board = board.say(Fact(subject="lamp", value="costs 1", source="eve", confidence=0.1))
    assert board.resolved("bob")["lamp"].value == "costs 25"


def test_a_fact_is_read_only_by_those_that_may() -> None:
    secret = Fact(subject="safe", value="4711", source="ann", readers=("bob",))
    board = Blackboard().say(secret).say(LAMP)
    assert [a for a in ("ann", "bob", "cid") if secret in board.facts(a)] == ["ann", "bob"]
    assert board.recall("cid", "safe 4711", 3) == ()
    assert board.recall("bob", "the safe", 3) == (secret,)


def test_what_is_no_fact_is_passed_by() -> None:
    state = State().put("eve", "lamp\neve", {"subject": "lamp"}).put("eve", "x\neve", [1])
    assert Blackboard(state=state).facts("ann") == ()
    with pytest.raises(InvalidRequest, match="confidence is 2"):
        Fact(subject="a", value="b", source="c", confidence=2)


@pytest.mark.row("ma-knowledge-share", "mechanism")
def test_two_agents_with_half_the_facts_each_answer_what_one_with_all_does() -> None:
    """Joint questions need a fact of each half; recall is the whole means of answering here."""
    facts = [
        Fact(subject=f"item{n} price", value=f"{7 * n + 3} coins", source=("ann", "bob")[n % 2])
        for n in range(100)
    ]
    whole, halves = Blackboard(), [Blackboard(), Blackboard()]
    for number, fact in enumerate(facts):
        whole = whole.say(fact)
        halves[number % 2] = halves[number % 2].say(fact)
    shared = halves[0].merge(halves[1])

    def right(board: Blackboard) -> int:
        asked = random.Random(4)
        found = 0
        for _ in range(100):
            a, b = asked.randrange(0, 100, 2), asked.randrange(1, 100, 2)
            known = [board.recall("cid", f"item{n} price", 1) for n in (a, b)]
            found += all(k and k[0] == facts[n] for k, n in zip(known, (a, b), strict=True))
        return found

    assert right(halves[0]) <= 5, "half of the facts answers no joint question"
    assert right(shared) == right(whole) == 100


# Consistency


@pytest.mark.row("ma-semantic-consistency", "mechanism")
def test_injected_conflicts_of_terms_are_flagged_and_paraphrases_are_not() -> None:
    contract = Contract(goal="", terms=TERMS)
    flagged = [t for t in TERMS if contract.drifts(f"{t}: {OTHER[t]}")]
    alarmed = [t for t in TERMS if contract.drifts(f"{t}: {SAME[t]}")]
    assert flagged == list(TERMS)
    assert alarmed == []


def test_numbers_and_negation_are_compared_exactly() -> None:
    contract = Contract(goal="Order 10 lamps, not chairs, for 1,200 coins.")
    assert contract.drifts("Order 10 lamps but not chairs for 1200 coins") == ()
    (drift,) = contract.drifts("Order 100 lamps, not chairs, for 1200 coins")
    assert (drift.about, drift.meant, drift.understood) == ("numbers", "10, 1200", "100, 1200")
    assert [d.about for d in contract.drifts("Order 10 lamps, chairs, for 1,200 coins.")] == ["negation"]
    assert [d.about for d in contract.drifts("Paint the 10 walls, not 1200.")] == ["goal"]


def test_an_encoder_may_judge_in_place_of_words() -> None:
    contract = Contract(goal="Buy lamps", least=0.5)
    assert contract.drifts("purchase illumination", near=lambda a, b: 0.9) == ()
    (drift,) = contract.drifts("purchase illumination", near=lambda a, b: 0.4)
    assert (drift.about, drift.score) == ("goal", 0.4)


@pytest.mark.row("ma-semantic-consistency", "mechanism")
def test_a_member_that_means_something_else_is_set_right_before_it_acts() -> None:
    goal = "Count the stock."
    acted: list[str] = []

    def counts(name: str, first: str) -> object:
        def says(task: str) -> str:
            if "Do not do this yet" in task:
                meaning = TERMS["stock"] if "You understood something else" in task else first
                return f"Count the stock.\nstock: {meaning}"
            acted.append(name)
            return "17"

        return says

    chosen = Choice(name="restate", options={"terms": {"stock": TERMS["stock"]}})
    lead = team({n: agent(n) for n in ("ann", "bob")}, coordinator=chosen)
    says = {"ann": counts("ann", OTHER["stock"]), "bob": counts("bob", SAME["stock"])}
    move, seen = rehearsed(lead, goal, says)  # type: ignore[arg-type]
    assert isinstance(move, Concludes)
    assert [(r.member, r.purpose) for r in seen.reports] == [
        ("ann", "restate"),
        ("bob", "restate"),
        ("ann", "restate"),
        ("ann", "work"),
    ]
    assert "stock: goods that lie in our own warehouse now" in seen.reports[2].task


def test_who_never_agrees_gets_no_work_and_a_team_of_such_gives_up() -> None:
    def deaf(task: str) -> str:
        return "Paint 12 walls." if "yet" in task else "painted"

    lead = team({n: agent(n) for n in ("ann", "bob")}, coordinator=Choice(name="restate"))
    says = {"ann": deaf, "bob": lambda task: "Count the stock." if "yet" in task else "17"}
    move, _ = rehearsed(lead, "Count the stock.", says)
    assert isinstance(move, Concludes)
    assert move.answer == "17"
    move, _ = rehearsed(lead, "Count the stock.", {"ann": deaf, "bob": deaf})
    assert isinstance(move, GivesUp)
    assert "no member restated the goal" in move.why
