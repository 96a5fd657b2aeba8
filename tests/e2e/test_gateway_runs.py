"""Agent runs as a resource of a live gateway."""

from __future__ import annotations

import asyncio
import json
import pathlib
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway_support import eventually, scripted
from pentad.agent.catalogue import AgentCatalogue
from pentad.agent.spec import AgentSpec
from pentad.choice import Choice
from pentad.types import Budget, ToolCall

AGENTS = {
    "helper": AgentSpec(name="helper"),
    "thrifty": AgentSpec(name="thrifty", budget=Budget(tokens=1)),
}


def events_of(response: httpx2.Response) -> Iterator[dict[str, Any]]:
    """The events of a stream, as they come."""
    event: dict[str, Any] = {}
    for line in response.iter_lines():
        if not line:
            if event:
                yield event
            event = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = json.loads(value) if name == "data" else value


def started(client: httpx2.Client, agent: Any = "helper", **fields: Any) -> dict[str, Any]:
    response = client.post("/v1/runs", json={"agent": agent, "goal": "Say hello", **fields})
    assert response.status_code == 201, response.text
    run: dict[str, Any] = response.json()
    return run


def ended(client: httpx2.Client, run_id: str) -> dict[str, Any]:
    unfinished = ("running", "waiting")
    eventually(lambda: client.get(f"/v1/runs/{run_id}").json()["status"] not in unfinished)
    run: dict[str, Any] = client.get(f"/v1/runs/{run_id}").json()
    return run


def test_a_run_is_started_followed_and_explained() -> None:
    with scripted(["Hello."], repeat=True, agents=AGENTS) as live, httpx2.Client(base_url=live.url) as client:
        run = started(client)
        assert run["status"] == "running"
        with client.stream("GET", f"/v1/runs/{run['id']}/events") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            events = list(events_of(response))
        kinds = [event["event"] for event in events]
        assert (kinds[0], kinds[-1]) == ("run_started", "run_ended")
        assert all(event["data"]["type"] == event["event"] for event in events)
        shown = ended(client, run["id"])
        assert (
            shown["created_at"] <= shown["ended_at"] == client.get("/v1/runs").json()["data"][0]["ended_at"]
        )
        assert run["ended_at"] is None
        assert shown["answer"] == events[-1]["data"]["answer"]
        assert shown["usage"]["model_calls"] >= 1
        listed = client.get("/v1/runs").json()["data"]
        assert [(one["id"], one["status"]) for one in listed] == [(run["id"], shown["status"])]
        told = client.get(f"/v1/runs/{run['id']}/explain").json()
        assert [layer["layer"] for layer in told["layers"]] == [
            "application",
            "agent",
            "model",
            "resource",
            "execution",
        ]
        bars = told["waterfall"]
        assert bars
        assert all(0 <= bar["start_s"] <= bar["end_s"] <= told["active_s"] + 0.001 for bar in bars)
        asked = client.get(f"/v1/runs/{run['id']}/prompts").json()["data"]
        assert [(a["step"], a["attempt"], a["retained"]) for a in asked] == [(1, 1, True)]
        assert "Say hello" in asked[0]["prompt"]
        assert client.get("/v1/runs/run_0/prompts").status_code == 404
        assert [agent["name"] for agent in client.get("/v1/agents").json()["data"]] == ["helper", "thrifty"]


def test_followers_of_ones_own_runs_are_bounded_and_leave_other_requests_alone() -> None:
    gate = asyncio.Event()
    with (
        scripted(["a", gate], agents=AGENTS, repeat=True, max_followers=2) as live,
        httpx2.Client(base_url=live.url) as client,
        ExitStack() as held,
    ):
        run = started(client)
        path = f"/v1/runs/{run['id']}/events"
        for _ in range(2):
            assert held.enter_context(client.stream("GET", path)).status_code == 200
        followers = live.gateway.load.followers
        eventually(lambda: followers.total == 2)
        refused = client.get(path)
        assert refused.status_code == 429
        assert "server.max_followers" in refused.json()["error"]["message"]
        assert client.get(f"/v1/runs/{run['id']}").status_code == 200
        held.close()
        eventually(lambda: followers.total == 0)
        client.post(f"/v1/runs/{run['id']}/cancel")


def test_a_follower_resumes_after_the_last_event_it_saw() -> None:
    with scripted(["Hello."], repeat=True, agents=AGENTS) as live, httpx2.Client(base_url=live.url) as client:
        run = started(client)
        ended(client, run["id"])
        path = f"/v1/runs/{run['id']}/events"
        whole = list(events_of(client.get(path)))
        numbers = [int(event["id"]) for event in whole]
        assert numbers == list(range(1, len(whole) + 1))
        rest = list(events_of(client.get(path, headers={"last-event-id": "2"})))
        assert rest == whole[2:]
        assert list(events_of(client.get(path, params={"after": 2}))) == rest
        for last in (numbers[-1], 10**12):
            assert client.get(path, headers={"last-event-id": str(last)}).status_code == 204
        assert client.get(path, headers={"last-event-id": "x"}).status_code == 400


def test_a_run_is_cancelled_and_stays_so() -> None:
    never = asyncio.Event()
    with (
        scripted(["Thinking", never], repeat=True, agents=AGENTS) as live,
        httpx2.Client(base_url=live.url) as client,
    ):
        run = started(client)
        assert live.backend is not None
        eventually(lambda: live.backend is not None and len(live.backend.requests) == 1)
        assert client.post(f"/v1/runs/{run['id']}/cancel").json()["status"] == "cancelled"
        for verb in ("cancel", "resume"):
            again = client.post(f"/v1/runs/{run['id']}/{verb}")
            assert again.status_code == 409
            assert "already ended: cancelled" in again.json()["error"]["message"]
        eventually(lambda: live.backend is not None and live.backend.closed_early == 1)


def test_a_described_agent_runs_but_may_not_reach_the_server_itself() -> None:
    with scripted(["Hello."], repeat=True, agents=AGENTS) as live, httpx2.Client(base_url=live.url) as client:
        run = started(client, {"name": "mine", "instructions": "Be brief.", "max_steps": 2})
        assert ended(client, run["id"])["agent"] == "mine"
        for extra in (
            {"mcpServers": {"x": {"command": "touch", "args": ["/tmp/owned"]}}},
            {"mcp_servers": {"x": {"url": "http://127.0.0.1:1"}}},
            {"tool_options": {"search": {"folder": "/"}}},
        ):
            refused = client.post("/v1/runs", json={"goal": "x", "agent": {"name": "mine", **extra}})
            assert refused.status_code == 403, extra
            assert "on the server" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"agent": "nobody", "goal": "x"}, 400),
        ({"agent": "helper", "goal": ""}, 400),
        ({"agent": "helper"}, 400),
        ({"agent": {"name": "no spaces"}, "goal": "x"}, 400),
        ({"agent": {"name": "a", "tools": ["nothing"]}, "goal": "x"}, 400),
        ({"agent": {"name": "a", "unheard_of": 1}, "goal": "x"}, 400),
        ({"agent": {"name": "a", "max_steps": -1}, "goal": "x"}, 400),
    ],
)
def test_runs_that_cannot_be_are_refused(body: dict[str, Any], status: int) -> None:
    with scripted(["x"], repeat=True, agents=AGENTS) as live:
        response = httpx2.post(f"{live.url}/v1/runs", json=body)
        assert response.status_code == status, response.text
        assert response.json()["error"]["message"]


def test_another_tenant_sees_nothing_of_a_run() -> None:
    keys = ("ann:one", "bob:two")
    with scripted(["Hello."], repeat=True, agents=AGENTS, api_keys=keys) as live:
        ann = httpx2.Client(base_url=live.url, headers={"x-api-key": "one"})
        bob = httpx2.Client(base_url=live.url, headers={"x-api-key": "two"})
        with ann, bob:
            run = started(ann)
            ended(ann, run["id"])
            assert bob.get("/v1/runs").json()["data"] == []
            for method, tail in [
                ("GET", ""),
                ("GET", "/events"),
                ("GET", "/explain"),
                ("POST", "/cancel"),
                ("POST", "/resume"),
            ]:
                assert bob.request(method, f"/v1/runs/{run['id']}{tail}").status_code == 404, tail


def test_run_metrics_count_completions_and_budget_refusals() -> None:
    with scripted(["Hello."], repeat=True, agents=AGENTS) as live, httpx2.Client(base_url=live.url) as client:
        good, bad = started(client), started(client, "thrifty")
        status = ended(client, good["id"])["status"]
        assert ended(client, bad["id"])["status"] == "budget_exceeded"

        def value(name: str, **labels: str) -> float:
            text = client.get("/metrics").text
            samples = [s for f in text_string_to_metric_families(text) for s in f.samples if s.name == name]
            return sum(s.value for s in samples if labels.items() <= s.labels.items())

        eventually(lambda: value("pentad_runs_total", agent="thrifty", status="budget_exceeded") == 1)
        eventually(lambda: value("pentad_runs_total", agent="helper", status=status) == 1)
        assert value("pentad_run_completion_seconds_count", agent="helper") == 1
        assert value("pentad_budget_refusals_total", agent="thrifty") == 1
        assert value("pentad_budget_refusals_total", agent="helper") == 0
        assert value("pentad_run_tokens_total", agent="helper") > 0


def test_a_server_without_agents_says_so() -> None:
    with scripted(["x"]) as live:
        response = httpx2.get(f"{live.url}/v1/runs")
        assert response.status_code == 404
        assert "no agents" in response.json()["error"]["message"]


CAREFUL = {
    "careful": AgentSpec(
        name="careful",
        description="Counts, once a person agrees.",
        tools=("calculator",),
        ask=("calculator",),
        planner=Choice(name="react", options={"max_plan": 0}),
    )
}
SUM = [ToolCall(id="c", name="calculator", arguments='{"expression": "1 + 1"}')]


def waiting(client: httpx2.Client) -> dict[str, Any]:
    """A started run of `careful` that waits for its approval."""
    run = started(client, "careful")
    eventually(lambda: client.get(f"/v1/runs/{run['id']}").json()["status"] == "waiting")
    shown: dict[str, Any] = client.get(f"/v1/runs/{run['id']}").json()
    return shown


def test_a_waiting_run_shows_its_question_and_goes_on_with_the_answer() -> None:
    with scripted(SUM, ["Two."], agents=CAREFUL) as live, httpx2.Client(base_url=live.url) as client:
        run = waiting(client)
        (asked,) = run["pending"]
        assert (asked["tool"], asked["step"], asked["index"]) == ("calculator", 1, 0)
        assert json.loads(asked["arguments"]) == {"expression": "1 + 1"}
        assert asked["asked_at"] < asked["expires_at"]
        assert client.get("/v1/runs", params={"status": "waiting"}).json()["data"][0]["id"] == run["id"]
        path = f"/v1/runs/{run['id']}/approvals/{asked['id']}"
        assert client.post(path, json={"approve": "maybe"}).status_code == 400
        assert client.post(f"{path}x", json={"approve": True}).status_code == 404
        assert client.post(f"/v1/runs/no/approvals/{asked['id']}", json={"approve": True}).status_code == 404
        answer = client.post(path, json={"approve": True, "note": "go on"})
        assert answer.status_code == 200
        assert answer.json()["pending"] == []
        assert ended(client, run["id"])["answer"] == "Two."
        assert client.post(path, json={"approve": False}).status_code == 409
        with client.stream("GET", f"/v1/runs/{run['id']}/events") as response:
            kinds = [event["event"] for event in events_of(response)]
        assert kinds.index("approval_answered") < kinds.index("tool_intended")


def test_a_run_is_forked_from_a_step_with_another_goal() -> None:
    turns = [SUM, ["Two."], ["Still two."]]
    with scripted(*turns, agents=CAREFUL) as live, httpx2.Client(base_url=live.url) as client:
        run = waiting(client)
        client.post(f"/v1/runs/{run['id']}/approvals/{run['pending'][0]['id']}", json={"approve": True})
        ended(client, run["id"])
        path = f"/v1/runs/{run['id']}/fork"
        made = client.post(path, json={"step": 2, "goal": "Say it again", "model": "scripted"})
        assert made.status_code == 201
        assert made.json()["forked_from"] == {"run_id": run["id"], "step": 2}
        fork = ended(client, made.json()["id"])
        assert (fork["goal"], fork["answer"], fork["steps"]) == ("Say it again", "Still two.", 2)
        for body in ({"step": 0}, {"step": 9}, {"step": 1, "model": "none"}, {}, {"step": 1, "goal": ""}):
            refused = client.post(path, json=body)
            assert refused.status_code in (400, 404), body
        assert client.post("/v1/runs/nope/fork", json={"step": 1}).status_code == 404


def test_a_run_is_started_with_a_model_in_place_of_the_agents() -> None:
    agents = {"helper": AgentSpec(name="helper", model="elsewhere")}
    with scripted(["Hello."], agents=agents) as live, httpx2.Client(base_url=live.url) as client:
        assert ended(client, started(client, model="scripted")["id"])["answer"] == "Hello."
        refused = client.post("/v1/runs", json={"agent": "helper", "goal": "x", "model": "none"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (404, "model")


def test_agents_are_listed_with_what_they_are_good_for() -> None:
    with scripted(agents=CAREFUL) as live, httpx2.Client(base_url=live.url) as client:
        (card,) = client.get("/v1/agents").json()["data"]
        assert card["description"] == "Counts, once a person agrees."
        assert (card["tools"], card["source"], card["error"]) == (["calculator"], "built-in", None)


def test_agents_of_files_show_up_change_and_say_what_is_wrong_while_serving(tmp_path: pathlib.Path) -> None:
    catalogue = AgentCatalogue(patterns=[str(tmp_path)])
    with (
        scripted(["Hello."], repeat=True, agents=catalogue) as live,
        httpx2.Client(base_url=live.url) as client,
    ):

        def cards() -> dict[str, Any]:
            return {card["name"]: card for card in client.get("/v1/agents").json()["data"]}

        assert cards() == {}
        file = tmp_path / "greeter.yaml"
        file.write_text("name: greeter\ndescription: Greets.\nplanner: {max_plan: 0}")
        assert cards()["greeter"]["description"] == "Greets."
        assert ended(client, started(client, "greeter")["id"])["status"] == "answered"
        file.write_text("name: greeter\nplanner: {mode: gided}")
        broken = cards()["greeter"]
        assert "did you mean 'guided'?" in broken["error"]
        assert (broken["source"], broken["description"]) == (str(file), "Greets.")
        assert ended(client, started(client, "greeter")["id"])["status"] == "answered"


@pytest.mark.parametrize(
    ("agent", "status", "says"),
    [
        ({"name": "a", "budget": {"tokens": -1}}, 400, "tokens is -1"),
        ({"name": "a", "budget": {"wall_s": -0.5}}, 400, "wall_s is -0.5"),
        ({"name": "a", "planner": {"mode": "gided"}}, 400, "did you mean 'guided'?"),
        ({"name": "a", "planner": {"max_pln": 3}}, 400, "did you mean 'max_plan'?"),
        ({"name": "a", "tools": ["/etc/evil.py:run"]}, 403, "may not bring the Python file"),
        ({"name": "a", "mcpServers": {"s": {"command": "sh"}}}, 403, "--agents"),
        ({"name": "a", "sandbox": "container"}, 403, "may not bring sandbox"),
        ({"name": "a", "guides": ["/etc/passwd"]}, 403, "may not bring guides"),
    ],
)
def test_a_described_agent_is_checked_before_it_runs(agent: dict[str, Any], status: int, says: str) -> None:
    with scripted(["Hello."], agents=AGENTS) as live, httpx2.Client(base_url=live.url) as client:
        refused = client.post("/v1/runs", json={"agent": agent, "goal": "x"})
        assert refused.status_code == status, refused.text
        assert says in refused.json()["error"]["message"]
        assert client.get("/v1/runs").json()["data"] == []


def test_negative_budgets_of_a_run_are_refused() -> None:
    with scripted(["Hello."], agents=AGENTS) as live, httpx2.Client(base_url=live.url) as client:
        for limit in ("tokens", "cost", "wall_s", "tool_calls"):
            body = {"agent": "helper", "goal": "x", "pentad": {"budget": {limit: -1}}}
            assert client.post("/v1/runs", json=body).status_code == 400, limit
