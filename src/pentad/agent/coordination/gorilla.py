"""Gorilla: a member writes a call with the documents of the nearest APIs; its syntax tree is checked."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pentad.agent.coordination.base import Assignment, Assigns, Concludes, GivesUp, Move, Report, Team
from pentad.agent.coordination.leaderless import Leaderless
from pentad.model.relevance import shared_words
from pentad.ranges import in_range

_CODE = re.compile(r"```\w*\n(.*?)```|`([^`\n]+)`", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gorilla(Leaderless):
    """Has a member write one API call from retrieved documents, and takes only a call that they describe.

    A call of an API that no document names, or with arguments that it does not take, is invented: the next
    member tries, told why. The run is refused when no try matches.

    Source: Patil et al. 2023, "Gorilla", sections 3.2 and 3.4: retrieval-aware generation, and matching of
    abstract syntax trees. Ours matches while it runs, so that an invented call never leaves the team.
    """

    apis: tuple[str, ...] = ()
    """Documents, each beginning with the call: `hub.load(repo, model): loads a model from a hub`."""
    k: int = 3
    """Documents shown, the nearest to the goal."""
    tries: int = 2
    """Calls written, at most."""

    name: ClassVar[str] = "gorilla"

    def __post_init__(self) -> None:
        Leaderless.__post_init__(self)
        in_range("k", self.k, least=1)
        in_range("tries", self.tries, least=1)

    def move(self, team: Team) -> Move:
        """A call, until one matches or the tries are over."""
        tried = team.reports
        problem = invented(tried[-1], self.apis) if tried else ""
        if tried and (not problem or len(tried) >= self.tries):
            return self.best(team)
        names = list(team.members)
        shown = self.retrieved(team.state.goal)
        listed = "\n".join(f"- {api}" for api in shown)
        task = (
            f"{team.state.goal}\n\nAPIs:\n{listed}\n\nAnswer with one call of one of them, and nothing else."
        )
        if problem:
            task += f"\n\nAn earlier call was not taken: {problem}."
        given = Assignment(member=names[len(tried) % len(names)], task=task, purpose="call", about=len(tried))
        scores = dict(zip(self.apis, shared_words(team.state.goal, self.apis), strict=True))
        return Assigns(
            assignments=(given,),
            decisions=(
                self.decision("documents", "; ".join(map(name_of, shown)), {**scores}, problem or None),
            ),
        )

    def retrieved(self, goal: str) -> tuple[str, ...]:
        """The documents nearest to the goal, best first."""
        scores = shared_words(goal, self.apis)
        order = sorted(range(len(self.apis)), key=lambda place: -scores[place])
        return tuple(self.apis[place] for place in order[: self.k])

    def best(self, team: Team) -> Concludes | GivesUp:
        """The newest call, if it matches a document."""
        if not team.reports:
            return GivesUp(why="no member answered")
        last = team.reports[-1]
        problem = invented(last, self.apis)
        if problem:
            return GivesUp(why=f"no call matched in {len(team.reports)} tries: {problem}")
        call = call_in(last.text)
        return Concludes(answer=ast.unparse(call) if call else last.text)


def name_of(api: str) -> str:
    """What an API is called by: its document up to the bracket."""
    return api.partition("(")[0].strip()


def call_in(text: str) -> ast.Call | None:
    """The call that an answer is, in Markdown or plain; None where it is none."""
    marked = [a or b for a, b in _CODE.findall(text)]
    for part in (*marked, text, *reversed(text.splitlines())):
        try:
            tree = ast.parse(part.strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if isinstance(tree.body, ast.Call):
            return tree.body
    return None


def invented(report: Report, apis: Sequence[str]) -> str:
    """Why an answer is no call that the documents describe; "" where it is one."""
    if not report.ok:
        return report.text
    call = call_in(report.text)
    if call is None:
        return "it is no call"
    name = ast.unparse(call.func)
    known = {name_of(api): api for api in apis}
    if name not in known:
        return f"there is no API {name!r:.80}"
    taken = call_in(known[name][: known[name].find(")") + 1])
    parameters = [ast.unparse(a) for a in taken.args] if taken else []
    wrong = [k.arg for k in call.keywords if k.arg is not None and k.arg not in parameters]
    if wrong:
        return f"{name} takes no {wrong[0]}"
    if len(call.args) + len(call.keywords) > len(parameters):
        return f"{name} takes {len(parameters)} arguments"
    return ""
