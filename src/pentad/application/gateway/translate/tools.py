"""Tools and the choice among them, as the dialects of OpenAI and Anthropic share them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

from pentad.application.gateway.body import check_free_form
from pentad.application.gateway.schemas.chat import ChatRequest, FunctionSpec, ObjectToolChoice
from pentad.errors import InvalidRequest
from pentad.types import ToolChoice, ToolSpec


def chat_tools(body: ChatRequest) -> tuple[tuple[ToolSpec, ...], ToolChoice]:
    """The tools as the model sees them, and the choice among them, from `tools` or older `functions`."""
    if body.functions is not None:
        if body.tools:
            raise InvalidRequest("functions and tools were both sent", hint="send tools", param="functions")
        specs = function_specs(body.functions, "functions[{}]")
        if isinstance(body.function_call, str) or body.function_call is None:
            return specs, ToolChoice(mode=body.function_call or "auto", parallel=False)
        return specs, named_tool(body.function_call.name, specs, parallel=False, param="function_call")
    specs = function_specs([tool.function for tool in body.tools or ()], "tools[{}]")
    return _chosen(body.tool_choice, specs, parallel=body.parallel_tool_calls is not False)


def function_specs(wire: Sequence[FunctionSpec], where: str) -> tuple[ToolSpec, ...]:
    """The functions; `where` names each by its number."""
    return tuple(
        tool_spec(one.name, one.description, one.parameters, where.format(index))
        for index, one in enumerate(wire)
    )


def tool_spec(name: str, description: str | None, schema: dict[str, Any] | None, where: str) -> ToolSpec:
    """One tool; its schema is bounded before anything walks it."""
    if schema is None:
        return ToolSpec(name=name, description=description or "")
    check_free_form(schema, f"{where}.parameters")
    return ToolSpec(name=name, description=description or "", parameters=schema)


def _chosen(
    wire: str | ObjectToolChoice | None, tools: tuple[ToolSpec, ...], *, parallel: bool
) -> tuple[tuple[ToolSpec, ...], ToolChoice]:
    if not isinstance(wire, ObjectToolChoice):
        return tools, tool_choice(wire, tools, parallel=parallel)
    if wire.type == "allowed_tools":
        if wire.allowed_tools is None:
            raise InvalidRequest(
                "tool_choice 'allowed_tools' without allowed_tools", param="tool_choice.allowed_tools"
            )
        names = [tool.function.name for tool in wire.allowed_tools.tools]
        return allowed_tools(names, wire.allowed_tools.mode, tools, parallel=parallel)
    if wire.function is None:
        raise InvalidRequest("tool_choice 'function' without function", param="tool_choice.function")
    return tools, named_tool(wire.function.name, tools, parallel=parallel)


def tool_choice(wire: str | None, tools: Sequence[ToolSpec], *, parallel: bool) -> ToolChoice:
    """Whether tools may, must or must not be called; `required` needs tools."""
    if wire == "required" and not tools:
        raise InvalidRequest(
            "tool_choice 'required' without tools",
            hint="send tools, or tool_choice 'auto'",
            param="tool_choice",
        )
    match wire:
        case "none" | "required":
            return ToolChoice(mode=wire, parallel=parallel)
        case _:
            return ToolChoice(parallel=parallel)


def allowed_tools(
    names: Collection[str], mode: Literal["auto", "required"], tools: tuple[ToolSpec, ...], *, parallel: bool
) -> tuple[tuple[ToolSpec, ...], ToolChoice]:
    """Only the named tools, of which one may or must be called. The model is shown no others."""
    for name in names:
        named_tool(name, tools, parallel=parallel)
    return tuple(tool for tool in tools if tool.name in names), ToolChoice(mode=mode, parallel=parallel)


def named_tool(
    name: str, tools: Sequence[ToolSpec], *, parallel: bool, param: str = "tool_choice"
) -> ToolChoice:
    """The choice of exactly one tool, which must be among those sent."""
    known = [tool.name for tool in tools]
    if name not in known:
        raise InvalidRequest(
            f"{param} names {name[:64]!r}",
            hint=f"tools sent: {', '.join(known[:10]) or 'none'}",
            param=param,
        )
    return ToolChoice(mode="named", name=name, parallel=parallel)
