"""PDDL: read, grounded, solved, judged; and the planner that has the model write it."""

from __future__ import annotations

import pathlib
from collections import deque
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_support import harness, run, spec
from pentad.agent.planning.strips.grounding import ground
from pentad.agent.planning.strips.reading import pddl_text, read_domain, read_problem
from pentad.agent.planning.strips.search import solve
from pentad.agent.planning.strips.task import Task, Unplannable
from pentad.agent.planning.strips.validator import why_invalid
from pentad.agent.tools.base import Tool
from pentad.agent.tools.functions import tool
from pentad.choice import Choice, build
from pentad.errors import ToolFailed
from pentad.testing.backends import Item, Turn
from pentad.types import Request

pytestmark = pytest.mark.thorough

BLOCKS = """(define (domain blocks) (:requirements :strips :typing) (:types block)
 (:predicates (on ?x - block ?y - block) (clear ?x - block) (ontable ?x - block) (handempty)
  (holding ?x - block))
 (:action pick-up :parameters (?x - block) :precondition (and (clear ?x) (ontable ?x) (handempty))
  :effect (and (not (ontable ?x)) (not (clear ?x)) (not (handempty)) (holding ?x)))
 (:action put-down :parameters (?x - block) :precondition (holding ?x)
  :effect (and (not (holding ?x)) (clear ?x) (handempty) (ontable ?x)))
 (:action stack :parameters (?x - block ?y - block) :precondition (and (holding ?x) (clear ?y))
  :effect (and (not (holding ?x)) (not (clear ?y)) (clear ?x) (handempty) (on ?x ?y)))
 (:action unstack :parameters (?x - block ?y - block)
  :precondition (and (on ?x ?y) (clear ?x) (handempty))
  :effect (and (holding ?x) (clear ?y) (not (clear ?x)) (not (handempty)) (not (on ?x ?y)))))"""
BLOCKS_PROBLEM = """(define (problem sussman) (:domain blocks) (:objects a b c - block)
 (:init (ontable a) (ontable b) (on c a) (clear c) (clear b) (handempty)) (:goal (and (on a b) (on b c))))"""
GRIPPER = """(define (domain gripper) (:requirements :strips :typing :equality :negative-preconditions)
 (:types room thing - object ball gripper - thing) (:constants left right - gripper)
 (:predicates (at ?b - ball ?r - room) (robot ?r - room) (carry ?b - ball ?g - gripper)
  (free ?g - gripper))
 (:action move :parameters (?a - room ?b - room) :precondition (and (robot ?a) (not (= ?a ?b)))
  :effect (and (robot ?b) (not (robot ?a))))
 (:action pick :parameters (?b - ball ?r - room ?g - gripper)
  :precondition (and (at ?b ?r) (robot ?r) (free ?g))
  :effect (and (carry ?b ?g) (not (at ?b ?r)) (not (free ?g))))
 (:action drop :parameters (?b - ball ?r - room ?g - gripper) :precondition (and (carry ?b ?g) (robot ?r))
  :effect (and (at ?b ?r) (free ?g) (not (carry ?b ?g)))))"""
GRIPPER_PROBLEM = """(define (problem two) (:domain gripper) (:objects kitchen hall - room x y z - ball)
 (:init (robot kitchen) (at x kitchen) (at y kitchen) (at z hall) (free left) (free right))
 (:goal (and (at x hall) (at y hall) (at z kitchen) (not (robot hall)))))"""
DOORS = """(define (domain doors) (:requirements :strips :typing :negative-preconditions) (:types room key)
 (:predicates (at ?r - room) (door ?a - room ?b - room) (locked ?b - room) (lies ?k - key ?r - room)
  (has ?k - key) (opens ?k - key ?r - room))
 (:action go :parameters (?a - room ?b - room)
  :precondition (and (at ?a) (door ?a ?b) (not (locked ?b))) :effect (and (at ?b) (not (at ?a))))
 (:action take :parameters (?k - key ?r - room) :precondition (and (at ?r) (lies ?k ?r))
  :effect (and (has ?k) (not (lies ?k ?r))))
 (:action unlock :parameters (?k - key ?a - room ?b - room)
  :precondition (and (at ?a) (door ?a ?b) (has ?k) (opens ?k ?b)) :effect (not (locked ?b))))"""
DOORS_PROBLEM = """(define (problem out) (:domain doors) (:objects hall attic yard - room k - key)
 (:init (at hall) (door hall attic) (door attic hall) (door hall yard) (locked yard) (lies k attic)
  (opens k yard)) (:goal (at yard)))"""
ALL = [(BLOCKS, BLOCKS_PROBLEM, 6), (GRIPPER, GRIPPER_PROBLEM, 8), (DOORS, DOORS_PROBLEM, 5)]


def task(domain: str, problem: str) -> Task:
    read = read_domain(domain)
    return ground(read, read_problem(problem, read))


def shortest(of: Task) -> int | None:
    """Steps of the shortest plan, by breadth-first search over all states."""
    seen, frontier = {of.facts}, deque([(of.facts, 0)])
    while frontier:
        facts, steps = frontier.popleft()
        if of.reached(facts):
            return steps
        for action in of.actions.values():
            if action.applies(facts) and (after := action.after(facts)) not in seen:
                seen.add(after)
                frontier.append((after, steps + 1))
    return None


@pytest.mark.row("plan-pddl", "mechanism")
@pytest.mark.parametrize(("domain", "problem", "least"), ALL, ids=["blocks", "gripper", "doors"])
def test_a_plan_is_found_and_the_validator_finds_nothing_wrong(domain: str, problem: str, least: int) -> None:
    made = task(domain, problem)
    found = solve(made)
    assert found.plan is not None
    assert why_invalid(made, found.plan) == ""
    assert shortest(made) == least
    assert len(found.plan) <= least + 2
    assert found == solve(made)


def test_the_validator_says_what_is_wrong() -> None:
    made = task(BLOCKS, BLOCKS_PROBLEM)
    assert why_invalid(made, [("pick-up", "a")]) == "step 1 (pick-up a) needs (clear a)"
    assert why_invalid(made, [("pick-up", "z")]) == "step 1 (pick-up z): there is no such action"
    assert why_invalid(made, [("pick-up", "b")]) == "the plan ends without (on a b), (on b c)"
    doors = task(DOORS, DOORS_PROBLEM)
    assert why_invalid(doors, [("go", "hall", "yard")]) == "step 1 (go hall yard) must not have (locked yard)"


BLOCK_STATES = st.permutations(["a", "b", "c", "d"]).flatmap(
    lambda order: st.lists(st.booleans(), min_size=4, max_size=4).map(
        lambda cuts: (
            [
                ("on", x, y) if cut else ("ontable", x)
                for x, y, cut in zip(order, order[1:], cuts, strict=False)
            ]
            + [("ontable", order[-1])]
        )
    )
)


@settings(max_examples=12, deadline=None)
@given(BLOCK_STATES, BLOCK_STATES)
def test_every_arrangement_of_blocks_is_reached_from_every_other(
    first: list[tuple[str, ...]], last: list[tuple[str, ...]]
) -> None:
    under = {atom[2] for atom in first if atom[0] == "on"}
    facts = [*first, *(("clear", x) for x in "abcd" if x not in under), ("handempty",)]
    init, goal = (" ".join(f"({' '.join(atom)})" for atom in atoms) for atoms in (facts, last))
    made = task(
        BLOCKS,
        f"(define (problem p) (:domain blocks) (:objects a b c d - block) (:init {init}) "
        f"(:goal (and {goal})))",
    )
    found = solve(made)
    assert found.plan is not None
    assert why_invalid(made, found.plan) == ""


def test_a_goal_that_nothing_leads_to_is_told_so() -> None:
    locked = DOORS_PROBLEM.replace("(lies k attic)", "")
    assert solve(task(DOORS, locked)).plan is None
    hidden = DOORS_PROBLEM.replace("(door hall yard)", "")
    assert solve(task(DOORS, hidden)).why == "no action leads to (at yard)"
    assert "among 1 states" in solve(task(BLOCKS, BLOCKS_PROBLEM), max_expanded=1).why


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense", "cannot be parsed"),
        (BLOCKS.replace("(clear ?x) (ontable ?x)", "(clera ?x) (ontable ?x)"), "there is no predicate clera"),
        (BLOCKS.replace("(holding ?x) (clear ?y)", "(holding ?z) (clear ?y)"), "?z is not declared"),
        (
            BLOCKS.replace("(and (holding ?x) (clear ?y)", "(and (holding ?x ?y) (clear ?y)"),
            "1 objects, not 2",
        ),
        (BLOCKS.replace("(?x - block) :precondition (holding", "(?x - blok) :precondition (holding"), "blok"),
        ("(define (domain d) (:predicates (p)))", "has no action"),
    ],
)
def test_a_domain_that_is_wrong_says_where(text: str, says: str) -> None:
    with pytest.raises(Unplannable, match=says.replace("?", r"\?")):
        read_domain(text)


def test_what_is_more_than_strips_is_refused() -> None:
    text = DOORS.replace("(and (at ?a) (door ?a ?b) (not (locked ?b)))", "(or (at ?a) (door ?a ?b))")
    text = text.replace(":negative-preconditions", ":negative-preconditions :disjunctive-preconditions")
    with pytest.raises(Unplannable, match="is not supported; use and, not, ="):
        read_domain(text)


def test_the_pddl_is_found_in_what_a_model_says() -> None:
    assert pddl_text("Sure!\n```pddl\n(define (x))\n```\nDone.") == "(define (x))"
    assert pddl_text("Here: (define (x))") == "(define (x))"
    assert pddl_text("none") == "none"


class Rooms:
    """The world of doors, by its own rules, which know no PDDL."""

    def __init__(self, jams: int = 0) -> None:
        self.at, self.has_key, self.locked, self.jams = "hall", False, True, jams
        self.done: list[tuple[str, ...]] = []

    def _check(self, good: bool, why: str) -> None:
        if not good:
            raise ToolFailed(why)

    def tools(self) -> list[Tool]:
        @tool(effects="none")
        def go(a: str, b: str) -> str:
            """Goes from a room to the next."""
            self._check(self.at == a, f"you are in the {self.at}")
            self._check({a, b} in ({"hall", "attic"}, {"hall", "yard"}), "there is no door")
            self._check(b != "yard" or not self.locked, "it is locked")
            self.at = b
            self.done.append(("go", a, b))
            return f"you are in the {b}"

        @tool(effects="none")
        def take(k: str, r: str) -> str:
            """Takes a key from a room."""
            self._check(self.at == r == "attic" and not self.has_key, "there is no key")
            self.has_key = True
            self.done.append(("take", k, r))
            return "you have the key"

        @tool(effects="none")
        def unlock(k: str, a: str, b: str) -> str:
            """Unlocks the door from a room to the next."""
            if self.jams:
                self.jams -= 1
                raise ToolFailed("the lock jams")
            self._check(self.has_key and self.at == a == "hall" and b == "yard", "the key does not fit")
            self.locked = False
            self.done.append(("unlock", k, a, b))
            return "it is open"

        return [go, take, unlock]


def writes(domains: Sequence[str], problems: Sequence[str]) -> Turn:
    """The domains and problems in turn, the last of each again and again."""
    left = {"domain": list(domains), "problem": list(problems)}

    def turn(request: Request) -> Sequence[Item]:
        system = (request.messages or ())[0].content
        kind = "domain" if "PDDL domain" in system else "problem" if "PDDL problem" in system else ""
        if not kind:
            return ["I could not find a way."]
        return [left[kind].pop(0) if len(left[kind]) > 1 else left[kind][0]]

    return turn


AGENT = spec(tools=("go", "take", "unlock"), planner=Choice(name="pddl"), max_steps=16)
WAY = [
    ("go", "hall", "attic"),
    ("take", "k", "attic"),
    ("go", "attic", "hall"),
    ("unlock", "k", "hall", "yard"),
    ("go", "hall", "yard"),
]


@pytest.mark.row("plan-pddl", "mechanism")
def test_broken_pddl_is_repaired_and_the_plan_holds_in_the_world(tmp_path: pathlib.Path) -> None:
    broken = DOORS.replace("(at ?a) (door", "(is-at ?a) (door")
    stuck = DOORS_PROBLEM.replace("(door hall yard)", "")
    rooms = Rooms()

    async def scenario() -> None:
        turn = writes([broken, f"```pddl\n{DOORS}\n```"], [stuck, DOORS_PROBLEM])
        async with harness(tmp_path, [turn], rooms.tools(), repeat=True) as h:
            state = await h.work(AGENT, "Get out into the yard.")
            assert state.status == "answered"
            assert rooms.at == "yard"
            assert rooms.done == WAY
            assert [(e.label, e.outcome) for e in state.exchanges] == [
                ("domain", "failed"),
                ("domain", "thought"),
                ("problem", "failed"),
                ("problem", "thought"),
                ("plan", "planned"),
                ("steps", "called_tools"),
                ("said", "answered"),
            ]
            asked = [(r.messages or ())[-1].content for r in h.backend.requests]
            assert "there is no predicate is-at" in asked[1]
            assert "no action leads to (at yard)" in asked[3]
            assert len(asked) == 4, "neither the search nor the steps ask the model"
            (plan,) = [d for d in h.runtime.explain(state.run_id).decisions if d.subject == "plan"]
            assert plan.chosen.startswith("(go hall attic) (take k attic)")

    run(scenario())


def test_after_a_step_that_failed_the_problem_is_written_from_what_is_known(tmp_path: pathlib.Path) -> None:
    now = DOORS_PROBLEM.replace("(lies k attic)", "(has k)")
    rooms = Rooms(jams=1)

    async def scenario() -> None:
        async with harness(
            tmp_path, [writes([DOORS], [DOORS_PROBLEM, now])], rooms.tools(), repeat=True
        ) as h:
            state = await h.work(AGENT, "Get out into the yard.")
            assert state.status == "answered"
            assert rooms.done == WAY
            asked = (h.backend.requests[-1].messages or ())[-1].content
            assert "you have the key" in asked
            assert "the lock jams" in asked

    run(scenario())


def test_a_known_domain_is_not_asked_for_and_without_tools_the_answer_is_the_plan(
    tmp_path: pathlib.Path,
) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [[DOORS_PROBLEM]]) as h:
            agent = spec(planner=Choice(name="pddl", options={"domain": DOORS}))
            state = await h.work(agent, "Get out into the yard.")
            assert state.answer.splitlines()[:2] == ["The plan:", "1. (go hall attic)"]

    run(scenario())


@pytest.mark.parametrize(
    ("domain", "says"),
    [
        (DOORS.replace("action go", "action walk"), "action walk is no tool; known: go, take, unlock"),
        (
            DOORS.replace("(?k - key ?r - room)\n", "(?k - key)\n").replace(
                "(?k - key ?r - room) :pre", "(?k - key) :pre"
            ),
            "",
        ),
    ],
)
def test_repairs_are_bounded_and_then_the_model_answers(
    tmp_path: pathlib.Path, domain: str, says: str
) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [writes([domain], [DOORS_PROBLEM])], Rooms().tools(), repeat=True) as h:
            state = await h.work(AGENT, "Get out into the yard.")
            assert (state.status, state.answer) == ("answered", "I could not find a way.")
            failed = [e for e in state.exchanges if e.outcome == "failed"]
            assert len(failed) == 6
            assert says in failed[0].detail

    run(scenario())


def test_a_domain_of_the_agent_file_is_checked_when_it_is_read() -> None:
    with pytest.raises(Exception, match="there is no predicate"):
        build("planner", Choice(name="pddl", options={"domain": DOORS.replace("(has ?k)", "(hasn ?k)", 1)}))
