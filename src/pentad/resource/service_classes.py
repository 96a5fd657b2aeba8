"""Service classes: kinds of requests and what each is promised, defined once for all layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from pentad.errors import InvalidRequest, UnknownName
from pentad.ranges import in_range
from pentad.registry import near
from pentad.types import Objective, Preference


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceClass:
    """What the requests of one class are promised. A request names its class and brings nothing else.

    Latency, quality and cost are its objective: the router takes the cheapest model and the offload policy
    `objective` the cheapest place that keep it. The label says where its data may go, the priority who goes
    first in an engine (`classes`, `sarathi`).
    """

    __pydantic_config__: ClassVar = {
        "extra": "forbid",
        "allow_inf_nan": False,
        "use_attribute_docstrings": True,
    }

    name: str
    """By which requests name it: `slo_class` in `pentad`, or the header `x-pentad-slo-class`."""
    priority: int | None = None
    """Lower comes first. Absent: the request's own."""
    ttft_s: float | None = None
    """Seconds until the first token."""
    inter_token_s: float | None = None
    """Seconds between tokens."""
    deadline_s: float | None = None
    """Seconds from arrival until the whole must be done."""
    quality: float | None = None
    """Least quality of the model, 0 to 1, in the terms of the catalogue."""
    max_cost: float | None = None
    """Money for one request."""
    max_energy_j: float | None = None
    """Joules for one request, by what tokens took so far; needs the router `elastic`."""
    prefer: Preference | None = None
    """What counts most among all that keeps the promises; the router `elastic` reads it."""
    target: float = 0.95
    """Share of its requests, 0 to 1, that are to be kept their promises; the rest is the error budget."""
    tenants: tuple[str, ...] = ()
    """Requests of these are of the class where they name none."""
    agents: tuple[str, ...] = ()
    """Runs of these agents are of the class where they name none."""
    routes: tuple[str, ...] = ()
    """Requests to these paths are of the class where they name none: /v1/chat/completions."""
    data_label: str | None = None
    """`local` keeps its requests on machines of ours, whatever a request itself says."""

    def __post_init__(self) -> None:
        in_range("priority", self.priority, least=-(2**31), most=2**31 - 1)
        for name in ("ttft_s", "inter_token_s", "deadline_s"):
            in_range(name, getattr(self, name), above=0)
        in_range("quality", self.quality, least=0, most=1)
        in_range("max_cost", self.max_cost, least=0)
        in_range("max_energy_j", self.max_energy_j, above=0)
        in_range("target", self.target, least=0, most=1)
        if not self.name:
            raise InvalidRequest("a service class has no name", hint="give it one", param="service_classes")

    @property
    def objective(self) -> Objective:
        """What its requests wish."""
        return Objective(
            ttft_s=self.ttft_s,
            inter_token_s=self.inter_token_s,
            deadline_s=self.deadline_s,
            min_quality=self.quality,
            max_cost=self.max_cost,
            max_energy_j=self.max_energy_j,
            prefer=self.prefer,
        )


def class_named(name: str, classes: Iterable[ServiceClass]) -> ServiceClass:
    """The class of that name. Raises UnknownName with the nearest."""
    found = {each.name: each for each in classes}
    if name not in found:
        raise UnknownName(
            f"slo_class is {name[:64]!r}, which is no service class",
            hint=near(name, found),
            param="slo_class",
        )
    return found[name]


def class_of(
    classes: Iterable[ServiceClass], *, tenant: str, agent: str | None = None, route: str | None = None
) -> ServiceClass | None:
    """The class of requests that name none: by agent first, then by tenant, then by path; None: of none."""
    found = tuple(classes)
    for field, value in (("agents", agent), ("tenants", tenant), ("routes", route)):
        for each in found:
            if value is not None and value in getattr(each, field):
                return each
    return None


def label_of(own: str | None, each: ServiceClass) -> str | None:
    """The data label of a request of the class. Raises InvalidRequest where the two contradict each other."""
    if own is not None and each.data_label is not None and own != each.data_label:
        raise InvalidRequest(
            f"data_label is {own!r}, but requests of service class {each.name!r} are {each.data_label!r}",
            hint="leave data_label out, or name another slo_class",
            param="data_label",
        )
    return own if each.data_label is None else each.data_label
