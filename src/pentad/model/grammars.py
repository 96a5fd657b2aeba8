"""Grammars for llguidance: what an answer may look like, checked against bombs before it is compiled.

Pure functions from requests to grammar sources. A source is llguidance's JSON form: a list of
named grammars, of which the first is the start.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llguidance import LLMatcher
from llguidance.gbnf_to_lark import any_to_lark

from pentad.errors import Incompatible, InvalidRequest
from pentad.model.schema_repair import plain
from pentad.model.schemas import GrammarLimits, checked_schema, closed, over, refuse_surrogates
from pentad.model.toolcalls.base import ToolFormat, spelled
from pentad.types import OutputFormat, ToolChoice, ToolSpec

ANSWER = "answer"
MAX_PARALLEL_CALLS = 8
JSON_SPACE = r" {1,2}|\r?\n( {0,40}|\t{0,10})"
"""White space that may stand between the parts of a JSON text: what models write by themselves, a space or
a new line with its indentation, and no more, so that a weak model cannot lose itself in it."""
_S = r"[ \t\r\n]*"
BARE_START = rf'{_S}(```(json)?{_S})?\{{{_S}(\{{{_S})?"name"{_S}:{_S}'
"""A regular expression for a call without its opening mark, up to the name: bare, in a code fence, or with
its braces doubled. The parser reads the same."""


Part = dict[str, Any]
"""One named grammar of a source."""


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
            return (_schema_part(ANSWER, {"type": "object"}, lenient=False),)
        case "json_object" | "json_schema":
            schema = plain(checked_schema(format.value, limits, "response_format"))
            if (
                format.kind == "json_object"
                and not {"type", "$ref", "anyOf", "oneOf", "allOf"} & schema.keys()
            ):
                schema["type"] = "object"
            forms = [closed(schema), schema]
            return tuple(
                _schema_part(ANSWER, form, lenient=False) for form in forms[: 1 + (forms[0] != forms[1])]
            )
        case "regex":
            return ({"name": ANSWER, "lark_grammar": _regex(format.value, limits)},)
        case "choice":
            return ({"name": ANSWER, "lark_grammar": _choice(format.value, limits)},)
        case "grammar":
            return ({"name": ANSWER, "lark_grammar": _lark(format.value, limits)},)


def arguments_part(name: str, schema: Mapping[str, Any]) -> Part:
    """The grammar of one tool's arguments; keywords that cannot be enforced are warned of."""
    return _schema_part(name, schema, lenient=True)


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
    """
    if answer is not None and choice.mode == "auto" and not format.opening:
        raise Incompatible(
            f"models that write calls as {format.name!r} cannot choose between a call and a formatted answer",
            hint="set `tool_choice` to required or none, or leave `response_format` out",
            param="tool_choice",
        )
    main = {"lark_grammar": _calls_lark(format, names, choice, answer, special)}
    parts = [arguments_part(f"args{i}", schema) for i, schema in enumerate(schemas)]
    return [main, *([answer] if answer and choice.mode == "auto" else []), *parts]


def _calls_lark(
    format: ToolFormat,
    names: Sequence[str],
    choice: ToolChoice,
    answer: Part | None,
    special: Mapping[str, int],
) -> str:
    def literal(text: str) -> str:
        return _literal(text, special)

    objects = " | ".join(
        f'{literal(format.object_start(name))} @args{i} "}}"' for i, name in enumerate(names)
    )
    more = f" ({literal(format.between)} object){{0,{MAX_PARALLEL_CALLS - 1}}}" if choice.parallel else ""
    lines = [
        "%llguidance {}",
        f"calls: {literal(format.before)} object{more} {literal(format.after)}",
        f"object: {objects}",
    ]
    opening = literal(format.opening)
    if choice.mode != "auto":
        lines.append(f"start: {opening} calls")
    elif answer is not None:
        lines.append(f"start: @{ANSWER} | {opening} calls")
    else:
        lines += _free_text(format, names, opening, format.opening in special)
    return "\n".join(lines)


def _free_text(format: ToolFormat, names: Sequence[str], opening: str, is_token: bool) -> list[str]:
    """Lark for free text until a call begins.

    Many models leave the opening out and answer with the bare object, often in a code fence. Such
    an answer is a call too if it names an offered tool: the text rule leaves exactly those out.
    """
    starts = ["TEXT"]
    if not format.opening:
        starts.append("calls")
    elif is_token:
        starts.append(f"TEXT {opening} calls")
    else:
        starts.append("head calls")
    # Where calls have no opening, an object with any name is one; elsewhere it may be an answer.
    listed = [_escaped(spelled(name)) for name in names]
    named = f"({'|'.join(listed)})" if format.opening else '"'
    key = _escaped(spelled(format.arguments_key))
    return [
        f"start: {' | '.join(starts)} | bare",
        rf"TEXT: /(.|\n)*/ & ~/{BARE_START}{named}(.|\n)*/",
        *([] if is_token or not format.opening else [f"head[lazy]: TEXT {opening}"]),
        "bare: (" + " | ".join(f"BARE{i} KEY @args{i}" for i in range(len(names))) + ") BARE_END",
        *(f"BARE{i}: /{BARE_START}{name}/" for i, name in enumerate(listed)),
        f"KEY: /{_S},{_S}{key}{_S}:{_S}/",
        rf"BARE_END: /({_S}\}}){{1,2}}({_S}```)?/",
    ]


def _escaped(text: str) -> str:
    """Exactly this text within a regular expression within Lark."""
    return "".join(c if (c.isascii() and c.isalnum()) or c in '_"' else rf"\x{{{ord(c):x}}}" for c in text)


def _literal(text: str, special: Mapping[str, int]) -> str:
    """Lark for exactly this text; control tokens in it by their number."""
    if not text:
        return ""
    names = [re.escape(name) for name in special if name in text]
    pieces = re.split(f"({'|'.join(names)})", text) if names else [text]
    return " ".join(
        f"<[{special[piece]}]>" if piece in special else json.dumps(piece) for piece in pieces if piece
    )


def _schema_part(name: str, schema: Mapping[str, Any], *, lenient: bool) -> Part:
    options: dict[str, Any] = {
        "whitespace_flexible": True,
        "whitespace_pattern": JSON_SPACE,
        "lenient": lenient,
    }
    return {"name": name, "json_schema": {**schema, "x-guidance": {**options, "coerce_one_of": lenient}}}


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
