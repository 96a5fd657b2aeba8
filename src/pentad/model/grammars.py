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
from pentad.model.schemas import GrammarLimits, checked_schema, closed, over, refuse_surrogates
from pentad.model.toolcalls.base import ITEM_SEPARATOR, KEY_SEPARATOR, ToolFormat
from pentad.types import OutputFormat, ToolChoice, ToolSpec

ANSWER = "answer"
MAX_PARALLEL_CALLS = 8
PLAIN_NAME = re.compile(r"[A-Za-z0-9_./:-]{1,128}")
BARE_START = r'(\s{0,8}```(json)?)?\s{0,8}\{\s{0,8}"name"\s?:\s?'
"""A call without its opening mark, up to the name."""


Part = dict[str, Any]
"""One named grammar of a source."""


def answer_part(format: OutputFormat, limits: GrammarLimits) -> Part | None:
    """The grammar of the answer's text; None when any text will do.

    JSON is compact, without optional white space, so that a weak model cannot lose itself in spaces.
    An object that lists its properties is closed unless its schema says otherwise.

    Raises:
        InvalidRequest: over a limit, malformed, or with a reference that leaves the schema.
    """
    match format.kind:
        case "text":
            return None
        case "json_object":
            return _schema_part(ANSWER, {"type": "object"}, compact=True, lenient=False)
        case "json_schema":
            schema = checked_schema(format.value, limits, "response_format")
            return _schema_part(ANSWER, closed(schema), compact=True, lenient=False)
        case "regex":
            return {"name": ANSWER, "lark_grammar": _regex(format.value, limits)}
        case "choice":
            return {"name": ANSWER, "lark_grammar": _choice(format.value, limits)}
        case "grammar":
            return {"name": ANSWER, "lark_grammar": _lark(format.value, limits)}


def source(parts: Sequence[Part]) -> str:
    """The parts as one source; the first is the start. Raises InvalidRequest for text that is no Unicode."""
    text = json.dumps({"grammars": list(parts)}, ensure_ascii=False)
    refuse_surrogates(text, "response_format")
    return text


def call_parts(
    format: ToolFormat,
    tools: Sequence[ToolSpec],
    choice: ToolChoice,
    answer: Part | None,
    special: Mapping[str, int],
    limits: GrammarLimits,
) -> list[Part]:
    """The grammar of a turn that may or must call tools.

    With mode `auto` the text is free (or follows `answer`) until a call begins; from there on the
    call is bound to the tool's schema, and nothing but further calls may follow.

    Args:
        format: how this model writes calls.
        tools: those offered; at least one.
        choice: whether calls are free, required or of one named tool.
        answer: the grammar of a turn without calls; None for free text.
        special: control tokens by text, for formats that use them.
        limits: what may be asked.
    """
    if answer is not None and choice.mode == "auto" and not format.opening:
        raise Incompatible(
            f"models that write calls as {format.name!r} cannot choose between a call and a formatted answer",
            hint="set `tool_choice` to required or none, or leave `response_format` out",
            param="tool_choice",
        )
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
    schemas: list[Part] = []
    for i, tool in enumerate(offered):
        schema = checked_schema(tool.parameters or {"type": "object"}, limits, f"tools[{i}].parameters")
        schemas.append(_schema_part(f"args{i}", closed(schema), compact=False, lenient=True))
    main = {"lark_grammar": _calls_lark(format, [tool.name for tool in offered], choice, answer, special)}
    return [main, *([answer] if answer and choice.mode == "auto" else []), *schemas]


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
    bare = [i for i, name in enumerate(names) if PLAIN_NAME.fullmatch(name)]
    lines = []
    starts = ["TEXT"]
    if not format.opening:
        starts.append("calls")
    elif is_token:
        starts.append(f"TEXT {opening} calls")
    else:
        starts.append("head calls")
        lines.append(f"head[lazy]: TEXT {opening}")
    text = r"/(.|\n)*/"
    if bare:
        # Where calls have no opening, an object with any name is one; elsewhere it may be an answer.
        listed = "|".join(_escaped(names[i]) for i in bare)
        named = f'"({listed})"' if format.opening else '"'
        text += rf" & ~/{BARE_START}{named}(.|\n)*/"
        starts.append("bare")
        lines.append("bare: " + " | ".join(f"BARE{i} @args{i} BARE_END" for i in bare))
        key = format.arguments_key
        lines += [rf'BARE{i}: /{BARE_START}"{_escaped(names[i])}"\s?,\s{{0,8}}"{key}"\s?:\s?/' for i in bare]
        lines.append(r"BARE_END: /\s{0,8}\}(\s?```)?/")
    return [f"start: {' | '.join(starts)}", f"TEXT: {text}", *lines]


def _escaped(name: str) -> str:
    """A plain name within a regular expression within Lark."""
    return re.sub(r"([./-])", r"\\\1", name)


def _literal(text: str, special: Mapping[str, int]) -> str:
    """Lark for exactly this text; control tokens in it by their number."""
    if not text:
        return ""
    names = [re.escape(name) for name in special if name in text]
    pieces = re.split(f"({'|'.join(names)})", text) if names else [text]
    return " ".join(
        f"<[{special[piece]}]>" if piece in special else json.dumps(piece) for piece in pieces if piece
    )


def _schema_part(name: str, schema: Mapping[str, Any], *, compact: bool, lenient: bool) -> Part:
    options: dict[str, Any] = {"whitespace_flexible": False, "lenient": lenient}
    if not compact:
        options |= {"item_separator": ITEM_SEPARATOR, "key_separator": KEY_SEPARATOR}
    return {"name": name, "json_schema": {**schema, "x-guidance": options}}


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
