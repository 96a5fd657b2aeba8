"""Function files: functions that a model wrote, in versions; agents call them in their sandbox."""

from __future__ import annotations

import ast
import keyword
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from pentad.agent.tools.base import Tool, ToolContext, Truncated
from pentad.agent.tools.builtin.code import runner_in
from pentad.agent.tools.sandbox.base import Snippet
from pentad.agent.tools.schema import check_schema
from pentad.choice import Choice
from pentad.errors import InvalidRequest, PentadError
from pentad.json_text import parse_json

ENDING = ".functions.json"
_REFERENCE = re.compile(rf"(?P<path>.+{re.escape(ENDING)})(@(?P<version>\d+))?")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
_MOST_BYTES = 8 << 20
MOST_CODE = 4_000
"""Characters of one function."""
_TIMEOUT_S = 10.0
Outcome = Literal["initial", "kept", "rolled back"]


class LearnedFunction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Python function that a model wrote, and how another model is told of it."""

    name: str
    description: str
    parameters: dict[str, Any]
    """JSON Schema of type object."""
    code: str
    """Source that defines the function under its name."""


class FunctionEdit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that a version does to the one that it was made from."""

    action: Literal["add", "revise", "remove"]
    name: str
    why: str = ""
    """As the model said."""


class FunctionVersion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All functions at one time, and what came of the cases with them."""

    version: int
    source: int | None = None
    """The version that it was made from."""
    functions: tuple[LearnedFunction, ...] = ()
    edits: tuple[FunctionEdit, ...] = ()
    solved: int | None = None
    """Cases solved; None while it is tried."""
    cases: int = 0
    outcome: Outcome | None = None


class FunctionFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Versions of an agent's functions, oldest first; `current` is the one that agents call."""

    format: Literal["pentad-functions-1"] = "pentad-functions-1"
    current: int = 0
    versions: tuple[FunctionVersion, ...] = (FunctionVersion(version=0),)

    def version(self, number: int | None = None) -> FunctionVersion:
        """That version, or the current one. Raises InvalidRequest where there is none of that number."""
        wanted = self.current if number is None else number
        for one in self.versions:
            if one.version == wanted:
                return one
        known = ", ".join(str(one.version) for one in self.versions)
        raise InvalidRequest(f"there is no version {wanted} of the functions", hint=f"there are: {known}")

    def put(self, version: FunctionVersion, *, current: bool = False) -> FunctionFile:
        """The file with this version in the place of the one of its number, or as the newest."""
        others = tuple(one for one in self.versions if one.version != version.version)
        ordered = tuple(sorted((*others, version), key=lambda one: one.version))
        return FunctionFile(current=version.version if current else self.current, versions=ordered)

    def history(self, name: str) -> tuple[tuple[int, FunctionEdit, Outcome | None], ...]:
        """What was done to one function: version, edit and whether the version was kept."""
        return tuple(
            (one.version, edit, one.outcome)
            for one in self.versions
            for edit in one.edits
            if edit.name == name
        )


def is_function_file(entry: str) -> bool:
    """Whether an entry of `tools` names a function file, with or without a version."""
    return _REFERENCE.fullmatch(entry) is not None


def anchored_file(entry: str, folder: pathlib.Path) -> str:
    """The entry with its path absolute; a relative one counts from the folder."""
    match = _REFERENCE.fullmatch(entry)
    assert match is not None, "only function files come here"
    path = (folder / pathlib.Path(match["path"]).expanduser()).resolve()
    return f"{path}@{match['version']}" if match["version"] else str(path)


def read_functions(path: pathlib.Path) -> FunctionFile:
    """What the file holds. Raises InvalidRequest for one that cannot be read or is none of ours."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it is over {_MOST_BYTES >> 20} MiB")
        found = msgspec.convert(parse_json(path.read_bytes()), FunctionFile)
        for one in found.versions:
            for function in one.functions:
                if problem := fault(function):
                    raise ValueError(f"version {one.version}, {function.name!r}: {problem}")
        found.version()
    except (OSError, ValueError, msgspec.ValidationError, InvalidRequest) as error:
        problem = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InvalidRequest(
            f"function file {path.name!r} cannot be used: {problem}",
            hint="pentad train-tools AGENT CASES makes one",
            param="tools",
        ) from None
    return found


def write_functions(path: pathlib.Path, file: FunctionFile) -> None:
    """Puts the file there whole or not at all."""
    beside = path.with_name(f"{path.name}.new")
    with beside.open("wb") as out:
        out.write(msgspec.json.format(msgspec.json.encode(file), indent=1))
        out.flush()
        os.fsync(out.fileno())
    beside.replace(path)


def fault(function: LearnedFunction) -> str:
    """Why the function cannot be called; empty where it can. Its code is read and not run."""
    if not _NAME.fullmatch(function.name) or keyword.iskeyword(function.name):
        return "a name is 1 to 48 small letters, digits and underscores, and no word of Python's"
    if not function.description.strip():
        return "it has no description"
    if len(function.code) > MOST_CODE:
        return f"its code has {len(function.code)} characters, at most {MOST_CODE}"
    properties = function.parameters.get("properties", {})
    if function.parameters.get("type") != "object" or not isinstance(properties, Mapping):
        return "parameters is no JSON Schema of type object with properties"
    try:
        check_schema(function.name, function.parameters)
    except PentadError as error:
        return error.message
    try:
        tree = ast.parse(function.code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"its code is no Python: {error}"
    defined = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == function.name]
    if not defined:
        return f"its code defines no function {function.name!r}"
    arguments = defined[-1].args
    names = {each.arg for each in (*arguments.args, *arguments.kwonlyargs)}
    if arguments.kwarg is None and (missing := sorted(set(properties) - names)):
        return f"its code takes no argument {missing[0]!r}, which parameters has"
    if any(not isinstance(name, str) or not name.isidentifier() for name in properties):
        return "names of parameters are those of Python"
    return ""


def function_tools(entry: str, sandbox: Choice) -> list[Tool]:
    """The functions of an entry of `tools` as tools. Raises InvalidRequest for the file or the version."""
    match = _REFERENCE.fullmatch(entry)
    assert match is not None, "only function files come here"
    found = read_functions(pathlib.Path(match["path"]))
    version = found.version(int(match["version"]) if match["version"] else None)
    return [_tool(function, sandbox) for function in version.functions]


def _tool(function: LearnedFunction, chosen: Choice) -> Tool:
    run = runner_in(chosen, Snippet(language="python", text="", key=""))

    async def call(arguments: Mapping[str, Any], context: ToolContext) -> Truncated | str:
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        return await run(f"{function.code}\n\nprint({function.name}({given}))\n", context)

    schema = {**function.parameters, "additionalProperties": False}
    return Tool(
        name=function.name,
        description=function.description,
        parameters=schema,
        call=call,
        effects="none",
        timeout_s=_TIMEOUT_S,
    )
