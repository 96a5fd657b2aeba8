"""Coordinators: every registered one keeps the contract; teams are read from files."""

from __future__ import annotations

import pathlib
from dataclasses import replace
from typing import Any, get_args

import pytest

from agent_support import harness, run
from pentad import registry
from pentad.agent.budget import Ledger
from pentad.agent.catalogue import AgentCatalogue
from pentad.agent.coordination.base import (
    MEMBERS,
    PEERS,
    Assigns,
    Coordinator,
    Move,
    Team,
    coordinator_for,
)
from pentad.agent.loading import agent_from, load_agent, written
from pentad.agent.spec import AgentSpec
from pentad.agent.spec_check import check_agent
from pentad.agent.state import RunState
from pentad.agent.sub_run_events import SubRunStarted
from pentad.agent.tools.files import ToolFiles
from pentad.choice import Choice, build
from pentad.errors import InvalidRequest, NotFound, UnknownName
from pentad.types import Budget
from team_support import agent, by_agent, delegated

MEMBERS_OF = {"ann": agent("ann", description="knows lamps"), "bob": agent("bob", description="knows chairs")}


def lead(name: str, **fields: Any) -> AgentSpec:
    """A lead under the coordinator, with members if it needs them."""
    coordinator: Coordinator = build("coordinator", Choice(name=name))
    members = MEMBERS_OF if MEMBERS in coordinator.needs else {}
    return agent("lead", coordinator=Choice(name=name), agents=members, **fields)


def view(name: str, **fields: Any) -> Team:
    """The team at the start of a run."""
    state = RunState(run_id="run_1", spec=lead(name), goal="furnish", tenant="t", **fields)
    return Team(state=state, members=coordinator_for(state.spec).members(state))


@pytest.mark.parametrize("name", registry.known("coordinator"))
class TestEveryCoordinator:
    def test_equal_teams_get_equal_moves_actions_and_costs(self, name: str) -> None:
        one, other = coordinator_for(lead(name)), coordinator_for(lead(name))
        assert one.next(view(name)) == other.next(view(name))
        assert [a.spec for a in one.actions(view(name))] == [a.spec for a in other.actions(view(name))]
        assert one.cost(view(name)) == other.cost(view(name))

    def test_gives_tasks_to_members_only(self, name: str) -> None:
        coordinator, team = coordinator_for(lead(name)), view(name)
        move = coordinator.next(team)
        assert isinstance(move, get_args(Move))
        if isinstance(move, Assigns):
            assert {each.member for each in move.assignments} <= team.members.keys()
        for action in coordinator.actions(team):
            assert set(action.parameters["properties"]["member"]["enum"]) == set(team.members)

    def test_declares_its_needs_and_refuses_what_does_not_fit(self, name: str) -> None:
        coordinator = coordinator_for(lead(name))
        assert coordinator.needs <= {MEMBERS, PEERS}
        assert 0 <= coordinator.keep_fraction <= 1
        assert (coordinator.max_tasks > 0) == (MEMBERS in coordinator.needs)
        wrong = {} if MEMBERS in coordinator.needs else MEMBERS_OF
        with pytest.raises(InvalidRequest) as caught:
            coordinator_for(agent("lead", coordinator=Choice(name=name), agents=wrong))
        assert caught.value.hint
        if PEERS in coordinator.needs:
            alone = {"ann": MEMBERS_OF["ann"]}
            with pytest.raises(InvalidRequest, match="needs two members"):
                coordinator_for(agent("lead", coordinator=Choice(name=name), agents=alone))

    def test_a_run_ends_and_costs_no_more_than_said(self, name: str, tmp_path: pathlib.Path) -> None:
        coordinator = coordinator_for(lead(name))
        tasks = [delegated("ann", "a lamp", "c1"), delegated("bob", "a chair", "c2")]
        first: list[Any] = tasks if coordinator.actions(view(name)) else ["done"]
        script = {"lead": [first, ["done"]], "ann": [["lamp"]], "bob": [["chair"]]}

        async def scenario() -> None:
            async with harness(tmp_path, [by_agent(script)], repeat=True) as h:
                state = await h.work(lead(name, budget=Budget(tokens=8000)), "furnish")
                # Members that answer beside the question may leave a team without an answer.
                assert state.status == "answered" or (state.status == "refused" and state.error)
                said = coordinator.cost(view(name))
                assert len(state.children) <= said.sub_runs
                alone = h.models.count_tokens(h.backend.requests[0])
                bare = h.models.count_tokens(_without_actions(h.backend.requests[0], coordinator, name))
                assert alone - bare <= said.prompt_tokens
                begun = [r.event for r in h.records(state.run_id) if isinstance(r.event, SubRunStarted)]
                assert [e.decisions[0].policy for e in begun] == [name] * len(begun)
                assert all({n for n, _ in e.decisions[0].candidates} == {*MEMBERS_OF} for e in begun)
                assert state.ledger.used.tokens <= 8000
                assert state.ledger.held == {}
                inner = [h.runtime.show(child.run_id).ledger.used for child in state.children.values()]
                assert sum(each.tokens for each in inner) <= state.ledger.used.tokens

        run(scenario())

    def test_a_team_ends_within_a_budget_that_is_too_small(self, name: str, tmp_path: pathlib.Path) -> None:
        """Tokens for the first members at most: the run ends by itself and never passes the limit."""
        script = {"lead": [[delegated("ann", "a lamp", "c1")]], "ann": [["lamp"]], "bob": [["chair"]]}
        tokens = 700

        async def scenario() -> None:
            async with harness(tmp_path, [by_agent(script)], repeat=True) as h:
                state = await h.work(lead(name, budget=Budget(tokens=tokens)), "furnish")
                assert state.ended
                assert state.ledger.committed.tokens <= tokens
                assert all(child.ended for child in state.children.values())

        run(scenario())


def _without_actions(request: Any, coordinator: Coordinator, name: str) -> Any:
    actions = {action.name for action in coordinator.actions(view(name))}
    return replace(request, tools=tuple(tool for tool in request.tools if tool.name not in actions))


def test_an_unknown_coordinator_gets_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"unknown coordinator 'singel'; did you mean 'single'"):
        coordinator_for(agent("lead", coordinator=Choice(name="singel")))


def test_members_that_nobody_would_ask_are_refused_with_the_remedy() -> None:
    with pytest.raises(InvalidRequest, match=r"'single' gives no tasks to ann, bob.*coordinator: supervisor"):
        coordinator_for(agent("lead", agents=MEMBERS_OF))


def test_a_team_is_read_from_files_and_in_place_and_is_written_as_it_is_read(tmp_path: pathlib.Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "ann.yaml").write_text(
        "name: ann\ntools: [./prices.py:price]\nagents: {eve: {max_steps: 2}}\ncoordinator: single\n"
    )
    (tmp_path / "lead.yaml").write_text(
        "name: lead\ncoordinator: {name: single, options: {}}\n"
        "agents:\n  ann: parts/ann.yaml\n"
        "  bob: {instructions: Be quick., tools: [./own.py:f], planner: {max_plan: 0}}\n"
    )
    read = load_agent(tmp_path / "lead.yaml")
    assert read.agents["ann"].tools == (f"{tmp_path}/parts/prices.py:price",)
    assert read.agents["ann"].agents["eve"].name == "eve"
    assert read.agents["bob"].tools == (f"{tmp_path}/own.py:f",)
    assert read.agents["bob"].planner.options == {"max_plan": 0}
    assert agent_from(written(read)) == read


@pytest.mark.parametrize(
    ("member", "error", "says"),
    [
        ("lead.yaml", InvalidRequest, "agents.ann leads back to lead.yaml"),
        ("gone.yaml", NotFound, "agents.ann names no file: 'gone.yaml'"),
        ("7", InvalidRequest, "agents.ann is neither a file nor an agent"),
        ("{tols: [x]}", InvalidRequest, r"agents.ann: tols: unknown field; did you mean 'tools'\?"),
        ("{max_steps: 0}", InvalidRequest, "agents.ann: max_steps"),
    ],
)
def test_a_wrong_member_is_named(
    tmp_path: pathlib.Path, member: str, error: type[Exception], says: str
) -> None:
    (tmp_path / "lead.yaml").write_text(f"name: lead\nagents: {{ann: {member}}}\n")
    with pytest.raises(error, match=says):
        load_agent(tmp_path / "lead.yaml")


def test_a_budget_left_for_the_team_is_that_of_the_run() -> None:
    team = view("single", ledger=Ledger(budget=Budget(tokens=9)))
    assert (team.budget_left.tokens, team.log) == (9, ())


def test_a_member_is_checked_as_its_lead_is(tmp_path: pathlib.Path) -> None:
    (tmp_path / "ann.yaml").write_text("name: ann\ntools: [calculater]\n")
    (tmp_path / "lead.yaml").write_text("name: lead\ncoordinator: supervisor\nagents: {ann: ann.yaml}\n")
    with pytest.raises(UnknownName, match="did you mean 'calculator'"):
        check_agent(load_agent(tmp_path / "lead.yaml"), ToolFiles())


def test_a_team_is_read_again_when_a_members_file_changes(tmp_path: pathlib.Path) -> None:
    member = tmp_path / "parts" / "ann.yaml"
    member.parent.mkdir()
    member.write_text("name: ann\nmax_steps: 2\n")
    (tmp_path / "lead.yaml").write_text(
        "name: lead\ncoordinator: supervisor\nagents: {ann: parts/ann.yaml}\n"
    )
    catalogue = AgentCatalogue(patterns=(str(tmp_path / "lead.yaml"),))
    assert catalogue.get("lead").agents["ann"].max_steps == 2
    member.write_text("name: ann\nmax_steps: 31\n")
    assert catalogue.get("lead").agents["ann"].max_steps == 31
    member.write_text("name: ann\nmax_stebs: 3\n")
    (entry,) = catalogue.entries()
    assert "did you mean 'max_steps'" in (entry.error or "")
    assert entry.spec is not None, "the last good version goes on"
