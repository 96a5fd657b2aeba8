"""One inventory: leases, heartbeats, nodes that are lost, and nothing given away twice."""

from __future__ import annotations

import dataclasses
import random

import pytest

from evidence.plugin import Measure
from pentad.errors import Conflict, Infeasible, InvalidRequest, NotFound
from pentad.resource.inventory.agent import NodeAgent
from pentad.resource.inventory.amounts import Amounts
from pentad.resource.inventory.controller import Controller, Lease, Node, Work


def node(name: str, compute: float = 4.0, **changes: object) -> Node:
    amounts = Amounts(compute=compute, storage_bytes=100.0, bandwidth_bytes_per_s=10.0)
    return dataclasses.replace(Node(name=name, amounts=amounts), **changes)  # type: ignore[arg-type]


def work(id: str, compute: float = 1.0, **changes: float) -> Work:
    return Work(id=id, need=Amounts(compute=compute, **changes))


def controller(*nodes: Node) -> Controller:
    made = Controller(heartbeat_s=10.0)
    for each in nodes:
        made.join(each, 0.0)
    return made


class TestController:
    @pytest.mark.row("res-tiered-manager", "mechanism")
    def test_compute_storage_and_bandwidth_all_bind(self) -> None:
        made = controller(node("a"))
        assert made.request(work("w", 1.0, storage_bytes=90.0), 0.0) is not None
        assert made.request(work("x", 1.0, storage_bytes=20.0), 0.0) is None, "the storage is taken"
        assert made.request(work("y", 1.0, bandwidth_bytes_per_s=10.0), 0.0) is not None
        assert [lease.work.id for lease in made.release("w", 1.0)] == ["x"]

    @pytest.mark.row("res-tiered-manager", "mechanism")
    def test_the_own_site_comes_first_then_the_nearest_tier_then_the_fullest_node(self) -> None:
        made = controller(
            node("cloud", 64.0, tier=2), node("edge-1", site="one"), node("edge-2", site="two", compute=2.0)
        )

        def where(id: str, site: str, compute: float = 1.0) -> str:
            lease = made.request(dataclasses.replace(work(id, compute), site=site), 0.0)
            assert lease is not None
            return lease.node

        assert where("a", "two") == "edge-2"
        assert where("b", "elsewhere") == "edge-2", "of two edges the fuller one"
        assert where("c", "two") == "edge-1"
        assert where("d", "one", 8.0) == "cloud"

    @pytest.mark.row("res-tiered-manager", "mechanism")
    def test_a_lost_node_s_work_goes_elsewhere_in_front_of_what_waits(self) -> None:
        made = controller(node("a"), node("b"))
        for id, compute in (("w", 2.0), ("v", 2.0), ("x", 3.0)):
            assert made.request(work(id, compute), 0.0) is not None
        assert {id: lease.node for id, lease in made.leases.items()} == {"w": "a", "v": "a", "x": "b"}
        assert made.request(work("y", 4.0), 1.0) is None
        made.heartbeat("b", 10.0)
        made.expire(14.9)
        assert made.leases["w"].node == "a"
        made.expire(15.0)
        assert list(made.waiting) == ["w", "v", "y"], "b has room for one more unit only"
        with pytest.raises(NotFound, match="not in the inventory") as caught:
            made.heartbeat("a", 16.0)
        assert "join again" in str(caught.value.hint)
        assert [lease.work.id for lease in made.join(node("c"), 16.0)] == ["w", "v"]
        made.check_integrity()

    def test_what_cannot_be_is_refused(self) -> None:
        made = controller(node("a"))
        made.request(work("w"), 0.0)
        with pytest.raises(Conflict, match="'w' was asked for before"):
            made.request(work("w"), 0.0)
        with pytest.raises(Infeasible, match="no node has what work 'x' needs"):
            made.request(work("x", 5.0), 0.0)
        with pytest.raises(NotFound, match="no work 'y'"):
            made.release("y", 0.0)
        with pytest.raises(Conflict, match="'a' is in the inventory"):
            made.join(node("a"), 1.0)
        with pytest.raises(InvalidRequest, match="lease_s is "):
            Controller(heartbeat_s=10.0, lease_s=10.0)

    @pytest.mark.row("res-tiered-manager", "mechanism")
    def test_an_agent_that_is_not_answered_stops_before_its_work_is_given_away(self) -> None:
        agent = NodeAgent("a", lease_s=15.0)
        agent.answered([Lease(work=work("w"), node="a", number=1)], sent_s=0.0)
        assert agent.running(14.9) == ("w",)
        assert agent.running(15.0) == ()


BEAT_S = 10.0
DELAY_S = 0.5
"""The most that a message takes."""


class World:
    """Fifty nodes, of which some fall silent and come back, and work that comes and goes."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.controller = Controller(heartbeat_s=BEAT_S)
        self.nodes = [node(f"n{i}", float(self.draw.randint(2, 8)), tier=i % 3) for i in range(50)]
        self.agents = {
            each.name: NodeAgent(each.name, lease_s=self.controller.lease_s) for each in self.nodes
        }
        self.silent_since: dict[str, float] = {}
        """Nodes that cannot be reached; they run on."""
        self.next_beat = {each.name: self.draw.uniform(0, BEAT_S) for each in self.nodes}
        self.last_beat: dict[str, float] = {}
        self.now_s = 0.0
        self.work = 0
        self.lost_at: dict[str, float] = {}
        """Work of a node that fell silent, and its last heartbeat."""
        self.reassigned_after: list[float] = []
        for each in self.nodes:
            self.controller.join(each, 0.0)

    def step(self) -> None:
        """One event, somewhat later than the one before."""
        self.now_s += self.draw.expovariate(20.0)
        for name, at in self.next_beat.items():
            if at <= self.now_s:
                self.next_beat[name] = at + BEAT_S
                if name not in self.silent_since:
                    self._beat(name)
        kind = self.draw.random()
        if kind < 0.5:
            self.work += 1
            self.controller.request(work(f"w{self.work}", self.draw.choice((0.5, 1.0, 2.0))), self.now_s)
        elif kind < 0.97:
            there = list(self.controller.leases)
            if there:
                gone = self.draw.choice(there)
                self.controller.release(gone, self.now_s)
                self.lost_at.pop(gone, None)
                for agent in self.agents.values():  # told by a message of its own
                    agent.answered([e for e in agent_leases(agent) if e.work.id != gone], agent_sent(agent))
        elif self.silent_since and kind < 0.985:
            back = self.draw.choice(list(self.silent_since))
            del self.silent_since[back]
        elif len(self.silent_since) < 10:
            name = self.draw.choice([each.name for each in self.nodes if each.name not in self.silent_since])
            self.silent_since[name] = self.now_s
            for id, lease in self.controller.leases.items():
                if lease.node == name:
                    self.lost_at[id] = self.last_beat.get(name, 0.0)
        for id, since in list(self.lost_at.items()):
            lease = self.controller.leases.get(id)
            if lease is not None and lease.node not in self.silent_since:
                self.reassigned_after.append(self.now_s - since)
                del self.lost_at[id]
            elif id in self.controller.waiting:
                del self.lost_at[id]  # there is no room: it is first in the queue

    def _beat(self, name: str) -> None:
        sent_s = self.now_s - self.draw.uniform(0, DELAY_S)
        agent = self.agents[name]
        try:
            leases = self.controller.heartbeat(name, self.now_s)
        except NotFound:
            agent.answered((), sent_s)
            self.controller.join(next(each for each in self.nodes if each.name == name), self.now_s)
            leases = ()
        self.last_beat[name] = self.now_s
        agent.answered(leases, sent_s)

    def running(self) -> list[str]:
        """All work that agents run at this instant."""
        return [id for agent in self.agents.values() for id in agent.running(self.now_s)]


def agent_leases(agent: NodeAgent) -> list[Lease]:
    return list(agent._leases.values())


def agent_sent(agent: NodeAgent) -> float:
    return agent._until_s - agent._lease_s


@pytest.mark.row("res-tiered-manager", "effect", claims=(1, 2))
def test_fifty_nodes_of_which_some_fall_silent_never_run_anything_twice(measured: Measure) -> None:
    world, twice = World(8), 0
    for event in range(10_000):
        world.step()
        running = world.running()
        twice += len(running) - len(set(running))
        if event % 50 == 0:
            world.controller.check_integrity()
    assert len(world.reassigned_after) > 50, "there must have been losses to show anything"
    worst = max(world.reassigned_after) / BEAT_S
    print(f"\n{len(world.reassigned_after)} pieces of lost work, elsewhere after {worst:.2f} beats at most")
    measured("heartbeats until lost work is elsewhere, worst", worst, at_most=2.0)
    measured("pieces of work that ran twice over 10,000 events", float(twice), at_most=0.0)
