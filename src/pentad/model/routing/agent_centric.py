"""The tier of models that an agent's request needs: edge, cloud, vision or reasoner, on this device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal, get_args

from pentad.errors import InvalidRequest
from pentad.execution.device import DeviceProfile
from pentad.model.routing import estimates
from pentad.model.routing.base import Candidate, RouterInput
from pentad.ranges import in_range
from pentad.resource.matrices import main_memory
from pentad.resource.profile.catalogue import find
from pentad.types import Decision, Request

Tier = Literal["edge", "cloud", "vision", "reasoner"]
_TIERS: Final = get_args(Tier)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCentric:
    """Serves with the tier that the request's content, its reasoning and the device ask for.

    Parts that are no text need `vision`. A wish for reasoning (reasoning tokens above 0) needs a `reasoner`.
    Anything else is for the `edge` while the prompt is short and the device has memory for such a model, else
    for the `cloud`. Where no model of that tier may serve, the next that could do it: a reasoner or the edge
    gives way to the cloud, the cloud to a reasoner or the edge. Within a tier the cheapest that is good
    enough serves. A model without a tier in the options is `cloud` where it is remote, `vision` where it
    takes images, else `edge`.
    Exactness: lossy where it changes the model; the metric is the stated quality. Cost: one comparison per
    model.

    Source: the survey's section IV-E, agent-centred model choice; the rule is ours.
    """

    device: str = ""
    """Device of the catalogue that models of this machine run on; empty takes any model to fit."""
    tiers: Mapping[str, Tier] = field(default_factory=dict)
    """Model to its tier: edge, cloud, vision or reasoner."""
    edge_bytes: int = 1 << 30
    """Memory that a model of the edge needs."""
    edge_tokens: int = 2048
    """Longest prompt that is left to the edge."""

    name: ClassVar[str] = "agent-centric"
    enforces: ClassVar[frozenset[str]] = frozenset({"min_quality"})

    def __post_init__(self) -> None:
        in_range("edge_bytes", self.edge_bytes, least=0)
        in_range("edge_tokens", self.edge_tokens, least=0)
        if unknown := [tier for tier in self.tiers.values() if tier not in _TIERS]:
            raise InvalidRequest(
                f"unknown tier {unknown[0]!r}",
                hint=f"choose one of: {', '.join(_TIERS)}",
                param="router.tiers",
            )
        if self.device:
            find(self.device)

    def route(self, state: RouterInput) -> tuple[str, Decision]:
        """The choice. Raises Infeasible where no model that may serve is good enough."""
        request = state.request
        able = estimates.able(state)
        good = estimates.good_enough(able, request.context.objective.min_quality or 0.0)
        order, why = self.wanted(request)
        tiers = {name: self._tier(name, one) for name, one in good.items()}
        for tier in order:
            chosen = min(
                (name for name in good if tiers[name] == tier),
                key=lambda name: (estimates.cost(request, good[name], 256), -(good[name].quality or 0.0)),
                default=None,
            )
            if chosen is not None:
                break
        else:
            chosen, tier = next(iter(good)), tiers[next(iter(good))]
        return chosen, Decision(
            layer="model",
            policy=self.name,
            subject="model",
            chosen=chosen,
            candidates=tuple((name, None) for name in able),
            constraint=why,
            at_s=state.now_s,
            parts=(("wanted", order[0]), ("tier", tier)),
        )

    def wanted(self, request: Request) -> tuple[tuple[Tier, ...], str]:
        """The tiers that could do it, the best suited first, and what decides."""
        if request.media:
            return ("vision", "cloud"), f"{request.media[0].kind} in the request"
        if request.reasoning_tokens:
            return ("reasoner", "cloud", "edge"), "reasoning is asked for"
        if not self._edge_fits():
            return ("cloud", "reasoner", "edge"), f"the memory of {self.device}"
        if estimates.prompt_tokens(request) > self.edge_tokens:
            return ("cloud", "reasoner", "edge"), f"a prompt of more than {self.edge_tokens} tokens"
        return ("edge", "cloud", "reasoner"), "a short request"

    def _edge_fits(self) -> bool:
        return not self.device or _free_bytes(find(self.device)) >= self.edge_bytes

    def _tier(self, name: str, candidate: Candidate) -> Tier:
        if name in self.tiers:
            return self.tiers[name]
        if candidate.can.remote:
            return "cloud"
        return "vision" if "image" in candidate.can.media else "edge"


def _free_bytes(device: DeviceProfile) -> float:
    """Of its main memory, what the system leaves."""
    return main_memory(device).capacity_bytes - device.reserved_bytes
