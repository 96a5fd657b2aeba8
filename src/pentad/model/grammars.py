"""Grammars for llguidance: what an answer may look like, checked against bombs before it is compiled.

Pure functions from requests to grammar sources. A source is llguidance's JSON form: a list of
named grammars, of which the first is the start.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llguidance import LLMatcher
from llguidance.gbnf_to_lark import any_to_lark

from pentad.errors import Incompatible, InvalidRequest
from pentad.model.lark import Lark, Part, schema_part
from pentad.model.reasoning.base import ReasoningFormat
from pentad.model.schema_repair import plain
from pentad.model.schemas import GrammarLimits, checked_schema, closed, over, refuse_surrogates
from pentad.model.toolcalls.base import ToolFormat
from pentad.types import OutputFormat, ToolChoice, ToolSpec

ANSWER = "answer"
MAX_PARALLEL_CALLS = 8


@dataclass(frozen=True, slots=True)
class Lead:
    """The reasoning that may stand in front of an answer."""

    format: ReasoningFormat
    opened: bool
    """Whether the prompt ends inside it."""


def answer_parts(format: OutputFormat, limits: GrammarLimits) -> tuple[Part, ...]:
    """The grammars that an answer's text may follow, the closest first; none when any text will do.

    An object that lists its properties is closed unless its schema says otherwise, in the first of them.

    Raises:
        InvalidRequest: over a limit, malformed, or with a reference that leaves the schema.
    """
    match format.kind:
        case "text":
            return ()
        case "json_object" if format.value is None:
            return (schema_part(ANSWER, {"type": "object"}, lenient=False),)
        case "json_object" | "json_schema":
            schema = plain(checked_schema(format.value, limits, "response_format"))
            if (
                format.kind == "json_object"
                and not {"type", "$ref", "anyOf", "oneOf", "allOf"} & schema.keys()
            ):
                schema["type"] = "object"
            forms = [closed(schema), schema]
            return tuple(
                schema_part(ANSWER, form, lenient=False) for form in forms[: 1 + (forms[0] != forms[1])]
            )
        case "regex":
            return ({"name": ANSWER, "lark_grammar": _regex(format.value, limits)},)
        case "choice":
            return ({"name": ANSWER, "lark_grammar": _choice(format.value, limits)},)
        case "grammar":
            return ({"name": ANSWER, "lark_grammar": _lark(format.value, limits)},)


def offered_by(tools: Sequence[ToolSpec], choice: ToolChoice, limits: GrammarLimits) -> list[ToolSpec]:
    """The tools that a call may name. Raises InvalidRequest for too many, or none of the name asked for."""
    if len(tools) > limits.tools:
        raise InvalidRequest(
            f"{len(tools)} tools are offered, at most {limits.tools} are possible",
            hint="offer fewer `tools`",
            param="tools",
        )
    offered = [tool for tool in tools if choice.mode != "named" or tool.name == choice.name]
    if not offered:
        raise InvalidRequest(
            f"tool_choice names {choice.name!r}, which is not among the tools",
            hint=f"name one of: {', '.join(tool.name for tool in tools)}",
            param="tool_choice",
        )
    return offered


def source(parts: Sequence[Part]) -> str:
    """The parts as one source; the first is the start. Raises InvalidRequest for text that is no Unicode."""
    text = json.dumps({"grammars": list(parts)}, ensure_ascii=False)
    refuse_surrogates(text, "response_format")
    return text


def call_parts(
    format: ToolFormat,
    names: Sequence[str],
    schemas: Sequence[Mapping[str, Any]],
    choice: ToolChoice,
    answer: Part | None,
    special: Mapping[str, int],
    lead: Lead | None = None,
) -> list[Part]:
    """The grammar of a turn that may or must call tools.

    With mode `auto` the text is free until a call begins, with its opening mark or without; from there on
    the call is bound to the tool's schema, and nothing but further calls may follow. Beside an answer's
    grammar only the opening mark makes a call, since an answer may look like one.

    Args:
        format: how this model writes calls.
        names: the tools that a call may name; at least one.
        schemas: of their arguments.
        choice: whether calls are free, required or of one named tool.
        answer: the grammar of a turn without calls; None for free text.
        special: control tokens by text, for formats that use them.
        lead: the reasoning in front; None where there can be none.
    """
    if answer is not None and choice.mode == "auto" and not format.opening:
        raise Incompatible(
            f"models that write calls as {format.name!r} cannot choose between a call and a formatted answer",
            hint="set `tool_choice` to required or none, or leave `response_format` out",
            param="tool_choice",
        )
    lark = Lark(special)
    tools = list(zip(names, schemas, strict=True))
    lines = _calls(format, tools, choice, lark)
    final = _final(lead, lark)
    if choice.mode != "auto":
        lines.append(f"body: {lark.literal(format.opening)} calls")
    elif answer is not None:
        lines.append(f"body: {final} @{ANSWER} | {lark.literal(format.opening)} calls")
    elif lead is not None and lead.format.messages:
        lines.append(f"body: {final} TEXT | {lark.literal(format.opening)} calls")
        lines.append("TEXT: /(.|\\n)*/")
    else:
        lines += _free_text(format, tools, lark, lead)
    main = _main(lines, lark, lead)
    return [main, *([answer] if answer and choice.mode == "auto" else []), *lark.parts]


def led_parts(answer: Part, special: Mapping[str, int], lead: Lead) -> list[Part]:
    """The grammar of an answer behind reasoning."""
    lark = Lark(special)
    lines = [f"body: {_final(lead, lark)} @{ANSWER}"]
    return [_main(lines, lark, lead), answer]


def _main(lines: list[str], lark: Lark, lead: Lead | None) -> Part:
    start = "start: body" if lead is None else f"start: {lead.format.prefix(lark, opened=lead.opened)} body"
    return {"lark_grammar": "\n".join(["%llguidance {}", start, *lines, *lark.lines])}


def _final(lead: Lead | None, lark: Lark) -> str:
    """What stands in front of an answer's text where every message has a header."""
    return lark.literal(lead.format.final) if lead is not None else ""


Tools = Sequence[tuple[str, Mapping[str, Any]]]
"""Name and schema of each."""


def _calls(format: ToolFormat, tools: Tools, choice: ToolChoice, lark: Lark) -> list[str]:
    """The rules `calls` and `call`, and those that they refer to."""
    forms = " | ".join(format.call_grammar(name, schema, lark) for name, schema in tools)
    several = choice.parallel and format.parallel
    more = f" ({lark.literal(format.between)} call){{0,{MAX_PARALLEL_CALLS - 1}}}" if several else ""
    calls = f"calls: {lark.literal(format.before)} call{more} {lark.literal(format.after)}"
    return [calls, f"call: {forms}"]


def _free_text(format: ToolFormat, tools: Tools, lark: Lark, lead: Lead | None) -> list[str]:
    """Lark for free text until a call begins.

    Many models leave the opening out and answer with the bare call. Where the format says what that looks
    like, such an answer is a call too: the text rule leaves exactly those out.
    """
    starts, lines = ["TEXT"], []
    free = "/(.|\\n)*/"
    if (bare := format.bare(tools, lark)) is not None:
        starts.append("bare")
        lines.append(f"bare: {bare.body}")
        free += f" & ~/{bare.excluded}(.|\\n)*/"
    if lead is not None and not lead.opened and (thought := lead.format.excluded(lark)):
        free += f" & ~/{thought}(.|\\n)*/"
    if not format.opening:
        starts.append("calls")
    elif lark.has_token(format.opening):
        starts.append(f"TEXT {lark.literal(format.opening)} calls")
    else:
        starts.append("head calls")
        lines.append(f"head[lazy]: TEXT {lark.literal(format.opening)}")
    return [f"body: {' | '.join(starts)}", f"TEXT: {free}", *lines]


def _regex(pattern: Any, limits: GrammarLimits) -> str:
    text = _text(pattern, "regex", limits.regex_chars)
    # The whole answer is matched, so anchors at the ends say nothing new; llguidance has none.
    text = text.removeprefix("^")
    if text.endswith("$") and not text.endswith("\\$"):
        text = text[:-1]
    lark: str = json.loads(LLMatcher.grammar_from_regex(text))["grammars"][0]["lark_grammar"]
    return lark


def _choice(choices: Any, limits: GrammarLimits) -> str:
    if not isinstance(choices, (list, tuple)) or not choices or not all(isinstance(c, str) for c in choices):
        raise InvalidRequest(
            "a choice needs a list of at least one text", hint="send strings", param="response_format"
        )
    if len(choices) > limits.choices or sum(map(len, choices)) > limits.grammar_chars:
        raise over("response_format", "has more than", limits.choices, "choices, or too long ones")
    return "start: " + " | ".join(json.dumps(c, ensure_ascii=False) for c in choices)


def _lark(grammar: Any, limits: GrammarLimits) -> str:
    text = _text(grammar, "grammar", limits.grammar_chars)
    for reference in re.findall(r'"\$ref"\s*:\s*"([^"]*)"', text):
        if not reference.startswith("#"):
            raise InvalidRequest(
                f"the grammar refers to {reference[:100]!r} by $ref; only references within are read",
                hint="copy the definition into the grammar",
                param="response_format",
            )
    try:
        lark: str = any_to_lark(text)
    except RecursionError:
        raise InvalidRequest(
            "the grammar nests too deep", hint="name its parts in rules of their own", param="response_format"
        ) from None
    except Exception as error:  # the converter raises plain Exception
        raise InvalidRequest(
            f"the grammar is neither Lark nor GBNF: {_short(error)}", hint="fix it", param="response_format"
        ) from error
    return lark


def _text(value: Any, what: str, most: int) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"a {what} must be a text", hint="send a string", param="response_format")
    refuse_surrogates(value, "response_format")
    if len(value) > most:
        raise over("response_format", f"has a {what} of more than", most, "characters")
    return value


def _short(error: object) -> str:
    return " ".join(str(error).split())[:300]
