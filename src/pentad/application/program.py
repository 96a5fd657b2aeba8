"""Program: what a program and a model write together, of which parts are generated, chosen and branched.

from pentad.api import Model

async with Model() as model:
    program = model.program()
    program.user("Name a fruit, and say whether it is sweet.")
    fruit = await program.gen("fruit", max_tokens=8)
    program.user("Is it sweet?")
    sweet = await program.select("sweet", ["yes", "no"])
"""

from __future__ import annotations

import asyncio
import itertools
import re
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Self

from pentad.application.config import Settings
from pentad.application.library import opened
from pentad.application.services import Services
from pentad.errors import BackendFailed, Conflict, InvalidRequest
from pentad.execution.backend import Completion
from pentad.types import Hints, Message, OutputFormat, Request, RunContext, Sampling, Usage

_GOES_ON: Final = Hints(next="model")
Normalized = Literal["tokens", "none"]
"""Whether likelihoods are compared per token, so that long options are at no disadvantage, or as wholes."""


class Model:
    """A model that programs write with; open it with `async with`.

    Args:
        name: of a served model; empty takes the first of the settings.
        settings: of the process, as in pentad.yaml: a model of this machine, or an endpoint elsewhere.
            Ignored with `service`.
        service: what an agent or the wiring has opened; shared, and not closed here.
    """

    def __init__(
        self,
        name: str = "",
        *,
        settings: Settings | Mapping[str, Any] | None = None,
        service: Services | None = None,
    ) -> None:
        self.name = name
        self._settings = settings
        self._service = service
        self._undo = AsyncExitStack()

    async def __aenter__(self) -> Self:
        if self._service is None:
            self._service = await self._undo.enter_async_context(opened(self._settings))
            self._undo.callback(setattr, self, "_service", None)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._undo.aclose()

    def program(self, text: str = "", *, tenant: str = "default", priority: int = 0) -> Program:
        """A new program, which begins with `text`, or as a conversation where there is none.

        Raises Conflict where the model is not open.
        """
        return Program(self, text, tenant=tenant, priority=priority)

    @property
    def service(self) -> Services:
        """What it runs on. Raises Conflict where it is not open."""
        if self._service is None:
            raise Conflict("the model is not open", hint="write: async with Model(...) as model")
        return self._service


@dataclass(slots=True)
class _Family:
    """What a program and its branches have in common."""

    run_id: str = field(default_factory=lambda: f"program-{uuid.uuid4().hex[:12]}")
    steps: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    usage: list[Usage] = field(default_factory=list)


class Program:
    """A text that grows: by what the caller adds, and by what a model generates or chooses.

    Whatever comes later begins with all that was there before, so each call finds it in the prefix cache, and
    so do all branches. A program is text, or a conversation from its first `system` or `user` on; what is
    added or generated in a conversation is the assistant's. Calls of one program come one after the other,
    those of its branches at once.

    Source: SGLang (Zheng et al., 2024, section 2: gen, select, fork, join). Our difference: plain objects and
    `await` in the place of an interpreter and streams of instructions; a fork computes the common prefix
    once, before the branches begin; a selection scores an option while its grammar forces it, so that the
    cached prefix serves.
    """

    def __init__(self, model: Model, text: str = "", *, tenant: str = "default", priority: int = 0) -> None:
        self._model = model
        self._models = model.service.models
        self._tenant = tenant
        self._priority = priority
        self._text = text
        self._messages: tuple[Message, ...] = ()
        self._family = _Family()
        self._parent: str | None = None
        self._cached = ""
        """What the model has computed, to know whether a fork has anything to compute."""
        self.values: dict[str, Any] = {}
        """What was generated, chosen and joined, by its name."""
        self.scores: dict[str, dict[str, float]] = {}
        """Of each selection, the log likelihood of every option."""

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @property
    def text(self) -> str:
        """All of it; of a conversation, each turn behind its role."""
        turns = (f"{message.role}: {message.content}" for message in self._messages)
        return "\n".join(turns) if self._messages else self._text

    @property
    def usage(self) -> Usage:
        """Tokens of all calls, those of branches included."""
        every = self._family.usage
        return Usage(
            prompt_tokens=sum(one.prompt_tokens for one in every),
            cached_tokens=sum(one.cached_tokens for one in every),
            completion_tokens=sum(one.completion_tokens for one in every),
        )

    def system(self, text: str) -> Self:
        """Adds a turn of the system. Raises InvalidRequest in a program that began as text."""
        return self._turn(Message(role="system", content=text))

    def user(self, text: str) -> Self:
        """Adds a turn of the user. Raises InvalidRequest in a program that began as text."""
        return self._turn(Message(role="user", content=text))

    def add(self, text: str) -> Self:
        """Adds text; in a conversation the assistant says it."""
        if not self._messages:
            self._text += text
        elif self._messages[-1].role == "assistant":
            last = self._messages[-1]
            self._messages = (*self._messages[:-1], replace(last, content=last.content + text))
        else:
            self._messages += (Message(role="assistant", content=text),)
        return self

    async def gen(
        self,
        name: str | None = None,
        *,
        max_tokens: int = 128,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int | None = None,
        regex: str | None = None,
        schema: Mapping[str, Any] | None = None,
    ) -> str:
        """Generates what comes next, adds it and returns it.

        Args:
            name: under which `values` keeps it.
            max_tokens, stop, temperature, seed: as of any request; 0 is greedy.
            regex: that the text matches in whole; schema: JSON Schema of the JSON that it is.

        Raises:
            InvalidRequest: regex and schema are both given, or a schema behind an assistant's turn that has
                begun, which would have to be JSON from its beginning.
            And what any request raises, as ContextLengthExceeded, Overloaded.
        """
        sampling = Sampling(
            max_tokens=max_tokens, stop=tuple(stop), temperature=temperature, seed=seed, fit_max_tokens=True
        )
        done = await self._ask(sampling, self._format(regex, schema))
        text = done.message.content
        self.add(text)
        self._cached = self.text
        if name is not None:
            self.values[name] = text
        return text

    async def select(
        self, name: str | None, options: Sequence[str], *, normalized: Normalized = "tokens"
    ) -> str:
        """Adds the option that the model finds most likely here, and returns it.

        Every option is scored as it would be continued token by token; ties go to the first.

        Raises InvalidRequest without options, or where two are equal or one is empty.
        """
        if not options or not all(options) or len(set(options)) < len(options):
            raise InvalidRequest(
                f"select among {list(options)!r}", hint="give one or more different texts", param="options"
            )
        await self._compute(len(options))
        scores = await asyncio.gather(*(self._likelihood(one, normalized) for one in options))
        best = max(range(len(options)), key=lambda i: (scores[i], -i))
        self.add(options[best])
        if name is not None:
            self.values[name] = options[best]
            self.scores[name] = dict(zip(options, scores, strict=True))
        return options[best]

    async def fork(self, branches: int) -> tuple[Program, ...]:
        """So many programs that go on from here, whose common text is computed once.

        Raises InvalidRequest for fewer than one.
        """
        if branches < 1:
            raise InvalidRequest(f"fork into {branches} branches", hint="give 1 or more", param="branches")
        await self._compute(branches)
        return tuple(self._branch() for _ in range(branches))

    def join(self, *branches: Program) -> Self:
        """Takes the values of branches over: under each name, the list of what they have, in their order.

        What they wrote is not added; add of it what the program is to go on with.
        """
        names = dict.fromkeys(name for branch in branches for name in branch.values)
        for name in names:
            found = [branch.values[name] for branch in branches if name in branch.values]
            if any(name not in self.values or one is not self.values[name] for one in found):
                self.values[name] = found
        return self

    def _turn(self, message: Message) -> Self:
        if self._text:
            raise InvalidRequest(
                f"a program that began as text has no turn of the {message.role}",
                hint="begin with model.program() and no text, or add() text",
            )
        self._messages += (message,)
        return self

    def _branch(self) -> Program:
        branch = Program(self._model, self._text, tenant=self._tenant, priority=self._priority)
        branch._messages, branch._family = self._messages, self._family
        branch._parent, branch._cached = self._parent, self._cached
        branch.values, branch.scores = dict(self.values), dict(self.scores)
        return branch

    @property
    def _begun(self) -> str:
        """What the assistant has said of its turn."""
        last = self._messages[-1] if self._messages else None
        return last.content if last is not None and last.role == "assistant" else ""

    def _format(self, regex: str | None, schema: Mapping[str, Any] | None) -> OutputFormat:
        """A format of an assistant's turn covers all of it, also what it has said already."""
        if regex is not None and schema is not None:
            raise InvalidRequest("regex and schema are both given", hint="give one of them", param="regex")
        if regex is not None:
            return OutputFormat(kind="regex", value=re.escape(self._begun) + f"(?:{regex})")
        if schema is None:
            return OutputFormat()
        if self._begun:
            raise InvalidRequest(
                "a schema cannot begin within an assistant's turn that has text already",
                hint="add a turn of the user first, or write a program of text: model.program('...')",
                param="schema",
            )
        return OutputFormat(kind="json_schema", value=schema)

    async def _compute(self, uses: int) -> None:
        """Lets a model of this machine compute what is new, which `uses` calls then find."""
        new = self.text != self._cached and (self._messages or self._text)
        served = self._models.served.backend(self._model.name)
        if uses > 1 and new and not served.capabilities.remote:
            await self._ask(Sampling(max_tokens=0), OutputFormat(), hints=Hints(next="model", fan_out=uses))
            self._cached = self.text

    async def _likelihood(self, option: str, normalized: Normalized) -> float:
        sampling = Sampling(temperature=0.0, logprobs=0, fit_max_tokens=True)
        done = await self._ask(
            sampling, OutputFormat(kind="choice", value=[self._begun + option]), keep=False
        )
        logprobs = done.choices[0].logprobs
        if not logprobs:
            raise BackendFailed(
                f"model {self._model.name!r} reports no log probabilities to select by",
                hint="choose a model of this machine, or gen() with a regex",
            )
        total = sum(one.logprob for one in logprobs)
        return total / len(logprobs) if normalized == "tokens" else total

    async def _ask(
        self, sampling: Sampling, format: OutputFormat, *, hints: Hints = _GOES_ON, keep: bool = True
    ) -> Completion:
        step = next(self._family.steps)
        request = Request(
            id=f"{self._family.run_id}-{step}",
            model=self._model.name,
            messages=self._messages or None,
            continues=bool(self._begun),
            text=None if self._messages else self._text,
            format=format,
            sampling=sampling,
            tenant=self._tenant,
            priority=self._priority,
            context=RunContext(run_id=self._family.run_id, step=step, parent=self._parent, hints=hints),
        )
        done = await self._models.complete(request)
        if keep:
            self._parent = request.id
        self._family.usage.append(done.usage)
        return done
