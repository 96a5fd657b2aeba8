"""Sub-runs where people meet them: the command line, HTTP, and the verbs of data."""

from __future__ import annotations

import asyncio
import json
import pathlib
from contextlib import aclosing

import httpx2
import pytest

from agent_support import Harness, call, harness, run
from cli_support import Pentad, pentad_
from gateway_app import BASE
from pentad.agent.tools.functions import tool
from pentad.application.cli.agents import of_members, serving_only
from pentad.application.config import Settings
from pentad.application.config_loading import load_settings
from pentad.application.gateway import GatewaySettings, create_app
from pentad.application.services import Services
from team_support import agent, by_agent, delegated, team

__all__ = ["pentad_"]

SCRIPT = {
    "lead": [[delegated("ann", "order lamps")], ["all ordered"]],
    "ann": [[call("order", lamps=3)], ["ordered three"]],
}
LEAD = team({"ann": agent("ann", tools=("order",), ask=("order",))})


@tool
def order(lamps: int) -> str:
    """Orders lamps."""
    return f"ordered {lamps}"


async def waiting(h: Harness) -> str:
    """A run whose sub-run waits for a person."""
    run_id = await h.runtime.start(LEAD, "furnish")
    async with asyncio.timeout(10), aclosing(h.runtime.events(run_id)) as records:
        async for record in records:
            if record.kind == "sub_run_changed":
                break
    return run_id


def left_waiting() -> str:
    """Such a run in the journal of this home, with nobody at work on it."""

    async def scenario() -> str:
        path = load_settings().journal_path
        h = Harness(path.parent, [by_agent(SCRIPT)], [order], journal=path.name, repeat=True)
        run_id = await waiting(h)
        await h.runtime.close()
        return run_id

    return run(scenario())


def test_the_command_line_shows_answers_and_ends_a_tree_of_runs(pentad_: Pentad) -> None:
    run_id = left_waiting()
    child = f"{run_id}-1-0"
    listed = {row["id"]: row for row in json.loads(pentad_("runs", "list", "--json").out)}
    assert {i: row["status"] for i, row in listed.items()} == {run_id: "waiting", child: "waiting"}
    assert listed[child]["parent"] == {"run_id": run_id, "step": 1, "index": 0}
    shown = pentad_("runs", "show", run_id).out
    assert f"begin   ann: order lamps\n        as sub-run {child}" in shown
    assert f"wait    sub-run {child} asks a person" in shown
    whole = json.loads(pentad_("runs", "show", child, "--json").out)
    assert whole["parent"]["run_id"] == run_id
    told = json.loads(pentad_("runs", "explain", run_id, "--json").out)
    assert [(s["run_id"], s["status"]) for s in told["sub_runs"]] == [(child, "running")]
    assert "ann" in pentad_("runs", "explain", run_id).out
    done = pentad_("runs", "approve", run_id)
    assert (done.status, done.out) == (0, f"approved: order in {child}\n")
    assert f"pentad runs resume {run_id} goes on with it" in done.err
    refused = pentad_("runs", "rm", child, "--yes")
    assert refused.status != 0
    assert f"is a sub-run of '{run_id}'" in refused.err
    assert pentad_("runs", "cancel", run_id).status == 0
    assert {row["status"] for row in json.loads(pentad_("runs", "list", "--json").out)} == {"cancelled"}
    removed = pentad_("runs", "prune", "--days", "0", "--yes", "--json")
    assert json.loads(removed.out) == {"removed": [run_id, child]}
    assert json.loads(pentad_("runs", "list", "--json").out) == []


def test_http_shows_the_tree_and_takes_answers_at_the_root(
    tmp_path: pathlib.Path,
) -> None:

    async def scenario() -> None:
        async with harness(tmp_path, [by_agent(SCRIPT)], [order], repeat=True) as h:
            app = create_app(Services(models=h.models, agents=h.runtime), GatewaySettings())
            transport = httpx2.ASGITransport(app=app, raise_app_exceptions=True)
            async with httpx2.AsyncClient(transport=transport, base_url=BASE) as client:
                run_id = await waiting(h)
                child = f"{run_id}-1-0"
                root = (await client.get(f"/v1/runs/{run_id}")).json()
                assert (root["status"], root["parent"]) == ("waiting", None)
                assert [(c["run_id"], c["agent"], c["status"]) for c in root["children"]] == [
                    (child, "ann", "waiting")
                ]
                (asked,) = root["pending"]
                assert (asked["run_id"], asked["tool"]) == (child, "order")
                inner = (await client.get(f"/v1/runs/{child}")).json()
                assert inner["parent"] == {"run_id": run_id, "step": 1, "index": 0}
                lines = (await client.get("/v1/runs")).json()["data"]
                assert {line["id"]: line["parent"] is None for line in lines} == {run_id: True, child: False}
                refused = await client.post(f"/v1/runs/{child}/resume")
                assert refused.status_code == 409
                said = await client.post(f"/v1/runs/{run_id}/approvals/{asked['id']}", json={"approve": True})
                assert said.status_code == 200
                await h.runtime.wait(run_id)
                ended = (await client.get(f"/v1/runs/{run_id}")).json()
                assert (ended["answer"], ended["pending"]) == ("all ordered", [])
                told = (await client.get(f"/v1/runs/{run_id}/explain")).json()
                assert told["sub_runs"][0]["status"] == "answered"
                assert told["sub_runs"][0]["seconds"] > 0
                assert "assignment" in {decision["subject"] for decision in told["decisions"]}

    run(scenario())


@pytest.mark.parametrize(
    "member",
    [{"tools": ["./x.py:f"]}, {"mcpServers": {"s": {"command": "sh"}}}, {"tool_options": {"search": {}}}],
)
def test_a_team_sent_over_http_may_not_bring_files_or_programs(
    tmp_path: pathlib.Path, member: dict[str, object]
) -> None:

    async def scenario() -> None:
        async with harness(tmp_path, [["x"]]) as h:
            app = create_app(Services(models=h.models, agents=h.runtime), GatewaySettings())
            transport = httpx2.ASGITransport(app=app, raise_app_exceptions=True)
            async with httpx2.AsyncClient(transport=transport, base_url=BASE) as client:
                body = {
                    "goal": "g",
                    "agent": {"name": "a", "coordinator": "supervisor", "agents": {"m": member}},
                }
                answer = await client.post("/v1/runs", json=body)
                assert answer.status_code == 403
                assert answer.json()["error"]["param"].startswith("agent.agents.m.")

    run(scenario())


def test_the_models_of_a_team_are_served_beside_the_leads() -> None:
    spec = team({"ann": agent("ann", model="small"), "bob": agent("bob", model="small")})
    assert of_members(spec) == ("small",)
    settings = Settings(models=("big",))
    assert serving_only(settings, "", *of_members(spec)).models == ("big", "small")
    assert serving_only(settings, "lead", *of_members(spec)).models == ("lead", "small")
    assert serving_only(settings, "") == settings
