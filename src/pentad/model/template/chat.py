"""ChatTemplate: a conversation as the text that a model was trained on, control tokens kept apart."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError

from pentad.errors import BadModelFile, InvalidRequest
from pentad.model.template.meter import Meter, TemplateLimit, TemplateLimits
from pentad.model.template.sandbox import TemplateSandbox

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The template of files that have none but know its control tokens."""

MARK = "\ue0f1"
"""A private-use character; repeated until no client text contains the run, it fences protected text."""

RESERVED = frozenset({"messages", "tools", "add_generation_prompt", "bos_token", "eos_token"})
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
"""As Python writes functions and objects in its messages; nobody outside is to learn it."""
MAX_DEPTH = 64
MAX_STRFTIME_CHARS = 64


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the rendered prompt."""

    text: str
    is_control: bool
    """Whether special-token text in it means the special token; False for client text that looks like one."""


class _Rejected(TemplateError):
    """The template itself refused the conversation, through `raise_exception`."""


class ChatTemplate:
    """Renders conversations with one model's template, in a sandbox and under limits.

    Text of special tokens that occurs in what a client sent (message contents, names, tool
    descriptions, options) is fenced before rendering and comes out as a segment of its own with
    `is_control` False, so that no client can write a control token.

    Args:
        source: the Jinja source from the model file.
        special: texts of the model's special tokens.
        bos: text that `{{ bos_token }}` stands for; eos likewise.
        limits: what one rendering may use.
        now: the local time, for `strftime_now`.

    Raises:
        BadModelFile: the source is too long, malformed or uses what chat templates may not.
    """

    def __init__(
        self,
        source: str,
        *,
        special: Sequence[str] = (),
        bos: str = "",
        eos: str = "",
        limits: TemplateLimits | None = None,
        now: Callable[[], datetime.datetime] = datetime.datetime.now,
    ) -> None:
        self.source = source
        self._limits = limits or TemplateLimits()
        self._now = now
        self._variables = {"bos_token": bos, "eos_token": eos}
        names = sorted((s for s in special if s), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, names)) or r"(?!)")
        if len(source) > self._limits.source_chars:
            raise BadModelFile(
                f"the chat template has {len(source)} characters; the limit is {self._limits.source_chars}",
                hint="replace the template or use another model file",
            )
        self._sandbox = TemplateSandbox({"raise_exception": _raise, "strftime_now": self._strftime})
        try:
            with self._sandbox.metered(Meter(self._limits)):
                self._template = self._sandbox.from_string(source)
        except (TemplateError, TemplateLimit, RecursionError, ValueError, SyntaxError) as error:
            raise BadModelFile(
                f"the chat template cannot be compiled: {_one_line(error)}",
                hint="replace the template or use another model file",
            ) from error

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        continues: bool = False,
    ) -> list[Segment]:
        """The prompt up to where the assistant's answer begins, or goes on.

        Args:
            messages: plain data, in the shape templates expect (role, content, tool_calls ...).
            tools: plain data in OpenAI's shape, or None.
            options: further variables for the template.
            continues: end behind the last message's content in the place of beginning a turn.

        Raises:
            InvalidRequest: the template refuses the conversation (its own words follow), cannot
                render it, or passed its limits.
        """
        options = _checked(options or {})
        values = {"messages": list(messages), "tools": list(tools) if tools else None, **options}
        mark = MARK
        while _contains(values, mark):
            mark += MARK
        protected: list[str] = []
        fenced = _mapped(values, lambda text: self._fence(text, mark, protected))
        end = f"{mark}/{mark}"
        if continues:
            last = fenced["messages"][-1]
            last["content"] = _ended(last["content"], end)
        text = self._run({**self._variables, "add_generation_prompt": not continues, **fenced})
        if continues:
            text, found, _ = text.rpartition(end)
            if not found:
                raise InvalidRequest(
                    "the model's chat template leaves the last message out, so no answer can continue it",
                    hint="end `messages` with the user's turn",
                    param="messages",
                )
        pieces = re.split(f"{mark}(\\d+){mark}", text) if protected else [text]
        segments = [
            Segment(protected[int(piece)] if i % 2 else piece, is_control=not i % 2)
            for i, piece in enumerate(pieces)
        ]
        return [segment for segment in segments if segment.text]

    def _fence(self, text: str, mark: str, protected: list[str]) -> str:
        def keep(match: re.Match[str]) -> str:
            protected.append(match[0])
            return f"{mark}{len(protected) - 1}{mark}"

        return self._special.sub(keep, text)

    def _run(self, variables: dict[str, Any]) -> str:
        meter = Meter(self._limits)
        try:
            with self._sandbox.metered(meter):
                return "".join(self._template.generate(**variables))
        except _Rejected as error:
            raise InvalidRequest(
                f"the model's chat template refuses this conversation: {_one_line(error)}",
                hint="change the order or roles of `messages`",
                param="messages",
            ) from error
        except (TemplateLimit, RecursionError, MemoryError, OverflowError) as error:
            raise InvalidRequest(
                f"the model's chat template was stopped: {_one_line(error)}",
                hint="send fewer or shorter `messages`, or use another model file",
                param="messages",
            ) from error
        except (TemplateError, SecurityError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            raise InvalidRequest(
                f"the model's chat template cannot render this conversation: {_one_line(error)}",
                hint="check `messages`, `tools` and `chat_template_kwargs`",
                param="messages",
            ) from error

    def _strftime(self, format: Any) -> str:
        if not isinstance(format, str) or len(format) > MAX_STRFTIME_CHARS:
            raise SecurityError(f"strftime_now takes a text of at most {MAX_STRFTIME_CHARS} characters")
        if re.search(r"%[^a-zA-Z%]", format):
            raise SecurityError("strftime_now takes plain directives, such as %Y")
        return self._now().strftime(format)


def default_template(special: Mapping[str, int]) -> str | None:
    """The template for a file that has none: ChatML if the model knows its tokens, else None."""
    return CHATML if {"<|im_start|>", "<|im_end|>"} <= set(special) else None


def _ended(content: Any, end: str) -> Any:
    """A message's content with a text behind it."""
    if not isinstance(content, list):
        return content + end
    if content and content[-1].get("type") == "text":
        return [*content[:-1], {**content[-1], "text": content[-1]["text"] + end}]
    return [*content, {"type": "text", "text": end}]


def _raise(message: object = "") -> None:
    # An object's text may be its address in memory.
    told = isinstance(message, (str, int, float, list, tuple, dict))
    raise _Rejected(str(message)[:500] if told else f"a {type(message).__name__}")


def _one_line(error: BaseException) -> str:
    if isinstance(error, TemplateSyntaxError):
        return f"{error.message} (line {error.lineno})"
    text = _ADDRESS.sub("", " ".join(str(error).split())[:500])
    return text or type(error).__name__


def _checked(options: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in options:
        if not isinstance(name, str) or not name.isidentifier() or name in RESERVED:
            raise InvalidRequest(
                f"{name!r} cannot be a template option",
                hint=f"use an identifier other than {', '.join(sorted(RESERVED))}",
                param="chat_template_kwargs",
            )
    return options


def _contains(value: Any, mark: str) -> bool:
    found = False

    def look(text: str) -> str:
        nonlocal found
        found = found or mark in text
        return text

    _mapped(value, look)
    return found


def _mapped(value: Any, change: Callable[[str], str], depth: int = 0) -> Any:
    """A copy of plain data with `change` applied to every string, keys included."""
    if depth > MAX_DEPTH:
        raise InvalidRequest(
            f"messages, tools or options nest deeper than {MAX_DEPTH}",
            hint="flatten the tool's parameters",
            param="tools",
        )
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {
            change(k) if isinstance(k, str) else k: _mapped(v, change, depth + 1) for k, v in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_mapped(v, change, depth + 1) for v in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise InvalidRequest(
        f"a {type(value).__name__} cannot be given to the chat template",
        hint="send plain JSON values",
        param="chat_template_kwargs",
    )
