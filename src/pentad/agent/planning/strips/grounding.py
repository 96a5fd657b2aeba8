"""Grounding: every action of a domain with every choice of objects that could ever apply."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pentad.agent.planning.strips.reading import Domain, Problem, Schema
from pentad.agent.planning.strips.task import Action, Atom, Task, Unplannable

MAX_ACTIONS = 50_000
"""Grounded actions of a task, at most."""


def ground(domain: Domain, problem: Problem) -> Task:
    """The task of a problem in its domain.

    Preconditions on facts that no action changes are settled here, and choices that break them are left
    out early. Raises Unplannable where more than `MAX_ACTIONS` are left.
    """
    fluent = {atom[0] for schema in domain.schemas for atom in (*schema.adds, *schema.deletes)}
    actions: dict[tuple[str, ...], Action] = {}
    for schema in domain.schemas:
        for bound in _bindings(schema, domain, problem, fluent):
            action = _action(schema, bound)
            if action.needs & action.forbids:
                continue
            actions[action.step] = action
            if len(actions) > MAX_ACTIONS:
                told = f"the problem has more than {MAX_ACTIONS} actions; use fewer objects or more types"
                raise Unplannable((told,))
    return Task(facts=problem.facts, goal=problem.goal, goal_not=problem.goal_not, actions=actions)


def _bindings(schema: Schema, domain: Domain, problem: Problem, fluent: set[str]) -> Iterator[dict[str, str]]:
    fixed = [(atom, True) for atom in schema.needs if atom[0] not in fluent]
    fixed += [(atom, False) for atom in schema.forbids if atom[0] not in fluent]

    def holds(bound: Mapping[str, str]) -> bool:
        for atom, wanted in fixed:
            made = _bound(atom, bound)
            if any(term.startswith("?") for term in made):
                continue
            true = made[1] == made[2] if made[0] == "=" else made in problem.facts
            if true is not wanted:
                return False
        return True

    def choose(place: int, bound: dict[str, str]) -> Iterator[dict[str, str]]:
        if not holds(bound):
            return
        if place == len(schema.parameters):
            yield dict(bound)
            return
        variable, types = schema.parameters[place]
        for name, kind in problem.objects.items():
            if not types or _is_a(kind, types, domain.parents):
                yield from choose(place + 1, {**bound, variable: name})

    yield from choose(0, {})


def _is_a(kind: str | None, types: frozenset[str], parents: Mapping[str, str | None]) -> bool:
    """Whether an object of the kind is of one of the types, or of a type below them."""
    if "object" in types:
        return True
    seen: set[str] = set()
    while kind is not None and kind not in seen:
        if kind in types:
            return True
        seen.add(kind)
        kind = parents.get(kind)
    return False


def _bound(atom: Atom, bound: Mapping[str, str]) -> Atom:
    return (atom[0], *(bound.get(term, term) for term in atom[1:]))


def _action(schema: Schema, bound: Mapping[str, str]) -> Action:
    def made(atoms: tuple[Atom, ...]) -> frozenset[Atom]:
        return frozenset(_bound(atom, bound) for atom in atoms if atom[0] != "=")

    return Action(
        step=(schema.name, *(bound[variable] for variable, _ in schema.parameters)),
        needs=made(schema.needs),
        forbids=made(schema.forbids),
        adds=made(schema.adds),
        deletes=made(schema.deletes),
    )
