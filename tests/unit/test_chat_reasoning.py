"""Reasoning: taken apart from answers in every format, bounded by a budget, in front of calls and formats."""

from __future__ import annotations

import json

import pytest
import tokenizers
from tokenizers import AddedToken

import model_fixtures as make
from chat_support import END, answered, ask, tiny_files, tiny_tokenizer
from pentad import registry
from pentad.execution.backend import Completion
from pentad.execution.request import Constraint
from pentad.execution.sampling import allowed_tokens
from pentad.model.constraints import ConstraintCompiler
from pentad.model.grammars import Lead
from pentad.model.guides import GuidedGrammars, GuideMaker
from pentad.model.reasoning import ReasoningFormat, choose_reasoning, wishes
from pentad.model.reasoning.budget import BudgetedConstraint, ReasoningBudget
from pentad.model.template.adapting import adapt, probe
from pentad.model.template.chat import ChatTemplate
from pentad.model.tokenizer import Tokenizer, from_json
from pentad.model.toolcalls import choose_format
from pentad.types import Message, OutputFormat, ToolCall, ToolChoice, ToolSpec

OPTIONAL = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}<|im_end|>\n"
    "{% endfor %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
)
"""Thinks if it likes, as Qwen3."""
OPENED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n<think>\n{# </think> #}"
)
"""The prompt begins the reasoning, as of QwQ and DeepSeek R1."""
ADD = ToolSpec(
    name="add", parameters={"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
)
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
JSON = OutputFormat(kind="json_schema", value={"type": "object", "properties": {"b": {"type": "boolean"}}})


def said(template: str, text: str, **change: object) -> Completion:
    return answered(ask(**change), text, files=tiny_files(chat_template=template))[0]


def read(answer: Completion) -> tuple[str, str, list[str]]:
    (choice,) = answer.choices
    return choice.reasoning, choice.message.content, [call.name for call in choice.message.tool_calls]


def test_reasoning_in_front_of_text_calls_and_formats_is_no_part_of_them() -> None:
    tools = {"tools": (ADD,)}
    required = {**tools, "tool_choice": ToolChoice(mode="required")}
    thought = "<think>\nShall I <tool_call> now?\n</think>\n\n"
    assert read(said(OPTIONAL, f"{thought}Hello")) == ("Shall I <tool_call> now?", "Hello", [])
    for wish in (tools, required):
        assert read(said(OPTIONAL, thought + CALL, **wish)) == ("Shall I <tool_call> now?", "", ["add"])
        assert read(said(OPTIONAL, CALL, **wish)) == ("", "", ["add"])
        assert read(said(OPENED, f"Hm.</think>\n{CALL}", **wish)) == ("Hm.", "", ["add"])
    assert read(said(OPTIONAL, f"{thought}No call.", **tools)) == ("Shall I <tool_call> now?", "No call.", [])
    for template, begin in ((OPTIONAL, thought), (OPTIONAL, ""), (OPENED, "Hm.\n</think>\n\n")):
        answer = said(template, begin + '{"b": true}', format=JSON)
        assert answer.message.content == '{"b": true}'
        assert bool(answer.choices[0].reasoning) == bool(begin)
        assert (answer.usage.reasoning_tokens > 0) == bool(begin)


@pytest.mark.parametrize("budget", [0, 1, 7])
@pytest.mark.parametrize("template", [OPTIONAL, OPENED])
def test_after_its_budget_the_end_of_reasoning_is_forced(template: str, budget: int) -> None:
    long = "thought é " * 20
    begin = "" if template is OPENED else "<think>"
    end = len(tiny_tokenizer().encode("</think>\n\n", special=True))
    for change in ({}, {"format": OutputFormat(kind="regex", value="(.|\n)*")}, {"tools": (ADD,)}):
        answer = said(template, begin + long, reasoning_tokens=budget, **change)
        choice = answer.choices[0]
        assert answer.usage.reasoning_tokens <= budget + end + 3  # a character of several tokens is finished
        assert len(choice.reasoning) <= 12 * max(budget, 0)
        assert "thought" in choice.message.content
        assert "\ufffd" not in choice.reasoning + choice.message.content


def test_reasoning_that_ends_by_itself_stays_within_its_budget() -> None:
    answer = said(OPTIONAL, "<think>ab</think>" + "text " * 30, reasoning_tokens=20)
    assert read(answer) == ("ab", "text " * 30, [])


def test_an_effort_is_a_budget_where_the_template_knows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "<think>" + "x" * 300 + "</think>done"
    assert wishes.EFFORT_TOKENS["low"] == 1024
    monkeypatch.setattr(wishes, "EFFORT_TOKENS", {"low": 32, "high": None})

    def tokens(template: str, effort: str) -> int:
        answer = said(template, script, template_options={"reasoning_effort": effort})
        return answer.usage.reasoning_tokens

    low, high = tokens(OPTIONAL, "low"), tokens(OPTIONAL, "high")
    assert 32 <= low <= 48
    assert high >= 2 * low
    assert tokens(OPTIONAL + "{# reasoning_effort #}", "low") == high


def test_no_effort_and_no_thinking_turn_the_template_s_switch_and_leave_no_reasoning() -> None:
    for options in ({"reasoning_effort": "none"}, {"enable_thinking": False}):
        answer = said(OPTIONAL, "<think>abcdefghijklmnop</think>ok", template_options=options)
        assert answer.usage.reasoning_tokens <= 12
        assert "abc" not in answer.choices[0].reasoning
    forced = said(OPENED, "abcdefghijklmnopqrstuvwxyz", template_options={"enable_thinking": False})
    assert forced.choices[0].reasoning == ""


CASES = {
    "think": ("<think>\nwhy\n</think>\n\nso", "why", "so"),
    "mistral": ("[THINK]why[/THINK]so", "why", "so"),
    "seed": ("<seed:think>why</seed:think>so", "why", "so"),
    "command_r": ("<|START_THINKING|>why<|END_THINKING|>so", "why", "so"),
    "gemma": ("<|channel>thought\nwhy\n<channel|>so", "why", "so"),
    "granite": ("Here is my thought process: why\n\nHere is my response: so", "why", "so"),
    "harmony": (
        "<|channel|>analysis<|message|>why<|end|><|start|>assistant<|channel|>final<|message|>so",
        "why",
        "so",
    ),
}


@pytest.mark.parametrize("name", registry.known("reasoning_format"))
def test_every_format_is_the_same_however_the_text_is_cut(name: str) -> None:
    format = choose_reasoning(name, None)
    assert format is not None
    assert choose_reasoning("auto", " ".join((*format.marks, "x"))) is format
    text, reasoning, answer = CASES[name]
    for at in range(len(text) + 1):
        splitter = format.splitter(format, False)
        pieces = [splitter.feed(text[:at]), splitter.feed(text[at:]), splitter.finish()]
        assert "".join(a for a, _ in pieces).strip() == reasoning
        assert "".join(b for _, b in pieces) == answer
    one_by_one = format.splitter(format, False)
    pieces = [one_by_one.feed(char) for char in text] + [one_by_one.finish()]
    assert "".join(a for a, _ in pieces).strip() == reasoning
    assert "".join(b for _, b in pieces) == answer


HARMONY = [
    ("<|channel|>final<|message|>so", "", "so"),
    ("plain", "", "plain"),
    (
        "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary<|message|>I will."
        "<|end|><|start|>assistant<|channel|>commentary to=functions.add <|constrain|>json<|message|>"
        '{"a": 1}',
        "a",
        'I will.<|channel|>commentary to=functions.add <|constrain|>json<|message|>{"a": 1}',
    ),
    (
        '<|start|>assistant to=functions.add<|channel|>commentary json<|message|>{"a": 1}',
        "",
        '<|channel|>commentary to=functions.add <|constrain|>json<|message|>{"a": 1}',
    ),
]


@pytest.mark.parametrize(("text", "reasoning", "answer"), HARMONY)
def test_harmony_messages_become_reasoning_text_and_calls(text: str, reasoning: str, answer: str) -> None:
    format = choose_reasoning("harmony", None)
    assert format is not None
    for at in range(len(text) + 1):
        splitter = format.splitter(format, False)
        pieces = [splitter.feed(text[:at]), splitter.feed(text[at:]), splitter.finish()]
        assert ("".join(a for a, _ in pieces), "".join(b for _, b in pieces)) == (reasoning, answer)


def marked(format: ReasoningFormat, *texts: str) -> Tokenizer:
    """The tiny tokenizer that knows the marks as control tokens, as models do."""
    backend = tokenizers.Tokenizer.from_str(make.tokenizer_json())
    if format.name != "granite":
        marks = (
            {format.opening.strip(), format.closing, *format.texts}
            if format.name != "harmony"
            else format.texts
        )
        backend.add_special_tokens([AddedToken(mark, normalized=False) for mark in sorted({*marks, *texts})])
    return from_json(backend.to_str())


def fits(constraint: Constraint, tokenizer: Tokenizer, text: str) -> bool:
    for token in [*tokenizer.encode(text, special=True), END]:
        if not allowed_tokens(constraint.mask(), tokenizer.vocab_size)[token]:
            return False
        constraint.accept(token)
    return True


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("name", registry.known("reasoning_format"))
def test_grammars_leave_room_for_reasoning_in_front(name: str, special: bool) -> None:
    format = choose_reasoning(name, None)
    assert format is not None
    calls = choose_format("harmony" if name == "harmony" else "hermes", None)[0]
    tokenizer = marked(format) if special else tiny_tokenizer()
    compiler = ConstraintCompiler(tokenizer, {0, END})
    thought = CASES[name][0].removesuffix("so").removesuffix(format.final)
    call = calls.write_calls([ToolCall(id="", name="add", arguments='{"a": 1}')])
    lead = Lead(format, False)
    for mode in ("auto", "required"):
        choice = ToolChoice(mode=mode)
        made = compiler.for_calls(calls, [ADD], choice, OutputFormat(), lead)[0]
        assert fits(made.fork(), tokenizer, thought + call)
        assert fits(made.fork(), tokenizer, call)
        assert fits(made.fork(), tokenizer, f"{thought}{format.final}so") == (mode == "auto")
        assert not fits(made.fork(), tokenizer, thought + call.replace("1", "x"))
    answer = compiler.for_answer(JSON, lead)
    assert answer is not None
    assert fits(answer.fork(), tokenizer, thought + format.final + '{"b": true}')
    assert not fits(answer.fork(), tokenizer, thought + format.final + '{"b": 1}')
    opened = compiler.for_answer(JSON, Lead(format, True))
    assert opened is not None
    behind = thought[thought.index("why") :]
    assert fits(opened.fork(), tokenizer, behind + format.final + '{"b": true}')
    assert not fits(opened.fork(), tokenizer, '{"b": true}')


def test_a_budget_holds_where_grammars_are_followed_in_another_process() -> None:
    tokenizer = tiny_tokenizer()
    maker = GuideMaker(tokenizer, {0, END})
    hosted = ConstraintCompiler(tokenizer, {0, END}, host=GuidedGrammars(maker.answer))
    forced = tuple(tokenizer.encode("</think>\n", special=True))
    budget = ReasoningBudget(tokens=2, opening=b"", closing=b"</think>", forced=forced)
    for first in (None, hosted.for_answer(JSON, Lead(_think(), True))):
        guide = hosted.budgeted(first, budget)
        thought = tokenizer.encode("ab", special=False)
        here = maker.constraint(guide.data(), tuple(thought[:1]))  # type: ignore[attr-defined]
        assert isinstance(here, BudgetedConstraint)
        rest = [*thought[1:], *tokenizer.encode("x", special=False) * (2 - len(thought))]
        for token in rest:
            here.accept(token)
        for token in forced:
            assert list(allowed_tokens(here.mask(), tokenizer.vocab_size).nonzero()[0]) == [token]
            here.accept(token)
        assert allowed_tokens(here.mask(), tokenizer.vocab_size).sum() > 1 or first is not None


def _think() -> ReasoningFormat:
    format = choose_reasoning("think", None)
    assert format is not None
    return format


def test_reasoning_of_earlier_turns_is_given_to_the_template_which_decides() -> None:
    turns = [
        Message(role="user", content="q"),
        Message(role="assistant", content="a", reasoning="because"),
        Message(role="user", content="r"),
    ]
    for source, shown in ((OPTIONAL, True), (OPENED, False)):
        template = ChatTemplate(source)
        rows, _ = adapt(turns, (), probe(template), choose_format("hermes", None)[0])
        text = "".join(segment.text for segment in template.render(rows))
        assert ("because" in text) == shown
        assert json.dumps(rows).count("because") == 3
