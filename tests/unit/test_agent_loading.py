"""Agent files: what they may say, and how a mistake is answered."""

from __future__ import annotations

import json
import pathlib

import pytest

from pentad.agent.codec import decode, encode
from pentad.agent.loading import agent_from, load_agent, ready
from pentad.agent.spec import AgentSpec, McpServer
from pentad.agent.spec_check import check_agent
from pentad.agent.tools.files import ToolFiles
from pentad.agent.worker import planner_for
from pentad.choice import Choice
from pentad.errors import InvalidRequest, NotFound
from pentad.types import Budget, Objective

YAML = """
name: helper
model: m
instructions: Be brief.
tools: [calculator, search]
tool_options: {search: {folder: docs, k: 2}}
deny: ["files__*"]
mcpServers:
  files: {command: npx, args: ["-y", "server"], env: {API_KEY: "${FILES_KEY}"}}
  web: {url: "https://example.org/mcp", headers: {Authorization: "Bearer ${TOKEN}"}}
planner: {name: react, mode: guided, max_plan: 3}
memory:
  window: {max_tokens: 900, overflow: summarise}
  long_term: {k: 2}
budget: {tokens: 5000, cost: 1, wall_s: 60}
objective: {ttft_s: 0.5}
max_steps: 4
"""


def test_a_yaml_file_is_an_agent_and_survives_the_journal(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.yaml").write_text(YAML)
    agent = load_agent(tmp_path / "a.yaml")
    assert agent.tools == ("calculator", "search")
    assert agent.mcp_servers["files"].args == ("-y", "server")
    assert agent.planner.options == {"mode": "guided", "max_plan": 3}
    assert agent.memory.window.overflow == "summarise"
    assert agent.budget == Budget(tokens=5000, cost=1.0, wall_s=60.0)
    assert agent.objective == Objective(ttft_s=0.5)
    assert planner_for(agent).max_repairs == 2
    assert decode(AgentSpec, json.loads(json.dumps(encode(agent)))) == agent


@pytest.mark.parametrize(
    "written",
    [
        "react:mode=guided,max_plan=3",
        {"name": "react", "options": {"mode": "guided", "max_plan": 3}},
        {"options": {"mode": "guided", "max_plan": 3}},
        {"name": "react", "mode": "guided", "max_plan": 3},
        {"mode": "guided", "max_plan": 3},
    ],
)
def test_a_strategy_is_chosen_by_name_text_or_options(written: object) -> None:
    wanted = Choice(name="react", options={"mode": "guided", "max_plan": 3})
    assert agent_from({"name": "a", "planner": written}).planner == wanted


def test_toml_and_json_say_the_same(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.toml").write_text(
        'name = "x"\ntools = ["calculator"]\nplanner = "react"\n[budget]\ntokens = 9'
    )
    (tmp_path / "a.json").write_text(
        '{"name": "x", "tools": ["calculator"], "planner": {"name": "react"}, "budget": {"tokens": 9}}'
    )
    assert load_agent(tmp_path / "a.toml") == load_agent(tmp_path / "a.json")


def test_the_shipped_agents_load_by_name() -> None:
    assert "demo" in ready()
    for name in ready():
        assert load_agent(name).name == name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: a\ntool: [x]", "tool: unknown field; did you mean 'tools'?"),
        ("name: a\nbudget: {token: 5}", "budget.token: unknown field; did you mean 'tokens'?"),
        (
            "name: a\nmemory: {window: {overflow: drop}}",
            "memory.window.overflow: is 'drop', not one of 'trim'",
        ),
        ("name: a\nmemory: {window: {max_turns: 0}}", "max_turns is 0"),
        ("name: a\nmax_steps: many", "max_steps: is of type str, not int"),
        ("name: a\nmax_steps: 0", "max_steps: max_steps is 0; it must be at least 1"),
        ("name: a\nmax_steps: true", "max_steps: is of type bool, not int"),
        ("name: a\ntemperature: .nan", "temperature: is nan, not a finite number"),
        ("name: a\ntemperature: 3", "temperature is 3.0; it must be at least 0 and at most 2"),
        ("name: a\ntools: calculator", "tools: is of type str, not a list"),
        ("name: a\ntools: [x, x]", "tools names one twice"),
        ("tools: [x]", "name: is missing"),
        ("name: 'a b'", "name 'a b' must be 1 to 64"),
        ("name: a\nmcpServers: {s: {}}", "either a command or a url"),
        ("name: a\nmcpServers: {s__t: {url: 'http://x'}}", "MCP server name 's__t'"),
        ("name: a\nmcpServers: {s: {url: 'http://x', headers: {X-Api-Key: abc}}}", "looks like a secret"),
        ("name: a\nmcpServers: {s: {command: c, env: {GITHUB_TOKEN: abc}}}", "looks like a secret"),
        ("- a\n- b", "is of type list, not an object"),
        ("name: a\nname: b", "the key 'name' stands already in line 1"),
        ("name: a\ntools: &t [*t]", "the value holds itself"),
        ("name: a\nbudget: {tokens: -1}", "budget.tokens: tokens is -1; it must be at least 0"),
        ("name: a\nbudget: {cost: -0.5}", "cost is -0.5; it must be at least 0"),
        ("name: a\nbudget: {wall_s: -1}", "wall_s is -1.0; it must be at least 0"),
        ("name: a\nbudget: {tool_calls: -1}", "tool_calls is -1; it must be at least 0"),
        ("name: a\nobjective: {ttft_s: -1}", "ttft_s is -1.0; it must be at least 0"),
        ("name: a\nobjective: {min_quality: 2}", "min_quality is 2.0; it must be at least 0 and at most 1"),
        ("name: a\nmax_result_bytes: 0", "max_result_bytes is 0; it must be at least 1"),
        ("name: a\nseed: 99999999999999999999", "seed is 99999999999999999999"),
        ("name: a\nmemory: {long_term: {k: -1}}", "memory.long_term.k: k is -1; it must be at least 0"),
        ("name: a\nmcpServers: {s: {url: 'http://x', timeout_s: 0}}", "timeout_s is 0.0; it must be above 0"),
        ("name: a\nask_timeout_s: 0", "ask_timeout_s is 0.0; it must be above 0"),
        ("name: a\nask_expired: alow", "ask_expired: is 'alow', not one of"),
        ("name: a\nask_expired: alow", "did you mean 'allow'?"),
        ("name: [", "cannot be read"),
        ("!!python/object/apply:os.system ['id']", "cannot be read"),
    ],
)
def test_mistakes_are_named_with_the_field(tmp_path: pathlib.Path, text: str, says: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InvalidRequest) as caught:
        load_agent(tmp_path / "a.yaml")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "abc" not in str(caught.value)


def test_files_that_are_not_there_or_of_no_known_kind(tmp_path: pathlib.Path) -> None:
    with pytest.raises(NotFound, match="one of: demo"):
        load_agent(tmp_path / "none.yaml")
    with pytest.raises(NotFound):
        load_agent("../demo")
    (tmp_path / "a.ini").write_text("[a]")
    with pytest.raises(InvalidRequest, match="no known ending"):
        load_agent(tmp_path / "a.ini")
    (tmp_path / "big.yaml").write_bytes(b"#" * (2 << 20))
    with pytest.raises(InvalidRequest, match="over 1 MiB"):
        load_agent(tmp_path / "big.yaml")


def test_a_body_is_an_agent_too() -> None:
    assert agent_from({"name": "x", "planner": {"mode": "guided"}}).planner.options == {"mode": "guided"}
    with pytest.raises(InvalidRequest) as caught:
        agent_from({"name": "x", "budget": {"tokens": "5"}})
    assert caught.value.param == "budget.tokens"


def test_one_server_has_one_way_in() -> None:
    with pytest.raises(ValueError, match="either"):
        McpServer(command="x", url="http://y")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("planner: {mode: gided}", "invalid enum value 'gided'; did you mean 'guided'?"),
        ("planner: {mode: 7}", "option 'mode' of planner 'react'"),
        ("planner: {grounded: 'false'}", "option 'grounded' of planner 'react': expected `bool`"),
        ("planner: {max_pln: 3}", "no option 'max_pln'; did you mean 'max_plan'?"),
        ("planner: {max_plan: -1}", "must be 0 or more"),
        ("planner: {max_repairs: -1}", "max_repairs is -1; it must be at least 0"),
        ("planner: reakt", "did you mean 'react'?"),
        ("tools: [calculater]", "no tool 'calculater'; did you mean 'calculator'?"),
        ("tools: [search]\ntool_options: {search: {foldr: x}}", "did you mean 'folder'?"),
        (
            "tools: [search]\ntool_options: {search: {folder: ., k: many}}",
            "tool_options.search.k: is of type str",
        ),
        ("tool_options: {search: {folder: x}}", "tool_options has 'search', which is none of tools"),
    ],
)
def test_options_are_checked_before_a_run_begins(tmp_path: pathlib.Path, text: str, says: str) -> None:
    (tmp_path / "a.yaml").write_text(f"name: a\n{text}")
    with pytest.raises(InvalidRequest) as caught:
        check_agent(load_agent(tmp_path / "a.yaml"), ToolFiles())
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "variable",
    [
        "TOKENIZERS_PARALLELISM: abc",
        "KEYBOARD: de",
        "TOKEN_FILE: /run/t",
        "MAX_TOKENS: x",
        "MONKEY: x",
        "K: true",
    ],
)
def test_names_that_only_resemble_secrets_are_no_secrets(variable: str) -> None:
    name, value = variable.split(": ")
    assert McpServer(command="x", env={name: value}).env == {name: value}


@pytest.mark.parametrize(
    "name",
    ["API_KEY", "apiKey", "OPENAI_APIKEY", "AUTH_TOKEN", "DB_PASSWORD", "Cookie", "X-Secret", "my.passwd"],
)
def test_names_of_secrets_need_a_variable(name: str) -> None:
    with pytest.raises(ValueError, match="looks like a secret"):
        McpServer(command="x", env={name: "abc"})
    assert McpServer(command="x", env={name: "${SET}"})
