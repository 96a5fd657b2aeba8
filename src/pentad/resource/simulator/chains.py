"""Chains: tokens that pass server after server, each with a range of layers, while servers slow down or die.

    client --token--> server a [0, 8) --> server b [8, 20) --> server c [20, 24) --> client
                      b dies: the client sends what it kept of b's inputs to whoever else has [8, 20)

For machines that belong to nobody in particular: volunteers (Petals) and phones in a ring (LinguaLinked).
Each server computes one token at a time, first come, first served.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pentad.resource.placement.base import PlacementProblem
from pentad.resource.placement.pipeline import ACTIVATION_BYTES
from pentad.resource.simulator.runner import drawn_token
from pentad.resource.step_shape import StepShape

Range = tuple[int, int]
RETRY_S = 0.5
"""After which a client looks again for servers where some layers are held by none."""
_CONTEXT = 256
"""Contexts within so many tokens take the same time."""


@dataclass(slots=True, kw_only=True)
class ChainServer:
    """A device and the layers that it has now."""

    name: str
    layers: Range
    factor: float = 1.0
    """How many times as long as its profile says it takes."""
    died_s: float = float("inf")
    ready_s: float = 0.0
    """When the layers that it has are loaded."""
    free_s: float = 0.0
    life: int = 0
    """How often it lost keys and values."""

    def holds(self, wanted: Range, now_s: float) -> bool:
        """Whether it computes these layers."""
        return now_s < self.died_s and self.layers[0] <= wanted[0] and wanted[1] <= self.layers[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """Layers that a server computes for a session, and its life when it got their keys and values."""

    server: str
    layers: Range
    life: int


@dataclass(slots=True, kw_only=True)
class ChainSession:
    """A request: its tokens, when they came, and who computes them."""

    id: int
    tokens: list[int]
    prompt_tokens: int
    hops: tuple[Hop, ...] = ()
    times_s: list[float] = field(default_factory=list)
    rebuilt_tokens: int = 0
    """Inputs that were sent again because keys and values were lost."""
    done: bool = False


class ChainWorld:
    """Clients that ask one thing after the other, and a controller that looks at the servers.

    Each session takes the chain that is soonest when it begins, and another one only where a server fails.

    Args:
        problem: model, devices and links.
        servers: with their first layers.
        look: called every `every_s` with this world; may call `move`.
    """

    def __init__(
        self,
        problem: PlacementProblem,
        servers: Sequence[ChainServer],
        *,
        look: Callable[[ChainWorld], None] | None = None,
        every_s: float = 1.0,
    ) -> None:
        self.problem = problem
        self.servers = {server.name: server for server in servers}
        self.sessions: list[ChainSession] = []
        self.now_s = 0.0
        self.moves: list[tuple[float, str, Range]] = []
        """When which server began to load which layers."""
        self.moved_bytes = 0.0
        self._look, self._every_s = look, every_s
        self._clients, self._seed = 0, 0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._times: dict[tuple[str, int, int], float] = {}
        self._ways: dict[str, tuple[float, float]] = {}

    def at(self, at_s: float, what: Callable[[], None]) -> None:
        """Something that happens at an instant."""
        heapq.heappush(self._queue, (at_s, self._count, what))
        self._count += 1

    def kill(self, name: str, at_s: float) -> None:
        """The server is gone from then on, with all that it holds."""
        self.servers[name].died_s = at_s

    def slow(self, name: str, at_s: float, factor: float) -> None:
        """The server takes so many times as long from then on."""

        def change() -> None:
            self.servers[name].factor = factor

        self.at(at_s, change)

    def run(self, clients: int, until_s: float, *, seed: int = 0) -> None:
        """Lets clients begin at once and go on until an instant; answers are as long as the workload says."""
        self._clients, self._seed = clients, seed
        for i in range(clients):
            self._enter(i)
        if self._look is not None:
            self.at(self._every_s, self._looked)
        while self._queue and self._queue[0][0] <= until_s:
            self.now_s, _, what = heapq.heappop(self._queue)
            what()

    def tokens_per_s(self, from_s: float, until_s: float) -> float:
        """Tokens of all sessions that came out in a span, per second."""
        count = sum(from_s <= at < until_s for session in self.sessions for at in session.times_s)
        return count / (until_s - from_s)

    def token_s(self, server: ChainServer, layers: int) -> float:
        """Seconds of one token of a short context through so many layers, as it is seen now."""
        return server.factor * self._seconds(server.name, layers, self.problem.workload.prompt_tokens)

    def move(self, name: str, layers: Range, *, source: str | None = None, keeps: bool = False) -> None:
        """A server takes another range: what it lacks comes over a link, or from its disk at that rate.

        Args:
            source: from which server; None takes any link that leads to it.
            keeps: whether keys and values come along, so that sessions lose none.
        """
        server, spec = self.servers[name], self.problem.spec
        new = set(range(*layers)) - set(range(*server.layers))
        form = self.problem.form
        size = len(new) * form.weight_bytes(spec.layer_parameters(0, 1))
        if keeps:
            tokens = sum(one.prompt_tokens + len(one.tokens) for one in self.sessions if not one.done)
            size += len(new) * form.kv_bytes(spec, tokens) / spec.layers
        else:
            server.life += 1
        sources = [source] if source else [other for other in self.servers if other != name]
        links = [link for other in sources if (link := self.problem.cluster.link(other, name)) is not None]
        rate = max((link.bytes_per_s for link in links), default=1e8)
        server.ready_s = max(self.now_s, server.ready_s) + size / rate
        server.layers = layers
        self.moved_bytes += size
        self.moves.append((self.now_s, name, layers))

    def relay(self, hops: Sequence[tuple[str, Range]]) -> None:
        """All sessions take this chain from now on; what they had came along."""
        for session in (one for one in self.sessions if not one.done):
            session.hops = tuple(
                Hop(server=name, layers=layers, life=self.servers[name].life) for name, layers in hops
            )

    def _enter(self, number: int) -> None:
        """A client's next session."""
        vocab, prompt = self.problem.spec.vocab_size, self.problem.workload.prompt_tokens
        session = ChainSession(id=number, tokens=[(self._seed + number) % vocab], prompt_tokens=prompt)
        self.sessions.append(session)
        self._begin(session)

    def _looked(self) -> None:
        assert self._look is not None
        self._look(self)
        self.at(self.now_s + self._every_s, self._looked)

    def _begin(self, session: ChainSession) -> None:
        """A chain for all layers; the prompt goes through it."""
        found = self._route((0, self.problem.spec.layers))
        if found is None:
            self.at(self.now_s + RETRY_S, lambda: self._begin(session))
            return
        session.hops = tuple(self._hop(name, layers) for name, layers in found)
        end_s = self._filled(session.hops, session.prompt_tokens)
        self.at(end_s, lambda: self._pass(session, 0))

    def _hop(self, name: str, layers: Range) -> Hop:
        return Hop(server=name, layers=layers, life=self.servers[name].life)

    def _filled(self, hops: Sequence[Hop], tokens: int) -> float:
        """When these have computed so many tokens, one after the other."""
        at_s = self.now_s
        for hop in hops:
            server = self.servers[hop.server]
            cost = self.problem.costs.cost(
                self.problem.cluster.device(server.name), self.problem.spec, self.problem.form, *hop.layers
            )
            took_s = server.factor * cost.seconds(StepShape.prefill(tokens))
            sent_s = self._sent_s(server.name, tokens)
            at_s = max(at_s + sent_s, server.free_s, server.ready_s) + took_s
            server.free_s = at_s
        return at_s

    def _pass(self, session: ChainSession, at: int) -> None:
        """The token goes on at a layer; behind the last one it is out, and the next one begins."""
        if at == self.problem.spec.layers:
            session.tokens.append(
                drawn_token(session.tokens[-1], session.prompt_tokens + len(session.tokens), self._vocab)
            )
            session.times_s.append(self.now_s)
            if len(session.times_s) == self.problem.workload.new_tokens:
                session.done = True
                self._enter(session.id + self._clients)
                return
            at = 0
        hop = next(hop for hop in session.hops if hop.layers[0] <= at < hop.layers[1])
        server = self.servers[hop.server]
        if not server.holds(hop.layers, self.now_s) or server.life != hop.life:
            self._repair(session, at)
            return
        context = session.prompt_tokens + len(session.tokens)
        begin_s = max(self.now_s, server.free_s, server.ready_s)
        server.free_s = begin_s + server.factor * self._seconds(server.name, hop.layers[1] - at, context)
        arrives_s = server.free_s + self._sent_s(server.name, 1)
        if server.free_s > server.died_s:  # it never answers; the client notices when it should have
            self.at(arrives_s, lambda: self._repair(session, at))
        else:
            self.at(arrives_s, lambda: self._pass(session, hop.layers[1]))

    @property
    def _vocab(self) -> int:
        return self.problem.spec.vocab_size

    def _repair(self, session: ChainSession, at: int) -> None:
        """Others take the layers of a server that is gone; their keys and values are computed anew."""
        place = next(i for i, hop in enumerate(session.hops) if hop.layers[0] <= at < hop.layers[1])
        found = self._route(session.hops[place].layers)
        if found is None:
            self.at(self.now_s + RETRY_S, lambda: self._repair(session, at))
            return
        hops = tuple(self._hop(name, layers) for name, layers in found)
        kept = session.prompt_tokens + len(session.tokens) - 1
        session.rebuilt_tokens += kept
        session.hops = (*session.hops[:place], *hops, *session.hops[place + 1 :])
        end_s = self._filled(hops, kept)
        self.at(end_s, lambda: self._pass(session, at))

    def _route(self, wanted: Range) -> list[tuple[str, Range]] | None:
        """Servers for these layers that would be done with a token soonest, waiting included."""
        best: dict[int, tuple[float, list[tuple[str, Range]]]] = {wanted[0]: (self.now_s, [])}
        for at in range(wanted[0], wanted[1]):
            if at not in best:
                continue
            for server in self.servers.values():
                end = min(server.layers[1], wanted[1])
                if end <= at or not server.holds((at, end), self.now_s):
                    continue
                took_s = server.factor * self._seconds(server.name, end - at, _CONTEXT)
                waits_s = max(best[at][0], server.free_s, server.ready_s)
                done_s = waits_s + took_s + self._sent_s(server.name, 1)
                if end not in best or done_s < best[end][0]:
                    best[end] = done_s, [*best[at][1], (server.name, (at, end))]
        return best[wanted[1]][1] if wanted[1] in best else None

    def _seconds(self, name: str, layers: int, context: int) -> float:
        key = name, layers, context // _CONTEXT
        if key not in self._times:
            device, spec = self.problem.cluster.device(name), self.problem.spec
            cost = self.problem.costs.cost(device, spec, self.problem.form, 0, layers)
            self._times[key] = cost.seconds(StepShape.decode(1, max(1, key[2]) * _CONTEXT))
        return self._times[key]

    def _sent_s(self, name: str, tokens: int) -> float:
        """Seconds that values of tokens take to or from a server, by the slowest of its links."""
        if name not in self._ways:
            links = [
                link
                for other in self.servers
                if other != name and (link := self.problem.cluster.link(other, name)) is not None
            ]
            slowest = min(links, key=lambda link: link.bytes_per_s, default=None)
            self._ways[name] = (
                (0.0, float("inf")) if slowest is None else (slowest.latency_s, slowest.bytes_per_s)
            )
        latency_s, rate = self._ways[name]
        return latency_s + tokens * self.problem.spec.width * ACTIVATION_BYTES / rate
