"""Templates in the manner of each family, rendered as the reference library renders them."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from pentad import registry
from pentad.errors import InvalidRequest
from pentad.model.speech import FAMILIES, speech_of
from pentad.model.template import ChatTemplate

CALL = {
    "id": "abcdef123",
    "type": "function",
    "function": {"name": "f", "arguments": {"b": ["é<&'"], "a": 1.5}},
}
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "f",
            "description": "Does <f> & more",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": ["number", "null"]}},
                "required": ["a"],
            },
        },
    }
]
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": " Be brief. "},
    {"role": "user", "content": "Hi\n"},
    {"role": "assistant", "content": "", "reasoning_content": "Use f.\n", "tool_calls": [CALL]},
    {"role": "tool", "content": '{"x": 4}', "tool_call_id": "abcdef123"},
    {"role": "assistant", "content": "<think>old</think>\n\nFour."},
    {"role": "user", "content": "And now?  "},
]
FOLDER = pathlib.Path(__file__).parents[1] / "data" / "chat_templates"
TEMPLATES = {path.stem: path.read_text("utf-8") for path in sorted(FOLDER.glob("*.jinja"))}


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_render_as_the_reference_renders_them(name: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    source = TEMPLATES[name]
    for offered in (None, TOOLS):
        for talk in (TALK, TALK[1:], TALK[1:2]):
            for options in (
                {},
                {"enable_thinking": False, "reasoning_effort": "low", "date_string": "1 May"},
            ):
                want, _ = render_jinja_template(
                    [json.loads(json.dumps(talk))],
                    chat_template=source,
                    tools=offered,
                    add_generation_prompt=True,
                    bos_token="<s>",
                    eos_token="</s>",
                    **options,
                )
                template = ChatTemplate(source, bos="<s>", eos="</s>")
                got = template.render(talk, offered, options)
                assert "".join(segment.text for segment in got) == want[0]


def test_what_a_template_refuses_is_refused_in_its_words() -> None:
    two = [{**TALK[2], "tool_calls": [CALL, CALL]}]
    with pytest.raises(InvalidRequest, match="single tool-calls"):
        ChatTemplate(TEMPLATES["llama3"]).render([TALK[1], *two])


def test_the_speech_of_each_family_names_formats_that_exist() -> None:
    for family, speech in FAMILIES.items():
        assert speech.tools in registry.known("tool_format"), family
        assert speech.reasoning in ("none", *registry.known("reasoning_format")), family
    for family, model_type in (("qwen3", "qwen3"), ("gpt-oss", "gpt_oss")):
        assert speech_of(family) == FAMILIES[model_type]
    assert speech_of("something new") is None
