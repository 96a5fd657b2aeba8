"""The verbs, each run as `pentad ...` would run it: data on stdout, words on stderr, exit status."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

import pentad
from cli_support import Pentad
from pentad.agent.journal import Journal
from pentad.agent.runtime import AgentRuntime
from pentad.application import wiring
from pentad.application.services import Services
from pentad.errors import BackendFailed
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.testing.backends import ScriptedBackend, Turn

HEAVY = {
    "pydantic",
    "torch",
    "numpy",
    "starlette",
    "uvicorn",
    "httpx2",
    "tokenizers",
    "rich",
    "asyncio",
    "yaml",
}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[Turn]], ScriptedBackend]:
    """Puts a scripted model in place of the wiring's; gives its backend."""

    def use(turns: Sequence[Turn]) -> ScriptedBackend:
        backend = ScriptedBackend(turns)

        @asynccontextmanager
        async def build(settings: object) -> AsyncIterator[Services]:
            models = ModelService({"scripted": backend}, router=Fixed())
            agents = AgentRuntime(models, Journal(settings.journal_path))  # type: ignore[attr-defined]
            try:
                yield Services(models=models, agents=agents)
            finally:
                await agents.close()

        monkeypatch.setattr(wiring, "build", build)
        return backend

    return use


@pytest.fixture
def agent_file(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "helper.yaml"
    path.write_text("name: helper\nplanner: {name: react, max_plan: 0}\n", encoding="utf-8")
    return str(path)


def test_the_command_tree_is_built_without_heavy_imports() -> None:
    code = "import sys; from pentad.application.cli.app import build; build(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) == set()


def test_version_is_the_packages(pentad_: Pentad) -> None:
    assert pentad_("version").out == f"pentad {pentad.__version__}\n"
    assert json.loads(pentad_("version", "--json").out) == {"version": pentad.__version__}
    assert pentad_("--version") == pentad_("version")


def test_no_verb_shows_the_help_and_is_a_usage_error(pentad_: Pentad) -> None:
    outcome = pentad_()
    assert outcome.status == 2
    assert "serve" in outcome.out + outcome.err


@pytest.mark.parametrize(
    ("words", "message", "command"),
    [
        (["sevre"], "no such command 'sevre'. Did you mean 'serve'", "pentad"),
        (["list", "--jsno"], "no such option: --jsno", "pentad list"),
        (["pull"], "missing argument", "pentad pull"),
        (["runs", "shwo"], "no such command 'shwo'. Did you mean 'show'", "pentad runs"),
        (["runs", "fork", "run_x", "--step", "x"], "invalid value for '--step'", "pentad runs fork"),
    ],
)
def test_a_misspelt_command_line_is_one_line_and_names_the_help(
    pentad_: Pentad, words: list[str], message: str, command: str
) -> None:
    outcome = pentad_(*words)
    assert (outcome.status, outcome.out) == (2, "")
    error, hint = outcome.err.splitlines()
    assert error.startswith(f"error: {message}")
    assert hint == f"hint: `{command} -h` shows what it takes"
    assert pentad_(*command.split()[1:], "-h").status == 0


@pytest.mark.parametrize(
    ("words", "status", "message", "hint"),
    [
        (["show", "nix"], 2, "no model 'nix' here", "pentad pull"),
        (["pull", "nix"], 2, "'nix'", "smollm2-135m"),
        (["rm", "nix"], 2, "'nix'", "smollm2-135m"),
        (["runs", "show", "run_x"], 2, "no run 'run_x'", "pentad runs list"),
        (["runs", "cancel", "run_x"], 2, "no run 'run_x'", "pentad runs list"),
        (["run", "nix", "  "], 2, "the prompt is empty", "after the model"),
        (["agent", "run", "demo", ""], 2, "the goal is empty", "what the agent is to do"),
        (["agent", "run", "absent.yaml", "go"], 2, "no agent file 'absent.yaml'", "demo"),
        (["config", "show", "--threads", "0"], 2, "engine.threads is 0", "--threads"),
        (["config", "show", "--kv-bytes", "much"], 2, "engine.kv_bytes is 'much'", "--kv-bytes"),
        (["serve", "--host", "0.0.0.0"], 2, "no API key is set", "--api-key"),
        (["config", "show", "--config", "absent.yaml"], 2, "'absent.yaml' cannot be read", "--config"),
    ],
)
def test_an_error_is_one_line_and_a_hint(
    pentad_: Pentad, words: list[str], status: int, message: str, hint: str
) -> None:
    outcome = pentad_(*words)
    lines = outcome.err.splitlines()
    assert (outcome.status, outcome.out) == (status, "")
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert len(lines) == (2 if hint else 1)
    if hint:
        assert lines[1].startswith("hint: ")
        assert hint in lines[1]


def test_an_empty_listing_is_words_for_people_and_a_list_for_programs(pentad_: Pentad) -> None:
    for words in (["list"], ["ls"], ["runs", "list"]):
        assert pentad_(*words).out == ""
        assert json.loads(pentad_(*words, "--json").out) == []


def test_config_show_tells_value_and_source(pentad_: Pentad, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENTAD_MAX_SEQUENCES", "4")
    shown = json.loads(pentad_("config", "show", "--port", "9", "--json").out)
    assert shown["server.port"] == {"value": 9, "source": "--port"}
    assert shown["engine.max_sequences"] == {"value": 4, "source": "PENTAD_MAX_SEQUENCES"}
    assert "engine.max_waiting" not in shown
    assert "engine.max_waiting" in json.loads(pentad_("config", "show", "--resolved", "--json").out)


def test_config_show_warns_of_a_variable_that_sets_nothing(
    pentad_: Pentad, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENTAD_PROT", "4")
    assert "warning: PENTAD_PROT sets nothing" in pentad_("config", "show").err


def test_config_show_never_prints_a_key(pentad_: Pentad) -> None:
    outcome = pentad_("config", "show", "--resolved", "--api-key", "canary-4711")
    assert outcome.status == 0
    assert "canary-4711" not in outcome.out + outcome.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(pentad_: Pentad, shell: str) -> None:
    assert "_PENTAD_COMPLETE" in pentad_("completion", shell).out


def test_doctor_names_what_is_absent_with_the_remedy(pentad_: Pentad) -> None:
    outcome = pentad_("doctor", "--json")
    findings = {finding["what"]: finding for finding in json.loads(outcome.out)}
    assert findings["python"]["state"] == "ok"
    assert findings["model smollm2-135m"]["hint"] == "pentad pull smollm2-135m"


def test_run_streams_the_answer_to_stdout(pentad_: Pentad, script: Callable[..., ScriptedBackend]) -> None:
    backend = script([["Hel", "lo"]])
    outcome = pentad_("run", "scripted", "hi", "--system", "Be kind.", "--temperature", "0", "--seed", "7")
    assert (outcome.status, outcome.out, outcome.err) == (0, "Hello\n", "")
    (request,) = backend.requests
    assert request.messages is not None
    assert [(m.role, m.content) for m in request.messages] == [("system", "Be kind."), ("user", "hi")]
    assert (request.sampling.temperature, request.sampling.seed) == (0, 7)


def test_run_gives_json_with_usage(pentad_: Pentad, script: Callable[..., ScriptedBackend]) -> None:
    script([["Hel", "lo"]])
    answer = json.loads(pentad_("run", "scripted", "hi", "--json").out)
    assert (answer["text"], answer["finish_reason"]) == ("Hello", "stop")
    assert answer["usage"]["completion_tokens"] > 0


def test_run_and_chat_send_files_with_the_first_message(
    pentad_: Pentad, script: Callable[..., ScriptedBackend], agent_file: str, tmp_path: pathlib.Path
) -> None:
    note, picture, broken = tmp_path / "note.md", tmp_path / "x.png", tmp_path / "x.zip"
    note.write_text("All is well.")
    picture.write_bytes(b"\x89PNG\r\n\x1a\n")
    broken.write_bytes(b"PK\x03\x04\xff")
    backend = script([["fine"]])
    assert pentad_("run", "scripted", "Sum up.", "--file", str(note)).status == 0
    (message,) = backend.requests[0].messages or ()
    assert message.content == "<document>\n<title>note.md</title>\nAll is well.\n</document>\nSum up."
    script([])
    refused = pentad_("run", "scripted", "What is it?", "--image", str(picture))
    assert refused.status == 2
    assert (
        "model 'scripted' takes text, but a message holds the image 'x.png' (image/png, 8 bytes)"
        in refused.err
    )
    backend = script([["fine"]])
    assert pentad_("agent", "run", agent_file, "Sum up.", "--file", str(note)).status == 0
    assert any("All is well." in m.content for m in backend.requests[0].messages or ())
    for flag, path, words in (
        ("--image", note, "its bytes are of no type that is known"),
        ("--file", broken, "a file is UTF-8 text or PDF"),
        ("--audio", tmp_path / "none.wav", "cannot be read: No such file"),
    ):
        refused = pentad_("run", "scripted", "hi", flag, str(path))
        assert refused.status == 2
        assert words in refused.err


def test_run_makes_control_characters_visible(
    pentad_: Pentad, script: Callable[..., ScriptedBackend]
) -> None:
    script([["\x1b[31mred\x07"]])
    assert pentad_("run", "scripted", "hi").out == "\\x1b[31mred\\x07\n"


def test_run_that_fails_exits_1_with_the_reason(
    pentad_: Pentad, script: Callable[..., ScriptedBackend]
) -> None:
    script([[BackendFailed("the engine broke", hint="try again")]])
    outcome = pentad_("run", "scripted", "hi")
    assert outcome.status == 1
    assert outcome.err.splitlines() == ["error: the engine broke", "hint: try again"]


def test_agent_run_shows_goal_answer_usage_and_time_per_layer(
    pentad_: Pentad, script: Callable[..., ScriptedBackend], agent_file: str
) -> None:
    script([["It is 42."]])
    outcome = pentad_("agent", "run", agent_file, "What is it?")
    assert outcome.status == 0
    for words in ("goal    What is it?", "answer  It is 42.", "usage   1 model call", "time    application"):
        assert words in outcome.out


def test_a_run_of_the_terminal_says_so_in_its_journal(
    pentad_: Pentad, script: Callable[..., ScriptedBackend], agent_file: str
) -> None:
    script([["It is 42."]])
    assert pentad_("agent", "run", agent_file, "What is it?").status == 0
    (row,) = json.loads(pentad_("runs", "list", "--json").out)
    (begun, *_) = json.loads(pentad_("runs", "show", row["id"], "--json").out)["events"]
    assert begun["foreground"] is True


def test_agent_run_that_fails_exits_1(
    pentad_: Pentad, script: Callable[..., ScriptedBackend], agent_file: str
) -> None:
    script([[BackendFailed("broken")]] * 9)
    outcome = pentad_("agent", "run", agent_file, "What is it?")
    assert outcome.status == 1
    assert "ended   failed: " in outcome.out


def test_a_run_is_listed_shown_and_explained_from_the_journal(
    pentad_: Pentad, script: Callable[..., ScriptedBackend], agent_file: str
) -> None:
    script([["It is 42."]])
    summary = json.loads(pentad_("agent", "run", agent_file, "What is it?", "--json").out)
    run = summary["run_id"]
    (row,) = json.loads(pentad_("runs", "list", "--json").out)
    assert (row["id"], row["status"], row["goal"]) == (run, "answered", "What is it?")
    assert json.loads(pentad_("runs", "list", "--status", "failed", "--json").out) == []
    shown = json.loads(pentad_("runs", "show", run, "--json").out)
    assert shown["answer"] == "It is 42."
    assert shown["events"][0]["type"] == "run_started"
    explained = json.loads(pentad_("runs", "explain", run, "--json").out)
    assert [share["layer"] for share in explained["shares"]] == [
        "application",
        "agent",
        "model",
        "resource",
        "execution",
    ]
    assert run in pentad_("runs", "list").out
    assert "It is 42." in pentad_("runs", "show", run).out
    assert "unattributed" in pentad_("runs", "explain", run).out


def test_a_run_that_has_ended_is_neither_resumed_nor_cancelled(
    pentad_: Pentad, script: Callable[..., ScriptedBackend], agent_file: str
) -> None:
    script([["It is 42."]])
    run = json.loads(pentad_("agent", "run", agent_file, "What is it?", "--json").out)["run_id"]
    for verb in ("resume", "cancel"):
        outcome = pentad_("runs", verb, run)
        assert outcome.status == 1
        assert f"error: run {run!r} has already ended: answered" in outcome.err


def test_the_catalogue_is_listed_with_size_licence_and_use(pentad_: Pentad) -> None:
    rows = {row["name"]: row for row in json.loads(pentad_("list", "--available", "--json").out)}
    assert rows["qwen2.5-1.5b"]["licence"] == "Apache-2.0"
    assert not any(row["stored"] for row in rows.values())
    assert "tools, JSON and agents" in pentad_("list", "--available").out
