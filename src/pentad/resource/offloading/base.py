"""Offloading: what a policy sees of a request and of the sites, and what all policies share.

A usual policy is one method, `score`, over `ScoredOffload`. One that keeps state or learns makes its
own `Offloading` in `start`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pentad.errors import Forbidden, Infeasible, Unavailable
from pentad.resource.offloading.radio import SharedBand
from pentad.types import Decision, RunContext

LOCAL_LABEL = "local"
"""The data label that keeps a request on machines of ours."""
SiteKind = Literal["device", "edge", "remote"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A place that can compute a request, as it is now. Live and simulated ones look alike."""

    name: str
    kind: SiteKind = "device"
    """`device`: where the request arises; `edge`: another machine of ours; `remote`: somebody else's."""
    bytes_per_s: float | None = None
    """Of the link to it; None: nothing needs to be sent."""
    latency_s: float = 0.0
    """Of the link, one way."""
    link_wait_s: float = 0.0
    """Until the transfers that the link is busy with are over."""
    slots: int = 1
    """Requests that it computes at once."""
    running: int = 0
    waiting: int = 0
    queued_tokens: int = 0
    """Prompt tokens of the requests there that are not computed yet."""
    kv_tokens: int | None = None
    """Tokens that its KV cache holds; None: nobody says."""
    committed_tokens: int = 0
    """Of prompts and answers of the requests there, at their full length."""
    prompt_token_s: float = 0.0
    """Seconds per prompt token."""
    token_s: float = 0.0
    """Seconds between generated tokens at the present load."""
    price_per_s: float = 0.0
    """Money for a second of a request's computation."""
    price_per_prompt_token: float = 0.0
    price_per_token: float = 0.0
    weight: float = 1.0
    """Share of the requests that a plan gives it, relative to the others."""
    served: int = 0
    """Requests that it has been given so far."""
    machine: str = ""
    """The machine that it is a way of using (`variants.py`); empty: it is the whole of one."""
    share: float = 1.0
    """Of that machine's speed."""
    layers_here: float = 0.0
    """Share of the model's layers that the device computes at which the request arose."""
    ready_s: float = 0.0
    """Until it can begin, beside what its queue says: a model that it must load, cores that are taken."""
    sent_bytes: float | None = None
    """Sent in place of the prompt: the activations of a split model; None: the prompt."""
    send_w: float = 0.0
    """Power of the sender's radio. Energy is that of the device at which the request arose."""
    energy_per_prompt_token_j: float = 0.0
    energy_per_token_j: float = 0.0
    band: SharedBand | None = None
    """Radio that the answer comes back over, where another receiver shares it; None: no such."""
    band_bits_per_s: float = 0.0
    """What that other receiver must have of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadTask:
    """The request whose place is to be found."""

    id: str
    prompt_tokens: int
    answer_tokens: int
    """Expected, or the most that was asked for."""
    prompt_bytes: int = 0
    """What is sent to a site on another machine."""
    context: RunContext = field(default_factory=RunContext)


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadInput:
    """The state that one choice is made from."""

    task: OffloadTask
    sites: tuple[Site, ...]
    """At least one, in the cluster's order."""
    now_s: float
    battery_j: float | None = None
    """What the device at which the request arose has left; None: it is on the mains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadOutcome:
    """What came of a choice."""

    id: str
    site: str
    completion_s: float | None
    """From arrival to the last token; None: it was refused or failed."""
    cost: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a request would see at a site, were its present load to stay."""

    send_s: float
    wait_s: float
    prompt_s: float
    answer_s: float
    cost: float
    energy_j: float = 0.0
    """Of the device at which the request arose."""

    @property
    def completion_s(self) -> float:
        return self.send_s + self.wait_s + self.prompt_s + self.answer_s


class Offloading(Protocol):
    """A policy at work in one process or simulated world."""

    def choose(self, state: OffloadInput) -> tuple[str, Decision]:
        """The name of the site and why.

        Raises Forbidden, Infeasible or Unavailable when no site may or can take the request.
        """
        ...

    def learn(self, outcome: OffloadOutcome) -> None:
        """Is told what came of each choice, in the order in which requests end."""
        ...


class OffloadPolicy(Protocol):
    """Decides where a request is computed (coverage.md, interface 15). Equal states, equal choices."""

    @property
    def name(self) -> str: ...

    def start(self, seed: int = 0) -> Offloading:
        """The policy's state for one world."""
        ...

    def cost(self, sites: int) -> float:
        """Seconds that one choice among so many sites takes, of the right order, on one core."""
        ...


def estimate(task: OffloadTask, site: Site) -> Estimate:
    """The time and money of a task at a site: what waits there is computed first, first come first served.

    Its answer comes at the present pace; of requests that wait for a slot, each slot first serves its
    share, taken to be like this one.
    """
    sends = site.bytes_per_s is not None
    send_s = 2 * site.latency_s + site.link_wait_s
    size = task.prompt_bytes if site.sent_bytes is None else site.sent_bytes
    on_air_s = size / site.bytes_per_s if site.bytes_per_s else 0.0
    send_s += on_air_s
    prompt_s = task.prompt_tokens * site.prompt_token_s
    answer_s = task.answer_tokens * site.token_s
    wait_s = site.ready_s + site.queued_tokens * site.prompt_token_s + site.waiting / site.slots * answer_s
    money = (
        (prompt_s + answer_s / max(1, min(site.running + 1, site.slots))) * site.price_per_s
        + task.prompt_tokens * site.price_per_prompt_token
        + task.answer_tokens * site.price_per_token
    )
    energy_j = (
        on_air_s * site.send_w
        + task.prompt_tokens * site.energy_per_prompt_token_j
        + task.answer_tokens * site.energy_per_token_j
    )
    return Estimate(
        send_s=send_s if sends else 0.0,
        wait_s=wait_s,
        prompt_s=prompt_s,
        answer_s=answer_s,
        cost=money,
        energy_j=energy_j,
    )


def permitted(state: OffloadInput) -> tuple[tuple[Site, ...], str | None]:
    """The sites that label and price allow, and which of these left something out.

    Raises:
        Unavailable: there is no site at all.
        Forbidden: all are remote and the label keeps the request on machines of ours.
        Infeasible: each would cost more than is allowed, or more energy than the battery has.
    """
    context = state.task.context
    if not state.sites:
        raise Unavailable("no site can take requests now", hint="try again later, or add a device")
    bound: str | None = None
    sites = state.sites
    if context.data_label == LOCAL_LABEL and any(site.kind == "remote" for site in sites):
        sites = tuple(site for site in sites if site.kind != "remote")
        bound = f"data label {LOCAL_LABEL!r}"
        if not sites:
            raise Forbidden(
                f"{bound} keeps this request on machines of ours, but all sites are remote",
                hint="serve a local model or change `data_label`",
                param="data_label",
            )
    most = context.objective.max_cost
    if most is not None:
        costs = {site.name: estimate(state.task, site).cost for site in sites}
        cheap = tuple(site for site in sites if costs[site.name] <= most)
        if not cheap:
            least = min(costs.values())
            raise Infeasible(
                f"every site would cost more than {most:.3g} for this request, the least is {least:.3g}",
                hint="raise `max_cost`, or ask for a shorter answer",
                param="max_cost",
            )
        bound = "max_cost" if len(cheap) < len(sites) else bound
        sites = cheap
    if state.battery_j is not None:
        sites, bound = _affordable(state.task, sites, state.battery_j, bound)
    return sites, bound


def _affordable(
    task: OffloadTask, sites: tuple[Site, ...], battery_j: float, bound: str | None
) -> tuple[tuple[Site, ...], str | None]:
    """The sites whose energy the battery has, and what bound."""
    energies = {site.name: estimate(task, site).energy_j for site in sites}
    kept = tuple(site for site in sites if energies[site.name] <= battery_j)
    if not kept:
        raise Infeasible(
            f"the battery has {battery_j:.3g} J, and the least that this request takes is "
            f"{min(energies.values()):.3g} J",
            hint="wait until it has been charged, or ask for a shorter answer",
            param="battery_j",
        )
    return kept, "battery" if len(kept) < len(sites) else bound


def at_site(
    state: OffloadInput, chosen: str, scores: Mapping[str, float], *, policy: str, constraint: str | None
) -> tuple[str, Decision]:
    """A choice with its decision: what each site scored, None for those that are not permitted."""
    return chosen, Decision(
        layer="resource",
        policy=policy,
        subject="site",
        chosen=chosen,
        candidates=tuple((site.name, scores.get(site.name)) for site in state.sites),
        constraint=constraint,
        at_s=state.now_s,
    )


class ScoredOffload:
    """Base of policies that give each site a score by itself and take the lowest; ties go to the first."""

    __slots__ = ()

    @property
    def name(self) -> str:
        raise NotImplementedError

    def score(self, task: OffloadTask, site: Site) -> float:
        """Of one site; the lowest of all is taken."""
        raise NotImplementedError

    def start(self, seed: int = 0) -> Offloading:  # noqa: ARG002 - draws nothing
        return _Scored(self)

    def cost(self, sites: int) -> float:
        return 2e-6 * sites


class _Scored:
    """Keeps nothing between choices."""

    __slots__ = ("_policy",)

    def __init__(self, policy: ScoredOffload) -> None:
        self._policy = policy

    def choose(self, state: OffloadInput) -> tuple[str, Decision]:
        sites, bound = permitted(state)
        scores: Mapping[str, float] = {site.name: self._policy.score(state.task, site) for site in sites}
        chosen = min(scores, key=scores.__getitem__)
        return at_site(state, chosen, scores, policy=self._policy.name, constraint=bound)

    def learn(self, outcome: OffloadOutcome) -> None:
        """Has nothing to learn."""
