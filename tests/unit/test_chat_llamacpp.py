"""LlamaCppBackend over a scripted model: the same rules as the engine's, one request at a time."""

from __future__ import annotations

import asyncio
import sys

import pytest

from chat_support import END, ScriptModel, ask, tiny_files, tiny_tokenizer
from pentad.errors import BackendFailed, Incompatible, MissingExtra, Unavailable
from pentad.execution.backend import collect
from pentad.model.backends.llamacpp import LlamaCppBackend
from pentad.types import Sampling, ToolChoice, ToolSpec


def backend_that_says(answer: str, request_tokens: int | None = None) -> tuple[LlamaCppBackend, ScriptModel]:
    """A backend whose model writes `answer` behind the prompt of `ask()`, then ends."""
    model = ScriptModel({})
    backend = LlamaCppBackend(tiny_files(), model, context_length=512)
    prompt = request_tokens if request_tokens is not None else backend.count_tokens(ask())
    tokens = [*tiny_tokenizer().encode(answer, special=False), END]
    model.script = lambda length: (tokens + [END] * 999)[length - prompt]
    return backend, model


@pytest.mark.row("be-llamacpp", "mechanism", claims=(2,))
def test_text_usage_and_metrics_come_out_as_from_any_backend() -> None:
    backend, _ = backend_that_says("hello world")
    answer = asyncio.run(collect(backend.stream(ask())))
    assert answer.message.content == "hello world"
    assert answer.choices[0].reason == "stop"
    tokens = len(tiny_tokenizer().encode("hello world", special=False)) + 1
    assert answer.usage.completion_tokens == tokens
    assert backend.stats()["generation_tokens_total"] == tokens
    assert backend.stats()["prompt_tokens_total"] == answer.usage.prompt_tokens
    names = [span.name for span in answer.usage.spans]
    assert names == ["render", "tokenize", "queue", "prefill", "decode", "detokenize"]
    assert backend.check() is None


@pytest.mark.row("be-llamacpp", "mechanism")
def test_stop_strings_limits_and_choices_work() -> None:
    backend, _ = backend_that_says("hello world")
    sampling = Sampling(temperature=0, stop=("wor",), n=2)
    answer = asyncio.run(collect(backend.stream(ask(sampling=sampling))))
    assert [(c.message.content, c.stop) for c in answer.choices] == [("hello ", "wor")] * 2
    short = asyncio.run(collect(backend.stream(ask(sampling=Sampling(temperature=0, max_tokens=1)))))
    assert (short.usage.completion_tokens, short.choices[0].reason) == (1, "length")


@pytest.mark.row("be-llamacpp", "mechanism")
def test_a_required_call_parses() -> None:
    tool = ToolSpec(name="add", parameters={"type": "object", "properties": {}})
    request = ask(tools=(tool,), tool_choice=ToolChoice(mode="required", parallel=False))
    backend, model = backend_that_says("no")
    model.script = lambda length: 5
    answer = asyncio.run(collect(backend.stream(request)))
    assert [(c.name, c.parsed()) for c in answer.message.tool_calls] == [("add", {})]
    assert answer.choices[0].reason == "tool_calls"


def test_requests_wait_for_one_another_and_a_closed_stream_frees_the_model() -> None:
    async def run() -> list[str]:
        backend, model = backend_that_says("hello world")
        first = backend.stream(ask())
        await anext(first)
        second = asyncio.create_task(collect(backend.stream(ask())))
        for _ in range(20):
            await asyncio.sleep(0.005)
            if backend.stats()["waiting"]:
                break
        assert backend.stats() | {"running": 1.0, "waiting": 1.0} == backend.stats()
        await first.aclose()
        answer = await second
        await backend.close()
        assert model.closed
        with pytest.raises(Unavailable):
            await collect(backend.stream(ask()))
        return [answer.message.content]

    assert asyncio.run(run()) == ["hello world"]


def test_a_failure_of_the_model_is_told_and_does_not_stick() -> None:
    backend, model = backend_that_says("hello world")
    script = model.script

    def broken(length: int) -> int:
        raise RuntimeError("the tile configuration is wrong")

    model.script = broken
    with pytest.raises(BackendFailed, match="RuntimeError"):
        asyncio.run(collect(backend.stream(ask())))
    model.script = script
    assert asyncio.run(collect(backend.stream(ask()))).message.content == "hello world"


def test_a_stalled_model_is_reported() -> None:
    now = 0.0
    backend = LlamaCppBackend(tiny_files(), ScriptModel({}), context_length=64, clock=lambda: now)

    async def run() -> str | None:
        nonlocal now
        ready = asyncio.get_running_loop().create_future()

        async def consume() -> None:
            async for _ in backend.stream(ask(text="a")):
                ready.set_result(None)
                await asyncio.Event().wait()

        prompt = backend.count_tokens(ask(text="a"))
        model = backend._model
        assert isinstance(model, ScriptModel)
        model.script = lambda length: 40 if length < prompt + 5 else END
        task = asyncio.create_task(consume())
        await ready
        now = 61.0
        trouble = backend.check()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return trouble

    assert "61 s" in (asyncio.run(run()) or "")


def test_files_that_are_no_gguf_are_refused() -> None:
    with pytest.raises(Incompatible, match="GGUF"):
        LlamaCppBackend.load(tiny_files(format="safetensors"))


def test_without_the_extra_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    monkeypatch.setitem(sys.modules, "llama_cpp.llama_cpp", None)
    with pytest.raises(MissingExtra, match=r"pentad\[llamacpp\]"):
        LlamaCppBackend.load(tiny_files())
