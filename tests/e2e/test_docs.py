"""The documentation is true: links lead somewhere, snippets run, tables are whole."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import typer
import yaml

import pentad.application.gateway.errors as gateway_errors
import pentad.errors as errors
from pentad.agent.loading import agent_from
from pentad.agent.rows import JournalDamaged
from pentad.application.cli.app import build
from pentad.application.config import Settings
from pentad.application.config_loading import resolve
from pentad.application.library import RunFailed
from pentad.resource.cluster_file import read_cluster
from process_support import Server, environment, home_with, pentad, serving

ROOT = pathlib.Path(__file__).parent.parent.parent
PAGES = sorted(
    [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "src").glob("pentad/*/README.md")]
)
SNIPPET_S = 300.0
ANSWERS = {"What is 17 times 23?": "391", "How much is 12.5% of 640?": "80"}
"""What a right answer to each goal that the pages show must say; a goal that is not here fails."""


def name_of(page: pathlib.Path) -> str:
    return str(page.relative_to(ROOT))


def snippets(language: str) -> list[Any]:
    """Every fenced block of that language as (page, text), not the files of examples, tested elsewhere."""
    examples = {path.read_text("utf-8") for path in (ROOT / "examples").rglob("*.py")}
    found = []
    for page in PAGES:
        for i, text in enumerate(
            re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
        ):
            if text in examples:
                continue
            found.append(pytest.param(text, id=f"{name_of(page)}-{i + 1}"))
    return found


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory, smollm2_path: pathlib.Path, minilm_path: pathlib.Path
) -> pathlib.Path:
    models = {"smollm2-135m": smollm2_path, "minilm": minilm_path}
    return home_with(tmp_path_factory.mktemp("home"), models)


@pytest.fixture(scope="module")
def server(home: pathlib.Path) -> Iterator[Server]:
    with serving(home) as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A working folder with the examples and every agent file that the pages show."""
    path = tmp_path_factory.mktemp("work")
    (path / "examples").symlink_to(ROOT / "examples")
    for parameter in snippets("yaml"):
        (text,) = parameter.values
        content = yaml.safe_load(text)
        if "planner" in content:
            (path / f"{content['name']}.yaml").write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading(page: pathlib.Path) -> None:
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        aim = (page.parent / path).resolve() if path else page
        assert aim.exists(), f"{name_of(page)} links to {target!r}"
        assert not anchor or anchor in anchors(aim), f"{name_of(page)} links to {target!r}"


def anchors(page: pathlib.Path) -> set[str]:
    """Headings as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_path_of_this_repository_that_a_page_names_exists(page: pathlib.Path) -> None:
    pattern = r"`((?:src|tests|docs|scripts|benchmarks|examples)/[\w./-]+)`"
    for path in re.findall(pattern, page.read_text("utf-8")):
        assert (ROOT / path).exists(), f"{name_of(page)} names {path!r}"


@pytest.mark.parametrize("text", snippets("python"))
def test_a_python_snippet_runs(
    text: str, server: Server, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(text.replace("http://127.0.0.1:8000", server.url), "snippet", "exec"), {})  # noqa: S102
    assert printed.getvalue().strip()


@pytest.mark.parametrize("text", snippets("yaml"))
def test_a_yaml_snippet_is_an_agent_a_cluster_or_settings(
    text: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys.txt").write_text("ann:secret\n", encoding="utf-8")
    content = yaml.safe_load(text)
    if {"planner", "coordinator"} & content.keys():
        agent_from(content)
        return
    file = tmp_path / "pentad.yaml"
    file.write_text(text, encoding="utf-8")
    if "devices" in content:
        assert read_cluster(file).devices
        return
    assert resolve(env={}, file=file).settings != Settings()


@pytest.mark.parametrize("text", snippets("bash"))
def test_a_shell_snippet_runs(text: str, home: pathlib.Path, folder: pathlib.Path) -> None:
    for line in text.splitlines():
        program, *words = shlex.split(line)
        assert program == "pentad", f"{line!r} is not run by this test"
        done = pentad(home, *words, timeout_s=SNIPPET_S, folder=folder)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        if words[:2] == ["agent", "run"]:
            answer = re.search(r"^answer  (.*)$", done.stdout, re.MULTILINE)
            wanted = rf"(?<![\w.]){ANSWERS[words[3]]}(?!\w|\.\d)"
            assert answer is not None, done.stdout
            assert re.search(wanted, answer[1]), f"{line}\n{done.stdout}"


@pytest.mark.parametrize("text", snippets("console"))
def test_a_shown_command_prints_what_is_shown(text: str, home: pathlib.Path, folder: pathlib.Path) -> None:
    """`…` stands for anything within its line, and alone on a line for any lines."""
    for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n?)*)", text, re.M):
        program, *words = shlex.split(command)
        assert program == "pentad", f"{command!r} is not run by this test"
        done = pentad(home, *words, timeout_s=SNIPPET_S, folder=folder)
        assert done.returncode == 0, done.stderr
        printed = "\n".join(line.rstrip() for line in done.stdout.splitlines())
        assert re.fullmatch(pattern_of(shown.rstrip("\n")), printed, re.S), f"{command}\n{printed}"


def pattern_of(shown: str) -> str:
    lines = (
        ".*?" if line == "…" else r"[^\n]*".join(map(re.escape, line.split("…")))
        for line in shown.splitlines()
    )
    return "\n".join(lines)


def test_no_snippet_is_of_a_kind_that_goes_untested() -> None:
    run = {"python", "yaml", "bash", "console"}
    shown = {"json", "mermaid", "sh", "toml"}
    for page in PAGES:
        kinds = set(re.findall(r"^```(\w*)\n.*?^```", page.read_text("utf-8"), re.M | re.S))
        assert kinds <= run | shown, name_of(page)


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "cli.md"], ids=name_of)
def test_every_command_that_a_page_names_is_one(page: pathlib.Path) -> None:
    tree = typer.main.get_command(build())
    text = page.read_text("utf-8")
    for line in re.findall(r"(?:^    |`)(pentad [^`\n]*?)(?:   .*)?[`\n]", text, re.M):
        words = [word for word in line.split()[1:] if re.fullmatch(r"-*[a-z][a-z-]*", word)]
        command, path = tree, []
        for word in line.split()[1:]:
            if word not in getattr(command, "commands", {}):
                break
            command, path = command.commands[word], [*path, word]  # type: ignore[attr-defined]
        assert path or not words or words[0].startswith("-"), f"{name_of(page)}: {line}"
        options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
        for flag in re.findall(r"(?<= )--[a-z][a-z-]*", line):
            assert flag in options | {"--help"}, f"{name_of(page)}: {line}"


def test_make_demo_runs_from_a_clean_home(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """With the models linked into the home, so that nothing is downloaded."""
    env = environment(home) | {"PENTAD_DATA_HOME": str(tmp_path / "data")}
    done = subprocess.run(
        ["make", "demo"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=SNIPPET_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "answer  347 * 28 = 9716, and 2026-12-25 is a Friday." in done.stdout


def test_make_serve_answers_from_a_clean_home(home: pathlib.Path) -> None:
    words = ["make", "serve", "ARGS=--port 0"]
    process = subprocess.Popen(
        words, cwd=ROOT, env=environment(home), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    watchdog = threading.Timer(SNIPPET_S, process.kill)
    watchdog.start()
    try:
        url = next(found[1] for line in process.stderr if (found := re.search(r"API +(http://\S+)/v1", line)))
        assert httpx2.get(f"{url}/readyz").status_code == 200
        assert httpx2.get(f"{url}/console").status_code == 200
    finally:
        watchdog.cancel()
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)


def test_every_claim_of_the_readme_names_a_test_that_is_there() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    table = re.search(r"^\| area \|.*?\n\n", text, re.M | re.S)
    assert table is not None
    rows = table[0].splitlines()[2:]
    for row in filter(None, rows):
        links = re.findall(r"\]\((tests/[^)]+)\)", row)
        assert links, row
        assert all((ROOT / link).exists() for link in links), row


def test_the_readme_tells_the_size_of_the_default_model(smollm2_path: pathlib.Path) -> None:
    told = re.search(r"a model of (\d+) MB", (ROOT / "README.md").read_text("utf-8"))
    assert told is not None
    assert int(told[1]) == round(smollm2_path.stat().st_size / 10**6)


def test_imports_go_downwards_only() -> None:
    words = [str(pathlib.Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_generated_pages_are_current() -> None:
    script = ROOT / "scripts" / "reference.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_page_of_errors_has_each_with_its_status_and_exit() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (\d+) \| (\d) \|", (ROOT / "docs" / "errors.md").read_text("utf-8"), re.M
    )
    written = {code: (int(status), int(exit_code)) for code, status, exit_code in rows}
    defined = {
        kind.code: (kind.status, kind.exit_code)
        for kind in (*vars(errors).values(), *vars(gateway_errors).values(), JournalDamaged, RunFailed)
        if isinstance(kind, type) and issubclass(kind, errors.PentadError)
    }
    assert written == defined


def test_the_page_of_metrics_has_each_that_a_server_exports(server: Server) -> None:
    exported = httpx2.get(f"{server.url}/metrics").text
    names = {n for n in re.findall(r"^# TYPE (\S+) ", exported, re.M) if not n.endswith("_created")}
    rows = re.findall(r"^\| `(\w+)` \|.*", page := (ROOT / "docs" / "metrics.md").read_text("utf-8"), re.M)
    traced = set(re.findall(r"^\| `(\w+)` \|.*there only while traces are on", page, re.M))
    assert set(rows) - traced == names


def test_the_readme_names_the_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    named = set(re.findall(r"\bmake (\w+)", (ROOT / "README.md").read_text("utf-8")))
    assert named <= targets
    assert {"demo", "serve", "test", "check", "bench"} <= named
