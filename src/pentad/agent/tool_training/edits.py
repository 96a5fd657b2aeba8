"""Edits of functions: the tools by which a model makes them, and what they make of the functions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pentad.agent.tools.base import Tool, ToolContext
from pentad.agent.tools.function_files import FunctionEdit, LearnedFunction, fault
from pentad.errors import ToolFailed

ADD, REVISE, REMOVE = "add_function", "revise_function", "remove_function"
EDITS = (ADD, REVISE, REMOVE)
_WHOLE: Mapping[str, Any] = {
    "name": {"type": "string", "description": "Small letters, digits and underscores"},
    "description": {"type": "string", "description": "What it does and when to call it, in one or two lines"},
    "parameters": {
        "type": "object",
        "description": "JSON Schema of type object, with properties and required",
    },
    "code": {
        "type": "string",
        "description": "Python that defines the function under that name; it returns the result. Standard "
        "library only, no files, no network",
    },
    "why": {"type": "string", "description": "What in the history this mends"},
}


class Bench:
    """The functions that are being edited in one epoch, and the edits so far; at most `most`.

    Args:
        reserved: names of the agent's other tools, which no function may have.
    """

    def __init__(
        self, functions: tuple[LearnedFunction, ...], reserved: frozenset[str], *, most: int
    ) -> None:
        self._functions = {one.name: one for one in functions}
        self._reserved = reserved
        self._most = most
        self.edits: list[FunctionEdit] = []

    @property
    def functions(self) -> tuple[LearnedFunction, ...]:
        """As they are now."""
        return tuple(self._functions.values())

    def edit(self, action: str, arguments: Mapping[str, Any]) -> str:
        """Makes an edit; what is said to the model. Raises ToolFailed for one that cannot be made."""
        if len(self.edits) >= self._most:
            raise ToolFailed(f"{self._most} edits have been made; say that you are done")
        name = str(arguments.get("name", ""))
        there = name in self._functions
        if action == ADD and (there or name in self._reserved):
            raise ToolFailed(f"there is a tool {name!r} already" + (f"; use {REVISE}" if there else ""))
        if action != ADD and not there:
            raise ToolFailed(
                f"there is no function {name!r}; there are: {', '.join(self._functions) or 'none'}"
            )
        if action == REMOVE:
            del self._functions[name]
        else:
            before = self._functions.get(name)
            given = {k: v for k, v in arguments.items() if k in ("description", "parameters", "code")}
            known = (
                {}
                if before is None
                else {f: getattr(before, f) for f in ("description", "parameters", "code")}
            )
            made = LearnedFunction(name=name, **{**known, **given})
            if problem := fault(made):
                raise ToolFailed(f"{name!r} cannot be taken: {problem}")
            self._functions[name] = made
        made_by = {ADD: "add", REVISE: "revise", REMOVE: "remove"}[action]
        self.edits.append(FunctionEdit(action=made_by, name=name, why=str(arguments.get("why", ""))))  # type: ignore[arg-type]
        return f"done; {self._most - len(self.edits)} edits left"


class EditTools:
    """The three tools, on whichever bench is set."""

    def __init__(self) -> None:
        self.bench: Bench | None = None

    def tools(self) -> tuple[Tool, ...]:
        """As an agent is given them."""
        return (
            self._tool(ADD, "Adds a function that the agent can call.", list(_WHOLE)),
            self._tool(REVISE, "Puts other code, parameters or description in a function's place.", ["name"]),
            self._tool(REMOVE, "Removes a function that does harm or is of no use.", ["name"]),
        )

    def _tool(self, action: str, about: str, required: list[str]) -> Tool:
        fields = ("name", "why") if action == REMOVE else tuple(_WHOLE)

        async def call(arguments: Mapping[str, Any], _: ToolContext) -> str:
            if self.bench is None:
                raise ToolFailed("no functions are being edited now")
            return self.bench.edit(action, arguments)

        return Tool(
            name=action,
            description=about,
            parameters={
                "type": "object",
                "properties": {name: _WHOLE[name] for name in fields},
                "required": [name for name in required if name != "why"],
                "additionalProperties": False,
            },
            call=call,
            # What is edited is memory of this process until the epoch ends.
            effects="none",
        )


def told_functions(functions: tuple[LearnedFunction, ...]) -> str:
    """All functions as the model that edits them reads them."""
    if not functions:
        return "There are no functions yet."
    return "\n\n".join(
        f"### {one.name}\n{one.description}\nparameters: {json.dumps(one.parameters)}\n{one.code}"
        for one in functions
    )
