"""Agents from files, read again when they change, and Python functions as their tools."""

from __future__ import annotations

import os
import pathlib
import shutil
from dataclasses import replace
from typing import Any

import pytest
import yaml

from agent_support import FREE, call, harness, run
from cli_support import Pentad, pentad_
from pentad.agent.catalogue import AgentCatalogue, AgentEntry
from pentad.agent.loading import agent_from, load_agent, written
from pentad.agent.spec import AgentSpec
from pentad.agent.state import RunState
from pentad.agent.tools.files import ToolFiles
from pentad.agent.worker import planner_for
from pentad.errors import Forbidden, InvalidRequest, UnknownName

__all__ = ["pentad_"]

TOOLS = '''
import dataclasses
from pentad.agent.tools.functions import tool

@dataclasses.dataclass
class Price:
    amount: float

def price(item: str) -> str:
    """What an item costs.

    Args:
        item: its name.
    """
    return f"{item} costs {Price(3.5).amount}"

@tool(effects="none", name="stock")
def in_stock(item: str) -> int:
    """How many there are."""
    return 7

def broken(item) -> str:
    return item
'''
SHOP = """
name: shop
description: Knows prices.
tools: [./shop.py:price, ./shop.py:in_stock]
planner: {max_plan: 0}
"""


def folder_of(path: pathlib.Path, **files: str) -> pathlib.Path:
    """A folder with these files; `shop_py` is shop.py."""
    path.mkdir(exist_ok=True)
    for name, text in files.items():
        stem, _, suffix = name.rpartition("_")
        (path / f"{stem}.{suffix}").write_text(text)
    return path


def one(catalogue: AgentCatalogue, name: str) -> AgentEntry:
    return next(entry for entry in catalogue.entries() if entry.name == name)


def touched(path: pathlib.Path, text: str) -> None:
    """Another text in a file, told apart also where two writes fall into one tick of the clock."""
    before = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))


def test_files_folders_and_globs_are_found_once(tmp_path: pathlib.Path) -> None:
    folder = folder_of(tmp_path / "agents", a_yaml="name: a", b_toml='name = "b"', c_json='{"name": "c"}')
    (folder / "notes.txt").write_text("no agent")
    built_in = {"demo": AgentSpec(name="demo")}
    patterns = [str(folder / "a.yaml"), str(folder), str(folder / "*.toml")]
    catalogue = AgentCatalogue(built_in=built_in, patterns=patterns)
    found = {entry.name: entry.source for entry in catalogue.entries()}
    assert found == {
        "demo": "built-in",
        "a": str(folder / "a.yaml"),
        "b": str(folder / "b.toml"),
        "c": str(folder / "c.json"),
    }
    with pytest.raises(UnknownName, match="known: demo, a, b, c"):
        catalogue.get("d")


def test_a_changed_file_is_picked_up_and_a_broken_one_leaves_the_last_good_version(
    tmp_path: pathlib.Path,
) -> None:
    folder = folder_of(tmp_path / "agents", a_yaml="name: a\nmax_steps: 3")
    catalogue = AgentCatalogue(patterns=[str(folder)])
    assert catalogue.get("a").max_steps == 3
    touched(folder / "a.yaml", "name: a\nmax_steps: 4")
    assert catalogue.get("a").max_steps == 4
    touched(folder / "a.yaml", "name: a\nmax_stps: 5")
    entry = one(catalogue, "a")
    assert "did you mean 'max_steps'?" in (entry.error or "")
    assert catalogue.get("a").max_steps == 4
    touched(folder / "a.yaml", "name: a\nmax_steps: 6")
    assert (one(catalogue, "a").error, catalogue.get("a").max_steps) == (None, 6)
    folder_of(folder, late_yaml="name: late")
    assert catalogue.get("late").name == "late"
    (folder / "a.yaml").unlink()
    with pytest.raises(UnknownName):
        catalogue.get("a")


def test_files_that_never_held_an_agent_say_why(tmp_path: pathlib.Path) -> None:
    folder = folder_of(tmp_path / "agents", bad_yaml="name: [", demo_yaml="name: demo", x_yaml="name: x")
    missing = str(tmp_path / "none.yaml")
    built_in = {"demo": AgentSpec(name="demo", max_steps=2)}
    catalogue = AgentCatalogue(built_in=built_in, patterns=[str(folder), missing])
    errors = {entry.name: entry.error or "" for entry in catalogue.entries() if entry.error}
    assert "cannot be read" in errors["bad"]
    assert "no agent file" in errors["none"]
    assert "taken by built-in" in errors["demo"]
    assert catalogue.get("demo").max_steps == 2
    with pytest.raises(
        InvalidRequest, match=r"agent 'bad' cannot be used: agent file 'bad\.yaml' cannot be read"
    ):
        catalogue.get("bad")


def test_functions_of_a_file_are_tools(tmp_path: pathlib.Path) -> None:
    folder = folder_of(tmp_path / "agents", shop_yaml=SHOP, shop_py=TOOLS)

    async def scenario() -> None:
        catalogue = AgentCatalogue(patterns=[str(folder)])
        turns = [[call("price", item="lamp"), call("stock", ident="2", item="lamp")], ["done"]]
        async with harness(tmp_path, turns, agents=catalogue) as h:
            run_id = await h.runtime.start("shop", "What does a lamp cost?")
            state = await h.runtime.wait(run_id)
            results = state.exchanges[0].results
            assert [results[i].content for i in (0, 1)] == ["lamp costs 3.5", "7"]
            offered = h.backend.requests[0].tools
            assert [tool.name for tool in offered][:2] == ["price", "stock"]

    run(scenario())


def test_a_changed_tool_file_is_loaded_anew_and_a_broken_one_is_not(tmp_path: pathlib.Path) -> None:
    folder = folder_of(tmp_path / "agents", shop_yaml=SHOP, shop_py=TOOLS)
    catalogue = AgentCatalogue(patterns=[str(folder)])
    reference = catalogue.get("shop").tools[1]

    def description() -> str:
        catalogue.entries()
        return catalogue.tool_files.tool(reference).description

    assert description() == "How many there are."
    touched(folder / "shop.py", TOOLS.replace("How many there are", "Pieces"))
    assert description() == "Pieces."
    touched(folder / "shop.py", "import nothing_of_the_kind")
    assert description() == "Pieces."
    assert "No module named 'nothing_of_the_kind'" in (one(catalogue, "shop").error or "")
    assert catalogue.get("shop").name == "shop"


@pytest.mark.parametrize(
    ("tools", "says"),
    [
        ("[./shop.py:prise]", "there is no function 'prise'; it has in_stock, price, broken"),
        ("[./shop.py:broken]", "parameter 'item' has no annotation"),
        ("[./none.py:price]", "there is no such file"),
        ("[./exits.py:price]", "SystemExit: 3"),
        ("[./shop.py:price, ./other.py:price]", "two of tools are called 'price'"),
    ],
)
def test_a_reference_that_leads_nowhere_is_named(
    tmp_path: pathlib.Path, pentad_: Pentad, tools: str, says: str
) -> None:
    folder = folder_of(tmp_path / "agents", shop_yaml=f"name: shop\ntools: {tools}", shop_py=TOOLS)
    folder_of(folder, exits_py="raise SystemExit(3)", other_py=TOOLS)
    done = pentad_("agent", "check", str(folder / "shop.yaml"))
    assert done.status == 1
    if "it has" not in says:
        assert says in done.out
    else:
        assert "there is no function 'prise'; it has " in done.out


def test_only_files_that_agent_files_name_are_loaded(tmp_path: pathlib.Path) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "evil.py").write_text(f"open({str(canary)!r}, 'w')\ndef price(item: str) -> str: return item")

    async def scenario() -> None:
        async with harness(tmp_path, []) as h:
            # As an edited journal, or a caller of the runtime, would have it.
            agent = AgentSpec(name="x", tools=(f"{tmp_path}/evil.py:price",))
            with pytest.raises(Forbidden, match="--agents"):
                await h.runtime.start(agent, "go")

    run(scenario())
    assert not canary.exists()


def test_the_command_line_lists_shows_and_checks(tmp_path: pathlib.Path, pentad_: Pentad) -> None:
    folder = folder_of(tmp_path / "agents", shop_yaml=SHOP, shop_py=TOOLS, bad_yaml="name: bad\nmax_stps: 1")
    listed = pentad_("agent", "list", "--agents", "agents")
    assert "Knows prices." in listed.out
    assert "did you mean 'max_steps'?" in listed.out
    assert "demo" in listed.out
    shown = pentad_("agent", "show", "shop", "--agents", "agents")
    again = agent_from(yaml.safe_load(shown.out))
    assert again == load_agent(folder / "shop.yaml")
    checked = pentad_("agent", "check", "agents/shop.yaml", "agents/bad.yaml")
    assert checked.status == 1
    assert "agents/shop.yaml: agent shop is sound" in checked.out
    assert "agents/bad.yaml: max_stps: unknown field" in checked.out
    assert pentad_("agent", "show", "none").status == 2


def test_the_shown_shop_answers_a_mere_question_with_its_tool(pentad_: Pentad) -> None:
    shown = pathlib.Path(__file__).parents[2] / "examples/agents/shop.yaml"
    assert pentad_("agent", "check", str(shown)).status == 0
    catalogue = AgentCatalogue(patterns=[str(shown)])
    spec = catalogue.get("shop")
    tool = catalogue.tool_files.tool(spec.tools[0])
    state = RunState(run_id="r", spec=spec, goal="What does a lamp cost?", tenant="t")
    assert planner_for(spec).withholds(state, [tool]) == {}


def test_an_agent_as_written_reads_back(tmp_path: pathlib.Path) -> None:
    data: dict[str, Any] = {
        "name": "x",
        "mcpServers": {"files": {"command": "npx", "args": ["-y", "server"]}},
        "planner": {"name": "react", "options": {"mode": "guided"}},
        "memory": {"long_term": {"k": 2}},
        "budget": {"tokens": 5},
        "ask": ["files__*"],
        "ask_timeout_s": None,
    }
    spec = agent_from(data)
    assert agent_from(written(spec)) == spec
    assert "max_steps" not in written(spec)


def test_a_tool_file_is_loaded_once_for_all_who_name_it(tmp_path: pathlib.Path) -> None:
    count = f"\nwith open({str(tmp_path / 'loaded')!r}, 'a') as file: file.write('x')"
    folder = folder_of(tmp_path / "agents", shop_yaml=SHOP, shop_py=TOOLS + count)
    files = ToolFiles()
    for name in ("first", "second"):
        shutil.copy(folder / "shop.yaml", folder / f"{name}.yaml")
        files.allow(load_agent(folder / f"{name}.yaml"))
    assert (tmp_path / "loaded").read_text() == "x"


def test_the_shop_of_the_documentation_can_be_run(tmp_path: pathlib.Path) -> None:
    root = pathlib.Path(__file__).parents[2]
    told = (root / "docs" / "agent.md").read_text("utf-8")
    assert (root / "examples" / "agents" / "shop.yaml").read_text("utf-8") in told

    async def scenario() -> None:
        turns = [[call("price", item="lamp")], ["4"]]
        shop = AgentCatalogue(patterns=[str(root / "examples" / "agents")])
        async with harness(tmp_path, turns, agents=shop) as h:
            state = await h.work(replace(shop.get("shop"), planner=FREE))
            assert state.exchanges[0].results[0].content == "lamp costs 4 euros"

    run(scenario())
