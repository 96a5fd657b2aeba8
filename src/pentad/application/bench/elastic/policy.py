"""BenchPolicy: who decides about runs of a workload, as `--policies` names it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pentad.agent.evaluation.workload import TaskClass
from pentad.choice import Choice, build, check
from pentad.errors import InvalidRequest

KINDS = ("fixed", "strategy", "router", "elastic", "remote")
_FORM = (
    "write fixed:MODEL/STRATEGY, strategy:MODEL, router:NAME/STRATEGY, elastic or remote:URL/MODEL, "
    "with commas between"
)
_ALONE = Choice(name="fixed")
_JOINT = Choice(name="elastic")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPolicy:
    """What is decided by whom."""

    name: str
    """As it was written."""
    router: Choice = _ALONE
    """Who chooses the model of a call."""
    model: str = "auto"
    """The one model that is asked; `auto` leaves it to the router."""
    strategy: str = ""
    """The planner of classes that several suit; empty: a class's first."""
    chooses: bool = False
    """Whether the ways of a class are left to the router, which chooses one with the model."""
    url: str = ""
    """Where the model is served, if elsewhere; up to and including /v1."""
    there: str = ""
    """The model's name at that place."""

    def planner(self, of: TaskClass) -> Choice:
        """How its runs of a class go about their goals."""
        if len(of.ways) == 1:
            return Choice.of(of.ways[0])
        if self.chooses:
            return Choice(name="elastic", options={"among": of.ways})
        return Choice.of(self.strategy or of.ways[0])

    def way(self, of: TaskClass) -> str:
        """The way of asking under which outcomes are counted, where nothing chooses one."""
        return "" if len(of.ways) == 1 else self.strategy or of.ways[0]


def policies_of(text: str) -> list[BenchPolicy]:
    """The policies that `--policies` names, each once.

    Raises:
        InvalidRequest: no policy, or one that is not written as it should be.
        UnknownName: a router or planner that there is not.
    """
    # A comma ends a policy only where another one begins, so options may hold commas.
    parts = re.split(rf",\s*(?=(?:{'|'.join(KINDS)})(?::|,|$|\s))", text.strip())
    found = [_policy(part.strip()) for part in parts if part.strip()]
    if not found:
        raise InvalidRequest("--policies names none", hint=_FORM, param="policies")
    return list({one.name: one for one in found}.values())


def models_of(policies: Sequence[BenchPolicy]) -> list[str]:
    """Models of this process that policies name."""
    return list(dict.fromkeys(one.model for one in policies if one.model != "auto" and not one.url))


def _policy(text: str) -> BenchPolicy:
    kind, _, rest = text.partition(":")
    if kind == "remote":
        return _remote(text, rest)
    if kind == "elastic":
        router = Choice.of(text)
        build("router", router)
        return BenchPolicy(name=text, router=router, chooses=True)
    subject, _, strategy = rest.partition("/")
    if kind not in KINDS or not subject:
        raise InvalidRequest(f"{text!r} is no policy", hint=_FORM, param="policies")
    if strategy:
        build("planner", Choice.of(strategy))
    if kind == "fixed":
        return BenchPolicy(name=text, model=subject, strategy=strategy)
    if kind == "strategy":
        return BenchPolicy(name=text, router=_JOINT, model=subject, chooses=True)
    router = Choice.of(subject)
    check("router", router)
    build("router", router)
    return BenchPolicy(name=text, router=router, strategy=strategy)


def _remote(text: str, rest: str) -> BenchPolicy:
    url, _, model = rest.rpartition("/")
    if not re.match(r"https?://[^/]+", url) or not model:
        hint = "write it as remote:http://127.0.0.1:8080/v1/MODEL"
        raise InvalidRequest(f"{text!r} names no endpoint and model", hint=hint, param="policies")
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", rest)
    return BenchPolicy(name=text, model=safe, url=url, there=model)
