"""Student: a small classifier learns a tool's answers and takes the calls that it is sure of."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pentad.agent.tools.base import Sourced, Tool, ToolContext
from pentad.agent.tools.invocation import as_text
from pentad.agent.tools.wrapping.base import WrapperServices, repeatable
from pentad.agent.tools.wrapping.classifier import Classifier
from pentad.errors import InvalidRequest
from pentad.ranges import in_range
from pentad.types import Decision

_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """Answers in a tool's place where its answers are few and a classifier has learned to tell them.

    The first `after` calls go to the tool, and so does each later one whose two likeliest answers are less
    than `margin` apart, and each `check_every`-th, by which the student is held to `agreement`: while the
    last checks agree less than that, it answers nothing. All that the tool answered is learned. For tools
    that ask a model to classify, judge or route; one with more than `most_answers` different answers is
    left alone. Each tenant has a student of its own.

    Source: Ramirez et al. 2023, "Cache & Distil: Optimising API Calls to Large Language Models", sections 3
    and 4.2 (margin sampling). Ours learns a linear classifier over words in place of a fine-tuned
    transformer, and checks itself. Exactness: lossy; the metric is agreement with the tool.
    """

    tools: tuple[str, ...] = ("classify",)
    """Patterns of the tools that it learns."""
    margin: float = 0.5
    """0 to 1; how much likelier the best answer must be than the next for the student to give it."""
    after: int = 100
    """Calls that the tool answers before the student gives its first."""
    check_every: int = 20
    """Each so many-th call that the student could take goes to the tool as well; 0 checks nothing."""
    agreement: float = 0.9
    """Share of the last 20 checks that must agree with the tool."""
    most_answers: int = 64
    """Different answers that a tool may have."""
    file: str = ""
    """Where what was learned is kept; empty keeps it for the life of the process."""

    name = "student"

    def __post_init__(self) -> None:
        in_range("margin", self.margin, least=0, most=1)
        in_range("agreement", self.agreement, least=0, most=1)
        in_range("after", self.after, least=1)
        in_range("check_every", self.check_every, least=0)
        in_range("most_answers", self.most_answers, least=2)

    def open(self, services: WrapperServices) -> Class:  # noqa: ARG002
        """With what was learned before. Raises InvalidRequest for a file that is none of ours."""
        return Class(self)


class Class:
    """The students of all tools and tenants of a process."""

    def __init__(self, options: Student) -> None:
        self._options = options
        self._file = pathlib.Path(options.file).expanduser() if options.file else None
        self._pupils: dict[str, _Pupil] = {}
        self._version = 0
        if self._file is not None and self._file.exists():
            self._load(self._file)

    def wrap(self, tool: Tool) -> Tool:
        """The tool, some of whose calls the student takes."""
        if not repeatable(tool, self._options.tools):
            return tool

        async def call(arguments: Mapping[str, Any], context: ToolContext) -> Any:
            key = json.dumps([context.tenant, tool.name])
            pupil = self._pupils.setdefault(key, _Pupil(Classifier()))
            return await pupil.answer(tool, arguments, context, self._options)

        return replace(tool, call=call)

    def close(self) -> None:
        """Writes what was learned, as the next version, whole or not at all."""
        if self._file is None:
            return
        pupils = {key: pupil.classifier.written() for key, pupil in self._pupils.items()}
        text = json.dumps({"student": 1, "version": self._version + 1, "pupils": pupils})
        self._file.parent.mkdir(parents=True, exist_ok=True)
        beside = self._file.with_name(f"{self._file.name}.new")
        beside.write_text(text, encoding="utf-8")
        beside.replace(self._file)

    def _load(self, file: pathlib.Path) -> None:
        try:
            found = json.loads(file.read_text("utf-8"))
            assert found["student"] == 1
            self._version = int(found["version"])
            self._pupils = {key: _Pupil(Classifier.read(each)) for key, each in found["pupils"].items()}
        except (OSError, ValueError, KeyError, TypeError, AssertionError):
            raise InvalidRequest(
                f"{str(file)!r} holds nothing that a student wrote",
                hint="set wrap.options.file to another file, or remove this one",
                param="wrap",
            ) from None


class _Pupil:
    """One student: what it knows, and how it did when it was checked."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self._sure = 0
        self._checks: list[bool] = []

    async def answer(
        self, tool: Tool, arguments: Mapping[str, Any], context: ToolContext, options: Student
    ) -> Any:
        text = json.dumps(arguments, sort_keys=True, ensure_ascii=False)
        likely = self.classifier.probabilities(text)
        margin = likely[0][1] - (likely[1][1] if len(likely) > 1 else 0.0) if likely else 0.0
        learned = self.classifier.examples >= options.after and len(likely) > 1
        trusted = self._trusted(options)
        sure = learned and margin >= options.margin
        self._sure += sure
        checking = sure and options.check_every > 0 and self._sure % options.check_every == 0
        if sure and trusted and not checking:
            decision = Decision(
                layer="agent",
                policy=options.name,
                subject=f"who answers {tool.name}",
                chosen="student",
                candidates=tuple((answer, round(p, 4)) for answer, p in likely[:_NAMED]),
                constraint=f"margin {margin:.3f}, at least {options.margin:g}",
            )
            source = f"student of {self.classifier.examples} answers, margin {margin:.3f}"
            return Sourced(content=likely[0][0], source=source, decisions=(decision,))
        result = await tool.call(arguments, context)
        said = as_text(result) if isinstance(result, str) else None
        if said is not None:
            if sure:
                self._checks = [*self._checks, said == likely[0][0]][-20:]
            known = said in self.classifier.answers
            if known or len(self.classifier.answers) < options.most_answers:
                self.classifier.learn(text, said)
        return result

    def _trusted(self, options: Student) -> bool:
        return not self._checks or sum(self._checks) / len(self._checks) >= options.agreement
