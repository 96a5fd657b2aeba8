"""Published reasoning models: their folders load at their size, their templates' think blocks are split."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import pytest
import transformers
from resource_samples import GPU

import model_fixtures as make
from chat_support import answered, ask, tiny_files
from pentad.errors import Infeasible
from pentad.execution.device import Cluster, MemoryTier
from pentad.model.backends.codec import ChatCodec
from pentad.model.loading import open_model
from pentad.model.reasoning import choose_reasoning
from pentad.resource.cost import ModelForm
from pentad.resource.placement import Workload, plan
from pentad.types import Message, ToolCall, ToolChoice, ToolSpec
from sparse_folders import write_sparse_folder

DATA = pathlib.Path(__file__).parents[1] / "data" / "chat_templates"
SIZES: dict[str, dict[str, Any]] = {
    "deepseek_r1": {
        "vocab_size": 151_936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "max_position_embeddings": 131_072,
        "tie_word_embeddings": False,
    },
    "qwq": {
        "vocab_size": 152_064,
        "hidden_size": 5120,
        "intermediate_size": 27_648,
        "num_hidden_layers": 64,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "max_position_embeddings": 40_960,
        "tie_word_embeddings": False,
    },
}
"""R1-Distill-Qwen-1.5B and QwQ-32B, by their configs."""
ADD = ToolSpec(
    name="add", parameters={"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
)
CALLS = {
    "deepseek_r1": (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n"
        '```json\n{"a": 1}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
    ),
    "qwq": '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>',
}


def template(name: str) -> str:
    return (DATA / f"{name}.jinja").read_text("utf-8")


def opened(name: str, folder: pathlib.Path) -> Any:
    config = transformers.Qwen2Config(**SIZES[name])
    return open_model(write_sparse_folder(folder, config, make.tokenizer_json(), template(name)))


@pytest.mark.row("m-deepseek-r1", "mechanism", claims=(1,))
def test_r1_distill_loads_with_its_parameters_and_its_way_of_speaking(tmp_path: pathlib.Path) -> None:
    files = opened("deepseek_r1", tmp_path)
    assert files.spec.parameters == 1_777_088_000
    shapes = {name: files.weights.tensor(name).shape for name in files.weights.names()}
    assert shapes == files.spec.tensors()
    format = choose_reasoning("auto", files.chat_template)
    assert format is not None
    assert format.name == "think"
    files.close()


@pytest.mark.row("m-qwq", "mechanism", claims=(1,))
def test_qwq_fits_24_gb_in_four_bits_and_not_in_sixteen(tmp_path: pathlib.Path) -> None:
    files = opened("qwq", tmp_path)
    assert files.spec.parameters == 32_763_876_352
    memory = (MemoryTier(name="vram", capacity_bytes=24 * 10**9, read_bytes_per_s=1e12),)
    small = Cluster(devices=(dataclasses.replace(GPU, memory=memory),), links=())
    load = Workload(prompt_tokens=2048, new_tokens=4096, concurrency=1)
    (stage,) = plan("single", files.spec, small, load, form=ModelForm(weight_bits=4.5)).stages
    assert stage.weight_bytes > 18e9
    assert stage.total_bytes < 0.9 * 24e9
    with pytest.raises(Infeasible, match="in 16 bits needs") as refused:
        plan("single", files.spec, small, load)
    assert refused.value.hint == "set --weight-bits 4 or add a device"
    files.close()


@pytest.mark.row("m-deepseek-r1", "mechanism", claims=(2,))
@pytest.mark.row("m-qwq", "mechanism", claims=(2,))
@pytest.mark.parametrize("name", SIZES)
def test_what_the_prompt_lets_a_model_think_is_split_from_its_answer_and_counted(name: str) -> None:
    files = tiny_files(chat_template=template(name))
    for text, answer in (("Let me see.\n</think>\n\nFour.", "Four."), ("\n</think>\n\nFour.", "Four.")):
        found = answered(ask(), text, files=files)[0]
        (choice,) = found.choices
        assert choice.message.content == answer
        assert choice.reasoning == text.partition("\n</think>")[0]
        thought = files.tokenizer.encode(text.partition("Four.")[0], special=True)
        assert 0 < found.usage.reasoning_tokens <= len(thought)
        assert found.usage.completion_tokens > found.usage.reasoning_tokens
    unended = answered(ask(), "Still thinking", files=files)[0]
    assert unended.choices[0].message.content == ""
    assert unended.choices[0].reasoning == "Still thinking"


@pytest.mark.row("m-qwq", "mechanism", claims=(2,))
@pytest.mark.row("m-deepseek-r1", "mechanism")
@pytest.mark.parametrize("name", SIZES)
def test_calls_behind_a_thought_are_read_in_the_model_s_own_format(name: str) -> None:
    files = tiny_files(chat_template=template(name))
    for choice in (ToolChoice(), ToolChoice(mode="required")):
        text = "Use add.\n</think>\n\n" + CALLS[name]
        found = answered(ask(tools=(ADD,), tool_choice=choice), text, files=files)[0].choices[0]
        assert [(call.name, call.parsed()) for call in found.message.tool_calls] == [("add", {"a": 1})]
        assert (found.reasoning, found.message.content) == ("Use add.", "")


@pytest.mark.row("m-qwq", "mechanism", claims=(2,))
@pytest.mark.row("m-deepseek-r1", "mechanism")
@pytest.mark.parametrize("name", SIZES)
def test_earlier_thoughts_are_not_sent_again(name: str) -> None:
    call = ToolCall(id="c1", name="add", arguments='{"a": 1}')
    talk = (
        Message(role="user", content="Hi"),
        Message(role="assistant", content="", tool_calls=(call,), reasoning="Secret."),
        Message(role="tool", content="2", tool_call_id="c1"),
        Message(role="assistant", content="Two.", reasoning="Secret."),
        Message(role="user", content="And?"),
    )
    files = tiny_files(chat_template=template(name))
    codec = ChatCodec(files, context_length=1024, seeds=lambda: 1, clock=lambda: 0.0)
    prompt = files.tokenizer.decode(list(codec.prepare(ask(messages=talk)).prompt), special=True)
    assert "Secret" not in prompt
    assert prompt.endswith("<think>\n")
