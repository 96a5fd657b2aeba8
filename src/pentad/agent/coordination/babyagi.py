"""BabyAGI: one member executes the first task of a queue, one derives new tasks, one orders the queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.agent.coordination.base import Assignment, Assigns, Concludes, GivesUp, Move, Team
from pentad.agent.coordination.board import pieces_of
from pentad.agent.coordination.leaderless import Leaderless
from pentad.model.relevance import shared_words, words
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class BabyAgi(Leaderless):
    """Works off a queue of tasks for one objective: execute, create, prioritise, until the queue is empty.

    The first three members named have the three roles; of fewer, the last has those that are left. A task
    that says the same as an earlier one is not queued again.

    Source: Nakajima 2023, BabyAGI, as the case study of Talebirad and Nadiri 2023, section 4. Ours finds
    the results that matter by shared words, in place of a vector store, since the journal has them all.
    """

    recall: int = 3
    """Earlier results shown to who executes a task, at most."""
    same: float = 0.8
    """The share of words, 0 to 1, from which two tasks are one."""

    name: ClassVar[str] = "babyagi"

    def __post_init__(self) -> None:
        Leaderless.__post_init__(self)
        in_range("recall", self.recall, least=0)
        in_range("same", self.same, above=0, most=1)

    def move(self, team: Team) -> Move:
        """The next role's turn."""
        names = list(team.members)
        executor, creator, orderer = (names[min(n, len(names) - 1)] for n in range(3))
        queue, known = self.queue(team)
        last = team.reports[-1] if team.reports else None
        cycle = sum(report.purpose == "execute" for report in team.reports)
        if last is not None and last.purpose == "execute" and last.ok:
            return self._gives(
                creator, "create", _create(team.state.goal, known[last.about], last.text, queue), cycle
            )
        if last is not None and last.purpose == "create" and len(queue) > 1:
            return self._gives(orderer, "prioritise", _prioritise(team.state.goal, queue), cycle)
        if not queue:
            return self.best(team)
        task = (
            f"{team.state.goal}\n\nDo this part now: {queue[0]}" if queue[0] != team.state.goal else queue[0]
        )
        shown = "\n".join(self._recalled(team, queue[0]))
        decision = self.decision("task", queue[0], dict.fromkeys(queue), f"{len(known)} tasks so far")
        given = Assignment(
            member=executor,
            task=f"{task}\n\nWhat is known:\n{shown}" if shown else task,
            purpose="execute",
            about=known.index(queue[0]),
        )
        return Assigns(assignments=(given,), decisions=(decision,))

    def best(self, team: Team) -> Concludes | GivesUp:
        """What the executed tasks came to, in their order."""
        queue, known = self.queue(team)
        done = [(known[r.about], r.text) for r in team.reports if r.purpose == "execute" and r.ok]
        if not done:
            return GivesUp(why="no task was carried out")
        answer = done[0][1] if len(known) == 1 else "\n".join(f"{task}: {text}" for task, text in done)
        left = f"{len(queue)} tasks left in the queue" if queue else None
        return Concludes(answer=answer, decisions=(self.decision("queue", "answer", constraint=left),))

    def queue(self, team: Team) -> tuple[list[str], list[str]]:
        """The tasks that wait, in order, and all that there have been, folded from the reports."""
        known = list(pieces_of(team.state.goal))
        queue = list(known)
        for report in team.reports:
            if report.purpose == "execute":
                queue.remove(known[report.about])
            elif report.purpose == "create" and report.ok:
                for task in listed(report.text):
                    if not any(self._one(task, other) for other in known):
                        known.append(task)
                        queue.append(task)
            elif report.purpose == "prioritise" and report.ok:
                wanted = [q for line in listed(report.text) for q in queue if self._one(line, q)]
                queue = [*dict.fromkeys([*wanted, *queue])]
        return queue, known

    def _one(self, a: str, b: str) -> bool:
        left, right = set(words(a)), set(words(b))
        return len(left & right) >= self.same * len(left | right)

    def _recalled(self, team: Team, task: str) -> list[str]:
        done = [report.text for report in team.reports if report.purpose == "execute" and report.ok]
        scores = shared_words(task, done) if done else []
        order = sorted(range(len(done)), key=lambda place: -scores[place])[: self.recall]
        return [done[place] for place in sorted(order)]

    def _gives(self, member: str, purpose: str, task: str, about: int) -> Assigns:
        role = self.decision("role", member, constraint=purpose)
        return self.asks([member], task, purpose, about, (role,))


def listed(text: str) -> tuple[str, ...]:
    """The items of a list in an answer; none where it has no list."""
    found = pieces_of(text)
    return () if found == (text,) else found


def _create(goal: str, done: str, result: str, queue: list[str]) -> str:
    waiting = "\n".join(f"- {task}" for task in queue) or "none"
    return (
        f"The objective: {goal}\n\nJust done: {done}\nIts result: {result}\n\n"
        f"Tasks that wait:\n{waiting}\n\nList tasks that are still needed, each as a line `- TASK`. "
        "If none is needed, answer: none."
    )


def _prioritise(goal: str, queue: list[str]) -> str:
    waiting = "\n".join(f"- {task}" for task in queue)
    asked = "List these tasks again, the most urgent first, each as `- TASK`:"
    return f"The objective: {goal}\n\n{asked}\n{waiting}"
