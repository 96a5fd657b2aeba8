"""ElasticEngine: instances that compute one batch together, some or all of them, anew in each iteration.

    waiting --Launch--> prompts on instances 1 2 3 --> answers on 1, whose keys and values stayed there
                        others go on with answers meanwhile

Stands where an Engine stands in a world. A step lasts until the first iteration of any instances is over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pentad.errors import Conflict, ContextLengthExceeded, Overloaded
from pentad.execution.batch import Drawn
from pentad.execution.request import SequenceStats, StepOutput, TokenRequest
from pentad.execution.scheduling import EngineLimits
from pentad.execution.steady import SteadySteps
from pentad.resource.placement.plan import ScaleDown
from pentad.resource.placement.sequence_parallel import SequenceCost
from pentad.resource.simulator.clock import VirtualClock
from pentad.resource.simulator.elastic_launch import Instances, Launch, Launches
from pentad.resource.simulator.engines import StepTokens
from pentad.resource.simulator.runner import SimulatedRunner
from pentad.resource.step_shape import StepShape

RECENT = 64
"""Requests from which the rate of arrivals is taken."""
LOOK_S = 0.01
"""How long an instance stands idle at most before the engine looks at what waits."""


@dataclass(slots=True, kw_only=True)
class ElasticSequence:
    """A request in an elastic engine."""

    request: TokenRequest
    arrived_s: float
    token: int
    """The last one."""
    slots: int
    """Tokens so far."""
    home: Mapping[int, float] = field(default_factory=dict)
    """Instance to the share of its keys and values that lies there."""
    drawn: int = 0
    first_token_s: float | None = None

    @property
    def most_slots(self) -> int:
        """When it is done."""
        return len(self.request.prompt) + self.request.max_tokens


@dataclass(slots=True, kw_only=True)
class _Iteration:
    instances: frozenset[int]
    sequences: tuple[ElasticSequence, ...]
    end_s: float
    prompts: bool


class ElasticEngine:
    """Computes prompts and answers on instances whose number changes from iteration to iteration.

    An instance does one thing at a time: its part of a batch of prompts, or of the next token of sequences
    whose keys and values it holds. Whoever shares an instance goes on in one batch.

    Args:
        runner: draws tokens and counts; its blocks are those of all instances together.
        cost: step times by the number of instances.
        launches: who computes which prompts on which instances.
        count: instances.
        scale_down: see `ScaleDown`.
        limits: `max_sequences` for all instances together.
    """

    def __init__(
        self,
        runner: SimulatedRunner,
        cost: SequenceCost,
        launches: Launches,
        *,
        count: int,
        scale_down: ScaleDown,
        limits: EngineLimits,
        clock: VirtualClock,
    ) -> None:
        self.limits = limits
        self.degrees: list[int] = []
        """Of each iteration of prompts."""
        self._runner, self._cost, self._clock, self._launches = runner, cost, clock, launches
        self._scale_down = scale_down
        self._room = [runner.num_blocks * runner.block_size // count] * count
        self._used = [0.0] * count
        self._waiting: list[ElasticSequence] = []
        self._answering: list[ElasticSequence] = []
        self._running: list[_Iteration] = []
        self._ids: set[str] = set()
        self._recent: deque[tuple[float, int]] = deque(maxlen=RECENT)
        self._changed = False

    @property
    def max_sequence_tokens(self) -> int:
        return min(self._runner.spec.context_length, self._launches.most_instances * self._room[0])

    @property
    def has_work(self) -> bool:
        return bool(self._ids)

    def add(self, request: TokenRequest) -> None:
        """Queues a request. Raises Conflict, ContextLengthExceeded, Overloaded."""
        if request.id in self._ids:
            raise Conflict(f"request id {request.id!r} is in use", hint="give each request its own id")
        asked = len(request.prompt) + request.max_tokens
        if asked > self.max_sequence_tokens:
            raise ContextLengthExceeded(
                f"{asked} tokens are asked, the instances hold at most {self.max_sequence_tokens}",
                hint="shorten the prompt, or let more instances work together with the option degree",
            )
        if len(self._waiting) >= self.limits.max_waiting:
            raise Overloaded(
                f"{len(self._waiting)} requests are waiting, at most {self.limits.max_waiting} can",
                retry_after_s=1.0,
                hint="try again later or raise --max-waiting",
            )
        self._ids.add(request.id)
        tokens = (*request.prompt, *request.generated)
        self._recent.append((self._clock(), len(tokens)))
        self._changed = True
        self._waiting.append(
            ElasticSequence(
                request=request,
                arrived_s=self._clock(),
                token=tokens[-1],
                slots=len(tokens),
                drawn=len(request.generated),
            )
        )

    def steady(self) -> SteadySteps | None:
        """None: what the instances do changes too often."""
        return None

    def take(self, steady: SteadySteps, count: int) -> Sequence[StepTokens]:
        raise AssertionError(f"an elastic engine offers no series, so {count} of {steady} are not its own")

    def step(self) -> list[StepOutput]:
        """Starts what can start, and lets time pass; returns the tokens that came out.

        It lasts until the first iteration ends, or for LOOK_S while an instance is idle.
        """
        if self._changed:
            self._launch_prompts()
            self._changed = False
        self._launch_answers()
        now_s = self._clock()
        end_s = min((one.end_s for one in self._running), default=now_s + LOOK_S)
        if len(self._busy) < len(self._room):
            end_s = min(end_s, now_s + LOOK_S)
        self._clock.advance(max(0.0, end_s - now_s))
        over = [one for one in self._running if one.end_s <= end_s]
        self._running = [one for one in self._running if one.end_s > end_s]
        outputs = [self._advanced(seq, end_s) for one in over for seq in one.sequences]
        # What else happens at tokens changes nothing for the prompts that wait.
        self._changed = any(one.prompts for one in over) or any(output.finish for output in outputs)
        return outputs

    def check_integrity(self) -> None:
        """Raises AssertionError where room is not given back."""
        assert self._ids or not any(round(used) for used in self._used), f"room is lost: {self._used}"

    @property
    def _busy(self) -> frozenset[int]:
        return frozenset(i for one in self._running for i in one.instances)

    def _launch_prompts(self) -> None:
        if not self._waiting or len(self._answering) >= self.limits.max_sequences:
            return
        answering, waits = [0] * len(self._room), [0.0] * len(self._room)
        for seq in self._answering:
            for i in seq.home:
                answering[i] += 1
                waits[i] += 1 / seq.request.max_tokens
        now_s = self._clock()
        prompts = [one for one in self._running if one.prompts]
        taken = {i for one in prompts for i in one.instances}
        seen = Instances(
            idle=tuple(i for i in range(len(self._room)) if i not in taken),
            room=tuple(room - used for room, used in zip(self._room, self._used, strict=True)),
            answering=tuple(answering),
            waits=tuple(waits),
            free_s=min((one.end_s - now_s for one in prompts), default=float("inf")),
            arrivals=self._arrivals(now_s),
        )
        for launch in self._launches.choose(self._waiting, seen):
            self._begin(launch)

    def _arrivals(self, now_s: float) -> float:
        """Of the latest requests, one over the tokens of each prompt, per second."""
        if len(self._recent) < 2 or now_s <= self._recent[0][0]:
            return 0.0
        return sum(1 / tokens for _, tokens in self._recent) / (now_s - self._recent[0][0])

    def _begin(self, launch: Launch) -> None:
        """A batch of prompts starts; where its keys and values will lie is settled now."""
        sequences = launch.sequences
        # Whoever is at a token there brings it out first.
        own = (one.end_s for one in self._running if one.instances & set(launch.instances))
        begin_s = max(own, default=self._clock())
        need = sum(seq.most_slots for seq in sequences)
        share: dict[int, float] = {}
        for i in launch.keep:
            part = need / len(launch.keep) if self._launches.spreads else self._room[i] - self._used[i]
            part = min(part, need - sum(share.values()))
            if part > 0:
                share[i] = part
                self._used[i] += part
        home = {i: part / need for i, part in share.items()}
        shape = StepShape.from_sequences([(s.slots, s.slots) for s in sequences], rows=len(sequences))
        seconds = self._cost.prompt_s(shape, len(launch.instances))
        if self._scale_down == "reactive":
            # Each instance has an equal part behind the prompt; what lies elsewhere than it shall is moved.
            stays = sum(min(home.get(i, 0.0), 1 / len(launch.instances)) for i in launch.instances)
            moved = (1 - stays) * self._cost.form.kv_bytes(self._runner.spec, sum(s.slots for s in sequences))
            if moved > 1 and self._cost.link is not None:
                self._runner.moved_bytes += round(moved)
                seconds += self._cost.link.latency_s + moved / self._cost.link.bytes_per_s
        for seq in sequences:
            seq.home = home
        chosen = {id(seq) for seq in sequences}
        self._waiting = [seq for seq in self._waiting if id(seq) not in chosen]
        self.degrees.append(len(launch.instances))
        self._run(
            frozenset(launch.instances), sequences, begin_s + seconds, shape.tokens, seconds, prompts=True
        )

    def _launch_answers(self) -> None:
        """Each group of instances with sequences in common computes their next token, where all are idle."""
        under_way = {id(seq) for one in self._running for seq in one.sequences}
        for group in self._held():
            if group & self._busy:
                continue
            own = [s for s in self._answering if id(s) not in under_way and group.issuperset(s.home)]
            if own:
                shape = StepShape.from_sequences([(1, seq.slots) for seq in own], rows=len(own))
                seconds = self._cost.answer_s(shape, len(group))
                self._run(group, tuple(own), self._clock() + seconds, len(own), seconds)

    def _run(
        self,
        instances: frozenset[int],
        sequences: tuple[ElasticSequence, ...],
        end_s: float,
        tokens: int,
        seconds: float,
        *,
        prompts: bool = False,
    ) -> None:
        self._running.append(
            _Iteration(instances=instances, sequences=sequences, end_s=end_s, prompts=prompts)
        )
        self._runner.count(tokens, seconds * len(instances) / len(self._room))

    def _held(self) -> list[frozenset[int]]:
        """Instances with answers on them, together where a sequence lies on several or they share one."""
        return joined(frozenset(seq.home) for seq in self._answering)

    def _advanced(self, seq: ElasticSequence, now_s: float) -> StepOutput:
        """One token further; its room is given back with the last one."""
        seq.token = self._runner.drawn_after(seq.token, seq.slots)
        seq.slots += 1
        seq.drawn += 1
        if seq.first_token_s is None:
            seq.first_token_s = now_s
            self._answering.append(seq)
        drawn = (Drawn(token=seq.token),)
        if seq.drawn < seq.request.max_tokens:
            return StepOutput(id=seq.request.id, drawn=drawn)
        self._answering.remove(seq)
        self._ids.discard(seq.request.id)
        for i, part in seq.home.items():
            self._used[i] -= part * seq.most_slots
        stats = SequenceStats(
            arrived_s=seq.arrived_s,
            first_token_s=seq.first_token_s,
            finished_s=now_s,
            prompt_tokens=len(seq.request.prompt),
            completion_tokens=seq.drawn,
        )
        return StepOutput(id=seq.request.id, drawn=drawn, finish="length", stats=stats)


def joined(sets: Iterable[frozenset[int]]) -> list[frozenset[int]]:
    """The sets with those that have something in common made one."""
    found: list[frozenset[int]] = []
    for each in dict.fromkeys(sets):
        apart = [other for other in found if not other & each]
        found = [*apart, each.union(*(other for other in found if other & each))]
    return found
