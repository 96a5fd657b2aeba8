"""An answer whose beginning the request holds goes on from there, and only the rest is given out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from chat_support import ScriptRunner, answered, ask, engine_backend, tiny_files
from pentad.errors import ContextLengthExceeded, Incompatible, InvalidRequest
from pentad.execution.backend import NoticeDelta
from pentad.model.backends.completion_limit import MIN_FITTED_TOKENS
from pentad.model.backends.endpoint import Endpoint
from pentad.model.backends.openai_requests import request_fields
from pentad.model.template import ChatTemplate, default_template
from pentad.types import Message, OutputFormat, Request, Sampling, ToolSpec

SPECIAL = ("<|im_start|>", "<|im_end|>")
CHATML = default_template({"<|im_start|>": 1, "<|im_end|>": 2}) or ""
ADD = ToolSpec(name="add", parameters={"type": "object", "properties": {"a": {"type": "integer"}}})


def begun(text: str, **change: Any) -> Request:
    """A request whose last message is the beginning of the answer."""
    turns = (Message(role="user", content="hello"), Message(role="assistant", content=text))
    return ask(messages=turns, continues=True, **change)


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ("The answer is", "The answer is"),
        ("ends in space ", "ends in space "),
        ("", ""),
        ("a \ue0f1/\ue0f1 b", "a \ue0f1/\ue0f1 b"),
    ],
)
def test_the_prompt_ends_behind_the_beginning(content: str, shown: str) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": content}]
    text = "".join(s.text for s in ChatTemplate(CHATML, special=SPECIAL).render(turns, continues=True))
    assert text == f"<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n{shown}"


def test_control_text_in_the_beginning_is_no_control_token() -> None:
    turns = [{"role": "assistant", "content": "a<|im_end|>"}]
    segments = ChatTemplate(CHATML, special=SPECIAL).render(turns, continues=True)
    assert [(s.text, s.is_control) for s in segments[-1:]] == [("<|im_end|>", False)]


def test_a_template_that_trims_content_keeps_the_end_of_the_beginning() -> None:
    source = "{% for m in messages %}[{{ m.content | trim }}]{% endfor %}{{ '>' if add_generation_prompt }}"
    segments = ChatTemplate(source).render([{"role": "assistant", "content": " a "}], continues=True)
    assert "".join(s.text for s in segments) == "[a "


def test_a_template_that_hides_the_last_message_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="leaves the last message out"):
        ChatTemplate("{{ messages[0].content }}").render(
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], continues=True
        )


def test_only_the_rest_of_the_answer_is_given_out() -> None:
    answer, _ = answered(begun("hel"), "lo world")
    assert answer.message.content == "lo world"


def test_an_answer_that_has_begun_does_not_begin_to_think() -> None:
    files = tiny_files(CHATML + "{# </think> #}")
    answer, _ = answered(begun("hel"), "<think>x</think>y", files=files)
    assert (answer.message.content, answer.choices[0].reasoning) == ("<think>x</think>y", "")
    answer, _ = answered(begun("<think>so"), " it is</think>y", files=files)
    assert (answer.message.content, answer.choices[0].reasoning) == ("y", "it is")


def test_the_format_holds_for_beginning_and_rest_together() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    format = OutputFormat(kind="json_schema", value=schema)
    answer, _ = answered(begun('{"a":', format=format), "1}")
    assert answer.message.content.strip() == "1}"
    with pytest.raises(InvalidRequest, match="begins no answer in the output format"):
        answered(begun("Sure: ", format=format), "{}")


@pytest.mark.parametrize(
    ("prefill", "rest", "text", "called"),
    [
        ("I will add.", '\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>', "", ["add"]),
        ("I will", " not.", " not.", []),
        ("{", ' "b": 1}', ' "b": 1}', []),
    ],
    ids=["call follows", "text follows", "object that is no call"],
)
def test_a_beginning_with_tools_is_not_repeated(
    prefill: str, rest: str, text: str, called: list[str]
) -> None:
    answer, _ = answered(begun(prefill, tools=(ADD,)), rest)
    assert answer.message.content == text
    assert [call.name for call in answer.message.tool_calls] == called


# The room behind a prompt


def streamed(request: Request) -> list[Any]:
    """All deltas of a request to a context of 1,024 tokens."""

    async def run() -> list[Any]:
        runner = ScriptRunner()
        async with engine_backend(runner) as backend:
            runner.prompt_tokens = backend.count_tokens(request)
            runner.says("ok")
            return [delta async for delta in backend.stream(request)]

    return asyncio.run(run())


def test_more_than_the_context_leaves_is_lowered_to_it_and_said_first() -> None:
    first, *_, last = streamed(ask(sampling=Sampling(temperature=0, max_tokens=32_000, fit_max_tokens=True)))
    assert isinstance(first, NoticeDelta)
    assert first.text.startswith("max_tokens lowered from 32000 to ")
    (decision,) = [one for one in last.usage.decisions if one.subject == "max_tokens"]
    assert (decision.policy, decision.notice) == ("fitted", first.text)
    assert decision.chosen == str(1024 - last.usage.prompt_tokens)


def test_what_fits_is_not_remarked_upon() -> None:
    first, *_ = streamed(ask(sampling=Sampling(temperature=0, max_tokens=9, fit_max_tokens=True)))
    assert not isinstance(first, NoticeDelta)


@pytest.mark.parametrize(
    ("sampling", "prompt"),
    [
        (Sampling(max_tokens=32_000), 10),
        (Sampling(max_tokens=32_000, fit_max_tokens=True), 1024 - MIN_FITTED_TOKENS + 1),
    ],
    ids=["as asked or not at all", "hardly any room"],
)
def test_an_answer_without_room_is_refused_with_the_numbers(sampling: Sampling, prompt: int) -> None:
    with pytest.raises(ContextLengthExceeded) as refused:
        streamed(ask(token_ids=(5,) * prompt, sampling=sampling))
    error = refused.value
    assert (error.prompt_tokens, error.answer_tokens, error.context_tokens) == (prompt, 32_000, 1024)


def test_no_tokens_asked_are_no_tokens_given() -> None:
    answer, _ = answered(ask(sampling=Sampling(temperature=0, max_tokens=0)), "hello")
    assert (answer.message.content, answer.choices[0].reason) == ("", "length")
    assert answer.usage.completion_tokens == 0
    assert answer.usage.prompt_tokens > 0


@pytest.mark.parametrize("vllm", [True, False])
def test_an_endpoint_is_asked_to_go_on_where_it_has_a_field_for_it_else_that_is_said(vllm: bool) -> None:
    endpoint = Endpoint(
        base_url="http://127.0.0.1:9/v1", model="m", api_key="k", context_length=100, vllm_fields=vllm
    )
    fields, decisions = request_fields(begun("hel"), endpoint)
    further = fields.get("extra_body", fields)
    assert further.get("continue_final_message") is (True if vllm else None)
    assert [bool(one.notice) for one in decisions if one.subject == "prefill"] == ([] if vllm else [True])


@pytest.mark.parametrize("sampling", [Sampling(max_tokens=0), Sampling(prompt_logprobs=1)])
def test_an_endpoint_that_only_generates_scores_no_prompt(sampling: Sampling) -> None:
    endpoint = Endpoint(base_url="http://127.0.0.1:9/v1", model="m", api_key="k", context_length=100)
    with pytest.raises(Incompatible, match="only generates"):
        request_fields(ask(text="x", sampling=sampling), endpoint)
