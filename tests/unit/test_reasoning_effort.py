"""A reasoning endpoint: more effort is more tokens, here and far away; its chain is logged, and no answer."""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Any

import httpx2
import pytest
from test_chat_openai_backend import ask, backend, chunk, sse, usage

from agent_support import harness, run, spec
from chat_support import answered, tiny_files
from chat_support import ask as ask_here
from pentad.agent.model_events import ModelAnswered
from pentad.execution.backend import TextDelta, collect
from pentad.model.reasoning import wishes

THINKS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n<think>\n{# </think> #}"
)


@pytest.mark.row("m-o1", "mechanism")
def test_the_same_request_thinks_twice_as_long_at_high_effort_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (wishes.EFFORT_TOKENS["low"], wishes.EFFORT_TOKENS["high"]) == (1024, None)
    monkeypatch.setattr(wishes, "EFFORT_TOKENS", {"low": 32, "high": None})
    files = tiny_files(chat_template=THINKS)
    used = {}
    for effort in ("low", "high"):
        request = ask_here(template_options={"reasoning_effort": effort})
        answer = answered(request, "step " * 60 + "</think>Four.", files=files)[0]
        used[effort] = answer.usage.reasoning_tokens
        assert answer.usage.completion_tokens > used[effort]
        (decision,) = [d for d in answer.usage.decisions if d.policy == "effort"]
        assert decision.chosen == {"low": "32", "high": "unlimited"}[effort]
    assert used["high"] >= 2 * used["low"]


@pytest.mark.row("m-o1", "mechanism")
def test_a_remote_endpoint_is_told_the_effort_and_its_hidden_tokens_are_counted() -> None:
    asked: list[dict[str, Any]] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        """As such an endpoint answers: the chain is not shown, its tokens are in the usage."""
        asked.append(json.loads(request.content))
        hidden = {"low": 128, "high": 1024}[asked[-1]["reasoning_effort"]]
        counts = usage(9, hidden + 3)
        counts["usage"]["completion_tokens_details"] = {"reasoning_tokens": hidden}
        return sse(chunk(content="Four."), chunk(finish="stop"), counts, "[DONE]")

    far = backend(answer, max_tokens_field="max_completion_tokens")
    used = {}
    for effort in ("low", "high"):
        request = ask(template_options={"reasoning_effort": effort})
        found = asyncio.run(collect(far.stream(request)))
        assert (found.message.content, found.choices[0].reasoning) == ("Four.", "")
        used[effort] = found.usage
    assert [each["reasoning_effort"] for each in asked] == ["low", "high"]
    assert {k: v for k, v in asked[0].items() if k != "reasoning_effort"} == {
        k: v for k, v in asked[1].items() if k != "reasoning_effort"
    }
    assert (used["low"].reasoning_tokens, used["high"].reasoning_tokens) == (128, 1024)
    assert used["high"].completion_tokens >= 2 * used["low"].completion_tokens


@pytest.mark.row("m-o1", "mechanism", claims=(2,))
def test_the_chain_is_in_the_run_s_log_and_in_no_answer(tmp_path: pathlib.Path) -> None:
    thought = TextDelta(text="Two and two, so four.", kind="reasoning")

    async def scenario() -> None:
        async with harness(tmp_path, [[thought, "Four."]]) as h:
            state = await h.work(spec(), "What is two and two?")
            assert (state.status, state.answer) == ("answered", "Four.")
            (event,) = [r.event for r in h.records(state.run_id) if isinstance(r.event, ModelAnswered)]
            assert (event.text, event.reasoning) == ("Four.", "Two and two, so four.")

    run(scenario())
