"""Workload: tasks with their judges, in classes with what each is promised."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pentad.agent.evaluation.answer_check import STRICT, AnswerCheck
from pentad.choice import Choice, build
from pentad.ranges import in_range
from pentad.resource.service_classes import ServiceClass
from pentad.types import Budget, Message

PLAIN = "react:max_plan=0"
"""One turn: the model answers, or calls a tool."""
_AGENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NOT_JUDGED = ("ttft_s", "inter_token_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskClass(ServiceClass):
    """A service class of whole runs: what its tasks are promised, and how they may be gone about."""

    max_run_tokens: int | None = None
    """Tokens of one run, prompts included; its hard budget."""
    max_tokens: int = 256
    """Of one model answer."""
    ways: tuple[str, ...] = (PLAIN,)
    """Planners that suit its tasks. A fixed policy's strategy replaces them where there are several, and
    `elastic` chooses among them."""
    instructions: str = ""
    """What the model is told in the system's voice."""
    weight: float = 1.0
    """Share of the arrivals, over the sum of all classes' weights."""

    def __post_init__(self) -> None:
        # Not super(): a dataclass with slots is made anew, so its zero-argument form finds the wrong class.
        ServiceClass.__post_init__(self)
        for name in ("max_run_tokens", "max_tokens"):
            in_range(name, getattr(self, name), least=1)
        in_range("weight", self.weight, above=0)
        if not _AGENT.fullmatch(self.name):
            raise ValueError(f"name {self.name!r} must be letters, digits, dots, dashes, underscores")
        if given := [name for name in _NOT_JUDGED if getattr(self, name) is not None]:
            raise ValueError(f"{given[0]} is not judged of whole runs; set deadline_s")
        if not self.ways:
            raise ValueError("ways names no planner")
        for way in self.ways:
            build("planner", Choice.of(way))

    @property
    def budget(self) -> Budget:
        """The hard limits of one run."""
        return Budget(tokens=self.max_run_tokens, cost=self.max_cost, wall_s=self.deadline_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedTool:
    """A function that is described and does nothing; what counts is how it is called."""

    __pydantic_config__: ClassVar = STRICT

    name: str
    description: str = ""
    parameters: Mapping[str, Any]
    """JSON Schema of type object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message of the conversation before."""

    __pydantic_config__: ClassVar = STRICT

    role: Literal["user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One thing to do, whose outcome can be judged without asking anybody."""

    __pydantic_config__: ClassVar = STRICT

    id: str
    """Never two alike in a workload."""
    slo_class: str
    """Name of its class."""
    prompt: str
    """The goal, as the agent is told it."""
    messages: tuple[Turn, ...] = ()
    """The conversation before it, oldest first."""
    tools: tuple[OfferedTool, ...] = ()
    """What it may call."""
    check: AnswerCheck
    """What a right answer looks like."""

    @property
    def history(self) -> tuple[Message, ...]:
        """The conversation before, as a run takes it."""
        return tuple(Message(role=one.role, content=one.content) for one in self.messages)

    @property
    def functions(self) -> tuple[Mapping[str, Any], ...]:
        """Its tools, as the environment `offered` takes them."""
        return tuple(
            {"name": one.name, "description": one.description, "parameters": one.parameters}
            for one in self.tools
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Classes and tasks; every class has a task."""

    __pydantic_config__: ClassVar = STRICT

    classes: tuple[TaskClass, ...]
    """Kinds of tasks and what each is promised."""
    tasks: tuple[Task, ...]
    """What is done, drawn by the weights of their classes."""

    def __post_init__(self) -> None:
        names = [one.name for one in self.classes]
        for what, found in (("classes", names), ("tasks", [task.id for task in self.tasks])):
            if not found:
                raise ValueError(f"{what} is empty")
            if len(set(found)) < len(found):
                twice = next(one for one in found if found.count(one) > 1)
                raise ValueError(f"{what} has {twice!r} twice; name each once")
        for task in self.tasks:
            if task.slo_class not in names:
                raise ValueError(
                    f"task {task.id!r} is of class {task.slo_class!r}; classes are {', '.join(names)}"
                )
        if idle := set(names) - {task.slo_class for task in self.tasks}:
            raise ValueError(f"class {min(idle)!r} has no task; add one, or take the class out")

    def of(self, name: str) -> TaskClass:
        """The class of that name."""
        return next(one for one in self.classes if one.name == name)
