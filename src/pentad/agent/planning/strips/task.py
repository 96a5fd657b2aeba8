"""A grounded planning task: what holds, what shall hold, and what can be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Atom = tuple[str, ...]
"""A fact: its predicate, then its objects."""
Step = tuple[str, ...]
"""A step of a plan: the action's name, then its objects."""


class Unplannable(ValueError):
    """PDDL that cannot be read or grounded. `problems` says what to change, a line each."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """An action with its objects: what it needs, what it makes true and false."""

    step: Step
    needs: frozenset[Atom]
    forbids: frozenset[Atom]
    adds: frozenset[Atom]
    deletes: frozenset[Atom]

    def applies(self, facts: frozenset[Atom]) -> bool:
        """Whether it can be done where these facts hold."""
        return self.needs <= facts and not self.forbids & facts

    def after(self, facts: frozenset[Atom]) -> frozenset[Atom]:
        """The facts once it has been done. What it both deletes and adds holds, as PDDL has it."""
        return (facts - self.deletes) | self.adds


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A planning task."""

    facts: frozenset[Atom]
    """What holds at first; nothing else does."""
    goal: frozenset[Atom]
    """What must hold in the end."""
    goal_not: frozenset[Atom]
    """What must not."""
    actions: Mapping[Step, Action]

    def reached(self, facts: frozenset[Atom]) -> bool:
        """Whether the goal holds."""
        return self.goal <= facts and not self.goal_not & facts


def written(atom: Atom) -> str:
    """A fact or step as PDDL writes it."""
    return f"({' '.join(atom)})"
