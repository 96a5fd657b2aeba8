"""@tool: a typed Python function as a tool. Schema from annotations and docstring."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import re
import threading
import typing
from collections.abc import Callable, Mapping
from typing import Any, overload

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, create_model

from pentad.agent.tool_events import Effects
from pentad.agent.tools.base import Example, Tool, ToolContext
from pentad.errors import ToolFailed

Function = Callable[..., Any]


@overload
def tool(function: Function) -> Tool: ...


@overload
def tool(
    *,
    name: str | None = None,
    effects: Effects = "unkeyed",
    timeout_s: float = 30.0,
    max_result_bytes: int = 16_384,
    cost: float = 0.0,
    at_once: int | None = None,
    examples: tuple[Example, ...] = (),
) -> Callable[[Function], Tool]: ...


def tool(function: Function | None = None, **options: Any) -> Any:
    """The tool that a function is.

    Every parameter needs an annotation; it becomes the argument's schema, checked and converted
    by pydantic. The docstring's first paragraph describes the tool, its `Args:` the parameters.
    A parameter annotated `ToolContext` is filled in by the runtime and hidden from the model.
    Plain functions run in a thread of their own: one that never returns is abandoned at its
    deadline (a thread cannot be killed), so put what may hang into a `command_tool`.

        @tool(effects="none")
        def add(a: int, b: int) -> int:
            "Adds two whole numbers."
            return a + b
    """
    if function is None:
        return lambda f: _build(f, **options)
    return _build(function)


def _build(function: Function, *, name: str | None = None, **options: Any) -> Tool:
    hints = typing.get_type_hints(function, include_extras=True)
    summary, documented = described(function)
    fields: dict[str, Any] = {}
    context_name: str | None = None
    called = name or function.__name__
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TypeError(f"tool {called!r}: parameter {parameter.name!r} cannot be passed by name")
        if parameter.name not in hints:
            raise TypeError(f"tool {called!r}: parameter {parameter.name!r} has no annotation")
        if hints[parameter.name] is ToolContext:
            context_name = parameter.name
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        field = Field(default, description=documented.get(parameter.name))
        fields[parameter.name] = (hints[parameter.name], field)
    model = create_model(called, __config__=ConfigDict(extra="forbid"), **fields)
    adapter: TypeAdapter[Any] = TypeAdapter(model)

    async def call(arguments: Mapping[str, Any], context: ToolContext) -> Any:
        try:
            checked = adapter.validate_python(dict(arguments))
        except ValidationError as error:
            raise ToolFailed(f"invalid arguments for {called!r}: {_worded(error)}") from None
        values = {name: getattr(checked, name) for name in fields}
        if context_name is not None:
            values[context_name] = context
        if inspect.iscoroutinefunction(function):
            return await function(**values)
        return await in_thread(lambda: function(**values))

    schema = adapter.json_schema()
    return Tool(name=called, description=summary, parameters=without_titles(schema), call=call, **options)


async def in_thread(work: Callable[[], Any]) -> Any:
    """The result of `work`, run in a daemon thread of its own that nobody waits for at exit."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: Any, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = context.run(work)
        except BaseException as raised:
            # StopIteration cannot travel through a future.
            error = RuntimeError(repr(raised)) if isinstance(raised, StopIteration) else raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="tool", daemon=True).start()
    return await done


def described(function: Function) -> tuple[str, dict[str, str]]:
    """The first paragraph of a function's docstring, and what its `Args:` say of each parameter."""
    text = inspect.getdoc(function) or ""
    summary = " ".join(text.split("\n\n")[0].split())
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", text, re.MULTILINE)
    documented: dict[str, str] = {}
    last = ""
    for line in (section[1] if section else "").splitlines():
        if match := re.match(r" {2,4}(\w+)(?: \([^)]*\))?: (.*)", line):
            last = match[1]
            documented[last] = match[2].strip()
        elif last and line.strip():
            documented[last] += " " + line.strip()
    return summary, documented


def without_titles(schema: Any) -> Any:
    """The schema without the titles that pydantic adds: they cost prompt tokens and say nothing."""
    if isinstance(schema, dict):
        return {
            k: (
                {n: without_titles(p) for n, p in v.items()}
                if k in ("properties", "$defs")
                else without_titles(v)
            )
            for k, v in schema.items()
            if not (k == "title" and isinstance(v, str))
        }
    return [without_titles(item) for item in schema] if isinstance(schema, list) else schema


def _worded(error: ValidationError) -> str:
    parts = []
    for item in error.errors(include_url=False, include_context=False, include_input=False)[:3]:
        where = ".".join(map(str, item["loc"])) or "arguments"
        parts.append(f"{where}: {item['msg'].lower()}")
    return "; ".join(parts)
