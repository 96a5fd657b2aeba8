"""Conversations are fitted to what a template can express, and nothing is dropped."""

from __future__ import annotations

from typing import Any

from pentad.errors import PentadError
from pentad.model.template import ChatTemplate
from pentad.model.template.adapting import Chat, TemplateFeatures, adapt, open_chat, probe
from pentad.model.toolcalls import choose_format
from pentad.types import Message, ToolCall, ToolSpec

HERMES = choose_format("hermes", None)[0]
TOOL = ToolSpec(name="add", description="adds")
CALL = ToolCall(id="call_0123456789abcdef01234567", name="add", arguments='{"a": 1}')
TALK = (
    Message(role="system", content="Be brief."),
    Message(role="user", content="1+1?"),
    Message(role="assistant", content="Wait.", tool_calls=(CALL,)),
    Message(role="tool", content="2", tool_call_id=CALL.id),
    Message(role="tool", content="3", tool_call_id=CALL.id),
    Message(role="user", content="Thanks."),
)

PLAIN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% endfor %}"
)
NATIVE = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}[{{ m.role }}]{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}"
    "{% endfor %}"
)
NINE = (
    NATIVE + "{% for m in messages %}{% for c in m.tool_calls or [] %}{% if c.id | length != 9 %}"
    "{{ raise_exception('ids have 9 characters') }}{% endif %}{% endfor %}{% endfor %}"
)


def fitted(source: str, tools: tuple[ToolSpec, ...] = (TOOL,)) -> tuple[list[dict[str, Any]], Any]:
    return adapt(TALK, tools, probe(ChatTemplate(source)), HERMES)


def test_features_are_found_by_rendering() -> None:
    assert probe(ChatTemplate(PLAIN)) == TemplateFeatures(system=True, tools=False, calls=False)
    assert probe(ChatTemplate(NO_SYSTEM)) == TemplateFeatures(system=False, tools=False, calls=False)
    assert probe(ChatTemplate(NATIVE)) == TemplateFeatures(system=True, tools=True, calls=True)
    assert probe(ChatTemplate(NINE)).short_ids


def test_a_template_that_presents_tools_gets_them_as_they_are() -> None:
    rows, tools = fitted(NATIVE)
    assert [row["role"] for row in rows] == ["system", "user", "assistant", "tool", "tool", "user"]
    assert rows[2]["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1}}
    assert tools[0]["function"]["name"] == "add"


def test_tools_and_calls_become_text_where_the_template_has_no_place_for_them() -> None:
    rows, tools = fitted(PLAIN)
    assert tools is None
    assert [row["role"] for row in rows] == ["system", "user", "assistant", "user", "user"]
    assert rows[0]["content"].startswith("Be brief.\n\n# Tools")
    assert '"description": "adds"' in rows[0]["content"]
    assert rows[2]["content"] == "Wait.\n" + HERMES.write_calls([CALL])
    answers = "<tool_response>\n2\n</tool_response>\n<tool_response>\n3\n</tool_response>"
    assert rows[3]["content"] == answers


def test_a_system_message_goes_to_the_first_user_turn_where_there_is_no_role_for_it() -> None:
    rows, _ = fitted(NO_SYSTEM)
    assert rows[0]["role"] == "user"
    assert rows[0]["content"].startswith("Be brief.\n\n# Tools")
    assert rows[0]["content"].endswith("\n\n1+1?")


def test_a_conversation_without_system_or_user_still_carries_the_tools() -> None:
    features = TemplateFeatures(system=False, tools=False, calls=False)
    rows, _ = adapt((Message(role="assistant", content="Hi"),), (TOOL,), features, HERMES)
    assert [row["role"] for row in rows] == ["user", "assistant"]
    assert "# Tools" in rows[0]["content"]


def test_call_ids_are_shortened_alike_for_calls_and_answers() -> None:
    rows, _ = fitted(NINE)
    assert rows[2]["tool_calls"][0]["id"] == rows[3]["tool_call_id"]
    assert len(rows[3]["tool_call_id"]) == 9


def test_a_call_that_was_cut_off_stays_text() -> None:
    cut = Message(role="assistant", tool_calls=(ToolCall(id="1", name="add", arguments='{"a": '),))
    features = TemplateFeatures(system=True, tools=True, calls=True)
    rows, _ = adapt((cut,), (), features, HERMES)
    assert rows[0]["tool_calls"][0]["function"]["arguments"] == '{"a": '


def test_a_developer_speaks_as_system() -> None:
    features = TemplateFeatures(system=True, tools=True, calls=True)
    rows, _ = adapt((Message(role="developer", content="x"),), (), features, HERMES)
    assert rows == [{"role": "system", "content": "x"}]


def test_an_unusable_template_is_kept_as_the_reason() -> None:
    assert isinstance(open_chat("{% if %}", (), bos="", eos=""), PentadError)
    assert isinstance(open_chat(None, (), bos="", eos=""), PentadError)
    assert isinstance(open_chat(PLAIN, (), bos="", eos=""), Chat)


TYPO = """{% if tools %}{{ "Write\\n{{\\"name\\": <name>, \\"arguments\\": <json>}}\\n" }}
{% endif %}{{ messages[0].content }}{{ {"name": messages[0].role} }}"""


def test_doubled_braces_that_a_template_teaches_are_mended_with_a_notice() -> None:
    chat = open_chat(TYPO, (), bos="", eos="")
    assert isinstance(chat, Chat)
    (note,) = chat.mended
    assert "doubled" in note
    shown = "".join(
        s.text for s in chat.template.render([{"role": "user", "content": "{{x"}], [{"name": "t"}])
    )
    assert '\n{"name": <name>, "arguments": <json>}\n' in shown
    assert shown.endswith("{{x{'name': 'user'}")
    sound = open_chat(TYPO.replace("{{\\", "{\\").replace("}}\\n", "}\\n"), (), bos="", eos="")
    assert isinstance(sound, Chat)
    assert sound.mended == ()
