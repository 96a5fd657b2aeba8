"""PDDL read by the `pddl` library and checked: lifted domains and problems, with every mistake told."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pentad.agent.planning.strips.task import Atom, Unplannable

_FENCE = re.compile(r"```\w*\n(.*?)```", re.DOTALL)
_MISTAKE_CHARACTERS = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """A lifted action. Its atoms hold variables, which begin with `?`, and constants."""

    name: str
    parameters: tuple[tuple[str, frozenset[str]], ...]
    """Variables, each with the types that its object may have; none for any."""
    needs: tuple[Atom, ...]
    forbids: tuple[Atom, ...]
    adds: tuple[Atom, ...]
    deletes: tuple[Atom, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """What there is and what can be done."""

    name: str
    parents: Mapping[str, str | None]
    """Each type's parent."""
    constants: Mapping[str, str | None]
    predicates: Mapping[str, int]
    """Each predicate's number of objects."""
    schemas: tuple[Schema, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Objects with their types, what holds and what shall."""

    objects: Mapping[str, str | None]
    facts: frozenset[Atom]
    goal: frozenset[Atom]
    goal_not: frozenset[Atom]


def pddl_text(answer: str) -> str:
    """The PDDL in a model's answer, without the fence and words around it."""
    fenced = _FENCE.findall(answer)
    text = str(fenced[-1]) if fenced else answer
    start = text.find("(define")
    return text[start:].strip() if start >= 0 else text.strip()


@functools.lru_cache(maxsize=64)
def read_domain(text: str) -> Domain:
    """The domain that a text defines: STRIPS with types, `not` in preconditions, `=` and constants.

    Raises:
        Unplannable: it cannot be parsed, uses something else, or names what it does not declare.
    """
    from pddl.parser.domain import DomainParser

    parsed = _parsed(DomainParser(), text, "domain")
    predicates = {p.name: p.arity for p in parsed.predicates}
    parents = {str(name): None if parent is None else str(parent) for name, parent in parsed.types.items()}
    constants = {c.name: c.type_tag for c in parsed.constants}
    problems: list[str] = []
    schemas = []
    for action in sorted(parsed.actions, key=lambda each: str(each.name)):
        where = f"action {action.name}"
        variables = {f"?{v.name}" for v in action.parameters}
        needs, forbids = _literals(action.precondition, f"{where}, precondition", problems)
        adds, deletes = _literals(action.effect, f"{where}, effect", problems)
        for atom in (*needs, *forbids, *adds, *deletes):
            problems += _misused(atom, predicates, variables | set(constants), where)
        types = {tag for v in action.parameters for tag in v.type_tags}
        unknown = sorted(t for t in types if t not in parents and t != "object")
        problems += [f"{where}: there is no type {t}" for t in unknown]
        if not adds and not deletes:
            problems.append(f"{where} has no effect")
        schemas.append(
            Schema(
                name=str(action.name),
                parameters=tuple((f"?{v.name}", frozenset(map(str, v.type_tags))) for v in action.parameters),
                needs=needs,
                forbids=forbids,
                adds=adds,
                deletes=deletes,
            )
        )
    if not schemas:
        problems.append("the domain has no action")
    _refuse(problems)
    return Domain(
        name=str(parsed.name),
        parents=parents,
        constants=constants,
        predicates=predicates,
        schemas=tuple(schemas),
    )


def read_problem(text: str, domain: Domain) -> Problem:
    """The problem that a text defines in a domain. Raises Unplannable as `read_domain`."""
    from pddl.parser.problem import ProblemParser

    parsed = _parsed(ProblemParser(), text, "problem")
    objects = {**domain.constants, **{o.name: o.type_tag for o in parsed.objects}}
    problems: list[str] = []
    unknown = sorted({str(t) for t in objects.values() if t and t not in domain.parents and t != "object"})
    problems += [f"there is no type {t}; known: {', '.join(domain.parents) or 'none'}" for t in unknown]
    facts: set[Atom] = set()
    for each in parsed.init:
        held, _ = _literals(each, "init", problems)
        facts |= set(held)
    goal, goal_not = _literals(parsed.goal, "goal", problems)
    for where, atoms in (("init", facts), ("goal", {*goal, *goal_not})):
        for atom in sorted(atoms):
            problems += _misused(atom, domain.predicates, set(objects), where)
    if not goal and not goal_not:
        problems.append("the goal is empty")
    _refuse(problems)
    return Problem(
        objects=objects, facts=frozenset(facts), goal=frozenset(goal), goal_not=frozenset(goal_not)
    )


def _parsed(parser: Any, text: str, what: str) -> Any:
    try:
        return parser(text)
    except RecursionError:
        raise Unplannable((f"the {what} is nested too deeply",)) from None
    except Exception as error:
        # The parser raises several kinds of its own and of its grammar; all of them speak of the text.
        told = " ".join(str(error).split())[:_MISTAKE_CHARACTERS]
        raise Unplannable((f"the {what} cannot be parsed: {told}",)) from None


def _literals(formula: Any, where: str, problems: list[str]) -> tuple[tuple[Atom, ...], tuple[Atom, ...]]:
    """What a conjunction asserts and what it denies; other formulas are noted as problems."""
    from pddl.logic.base import And, Not
    from pddl.logic.predicates import EqualTo, Predicate

    said: list[Atom] = []
    denied: list[Atom] = []

    def walk(part: Any, *, positive: bool) -> None:
        if isinstance(part, And) and positive:
            for each in part.operands:
                walk(each, positive=True)
        elif isinstance(part, Not) and positive:
            walk(part.argument, positive=False)
        elif isinstance(part, Predicate):
            atom = (str(part.name), *(_term(term) for term in part.terms))
            (said if positive else denied).append(atom)
        elif isinstance(part, EqualTo):
            (said if positive else denied).append(("=", _term(part.left), _term(part.right)))
        else:
            problems.append(f"{where}: {' '.join(str(part).split())[:60]} is not supported; use and, not, =")

    if formula is not None:
        walk(formula, positive=True)
    return tuple(said), tuple(denied)


def _term(term: Any) -> str:
    from pddl.logic.terms import Variable

    return f"?{term.name}" if isinstance(term, Variable) else str(term.name)


def _misused(atom: Atom, predicates: Mapping[str, int], names: Iterable[str], where: str) -> list[str]:
    """What is wrong with an atom: its predicate, how many objects it has, or which."""
    name, *terms = atom
    wrong = [f"{where}: {term} is not declared" for term in terms if term not in names]
    if name == "=":
        return wrong
    if name not in predicates:
        return [f"{where}: there is no predicate {name}; known: {', '.join(sorted(predicates)) or 'none'}"]
    if predicates[name] != len(terms):
        wrong.append(f"{where}: {name} has {predicates[name]} objects, not {len(terms)}")
    return wrong


def _refuse(problems: list[str]) -> None:
    if problems:
        raise Unplannable(tuple(dict.fromkeys(problems)))
