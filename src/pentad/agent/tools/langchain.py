"""LangChain's chains and tools as ours, and ours as LangChain's; needs the package langchain-core."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pentad.agent.tool_events import Effects
from pentad.agent.tools.base import Dated, Sourced, Tool, ToolContext, Truncated
from pentad.agent.tools.functions import without_titles
from pentad.errors import ToolFailed

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable
    from langchain_core.tools import BaseTool

LONE = "input"
"""The argument of a chain whose input is no object."""


def from_langchain(
    runnable: Runnable[Any, Any],
    *,
    name: str | None = None,
    description: str | None = None,
    effects: Effects = "unkeyed",
    timeout_s: float = 30.0,
) -> Tool:
    """The tool that a chain, or a tool of LangChain's, is.

    Its input's JSON Schema is the arguments'; an input that is no object is the argument `input`. What it
    returns is the result: a message by its content, a model of pydantic's by its fields.

    Args:
        name: a tool of LangChain's brings its own, a chain needs one.
        description: what the model is told; likewise.
        effects: of a call, see Tool; LangChain does not say.

    Raises:
        ValueError: a chain without name or description.
    """
    is_tool = hasattr(runnable, "args_schema")
    schema = _tool_schema(runnable) if is_tool else dict(runnable.get_input_jsonschema())
    name = name or (runnable.name if is_tool else None)
    description = description or getattr(runnable, "description", None)
    if not name or not description:
        raise ValueError("a chain has no name or description of its own; give both")
    lone = schema.get("type") != "object"
    if lone:
        definitions = {"$defs": schema.pop("$defs")} if "$defs" in schema else {}
        schema = {"type": "object", "properties": {LONE: schema}, "required": [LONE], **definitions}

    async def call(arguments: Mapping[str, Any], _: ToolContext) -> Any:
        return _plain_result(await runnable.ainvoke(arguments[LONE] if lone else dict(arguments)))

    return Tool(
        name=name,
        description=description,
        parameters=without_titles(schema),
        call=call,
        effects=effects,
        timeout_s=timeout_s,
    )


def to_langchain(tool: Tool) -> BaseTool:
    """One of our tools for chains and agents of LangChain's; a failure is its ToolException.

    Nothing journals its calls there: repetitions are up to the chain.
    """
    from langchain_core.tools import StructuredTool, ToolException

    async def call(**arguments: Any) -> str:
        context = ToolContext(
            key=uuid.uuid4().hex, run_id="", tenant="", agent="langchain", deadline_s=float("inf")
        )
        try:
            return _text(await tool.call(arguments, context))
        except ToolFailed as error:
            raise ToolException(str(error)) from error

    return StructuredTool.from_function(
        coroutine=call,
        name=tool.name,
        description=tool.description,
        args_schema=json.loads(json.dumps(tool.parameters, default=dict)),
    )


def _tool_schema(tool: Any) -> dict[str, Any]:
    """The arguments of a tool of LangChain's as the model is shown them."""
    schema = tool.tool_call_schema
    found = schema if isinstance(schema, dict) else schema.model_json_schema()
    return {"type": "object", **found}


def _plain_result(result: Any) -> Any:
    if hasattr(result, "content"):
        return result.content
    if hasattr(result, "model_dump"):
        return result.model_dump(mode="json")
    return result


def _text(result: Any) -> str:
    match result:
        case Dated() | Sourced():
            return _text(result.content)
        case Truncated():
            return result.data.decode("utf-8", "replace")
        case bytes():
            return result.decode("utf-8", "replace")
        case str():
            return result
    return json.dumps(result, ensure_ascii=False, default=str)
