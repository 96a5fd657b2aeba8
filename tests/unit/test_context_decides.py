"""RunContext decides: for each of its fields there is a choice that changing it alone changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from test_engine_retention import World
from test_model_routing import candidate
from test_model_routing import state as routing
from test_resource_scheduling import Seq, running
from test_resource_scheduling import state as scheduling

from gateway_app import chat, param_of, scripted_app
from pentad.errors import PentadError
from pentad.execution.backend import Capabilities
from pentad.execution.hints import turn_hints
from pentad.execution.pace import Pace
from pentad.model.control.outcomes import Outcomes
from pentad.model.objectives import fitted, refuse_unenforced
from pentad.model.prices import Price
from pentad.model.routing.base import fit
from pentad.model.routing.cheapest import Cheapest
from pentad.model.routing.elastic import Elastic
from pentad.model.routing.objective import ByObjective
from pentad.model.routing.speed import Speed
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.types import Budget, Hints, Objective, Request, RunContext, Sampling

Choice = Callable[[RunContext], object]
LATER = 40.0
"""A deadline, in seconds, that lets a request wait as long as one that says nothing."""
CHAIN = {"b": ("a",), "c": ("b",), "d": ("c",)}


def first_admitted(context: RunContext) -> object:
    """Which of two waiting requests gets the one place: the older says nothing, the newer has the context."""
    asked = Seq(id="asked", num_tokens=20, arrived_s=1.0, context=context, turn_hints=turn_hints(context))
    other = Seq(id="other", num_tokens=20, arrived_s=0.0)
    plan = Sarathi().plan(scheduling(waiting=(other, asked), sequences=1))
    (admitted,) = [seq.id for seq, _ in plan.work]
    order = [decision for decision in plan.decisions if decision.subject == "order"]
    assert [decision.chosen for decision in order] == (["asked"] if admitted == "asked" else [])
    return admitted


def prompt_chunk(context: RunContext) -> object:
    """Tokens of a long prompt in a step beside a decoding sequence that has the context."""
    decoding = dataclasses.replace(running("d", 20), turn_hints=turn_hints(context))
    state = scheduling(running=(decoding,), waiting=(Seq(id="p", num_tokens=5000),), tokens=512, free=1000)
    state = dataclasses.replace(state, pace=Pace(least_s=0.01, prompt_token_s=0.001))
    plan = Sarathi(short_slowdown=None).plan(state)
    cut = [decision for decision in plan.decisions if decision.subject == "chunk_tokens"]
    tokens = {seq.id: count for seq, count in plan.work}["p"]
    assert bool(cut) == (tokens < 511)
    return tokens


def cheapest_good(context: RunContext) -> object:
    """Which model the router takes."""
    models = {
        "small": candidate(price=Price(prompt=1, completion=1), quality=0.2),
        "large": candidate(price=Price(prompt=9, completion=9), quality=0.9),
    }
    return Cheapest().route(routing(models, context=context))[0]


def able(context: RunContext) -> object:
    """Which models may serve."""
    far = candidate(can=Capabilities(model="m", context_length=4096, remote=True))
    return sorted(fit(routing({"here": candidate(), "far": far}, context=context)))


def answer_limit(context: RunContext) -> object:
    """Tokens that the answer may have, behind a prompt of 10, at one piece of money per token."""
    request = Request(id="r", model="m", text="x", context=context, sampling=Sampling(max_tokens=50))
    price = Price(prompt=1e6, completion=1e6)
    return fitted(request, prompt_tokens=10, price=price, context_length=100)[0].sampling.max_tokens


def refused(context: RunContext) -> object:
    """Which field is refused, if one is."""
    try:
        refuse_unenforced(context.objective, frozenset())
    except PentadError as error:
        return error.param
    return None


def refused_over_http(context: RunContext) -> object:
    """Which field of the budget a chat is refused for, if one is."""
    limits = {name: value for name, value in dataclasses.asdict(context.budget).items() if value is not None}
    answer = chat(scripted_app()[0], pentad={"budget": limits})
    return param_of(answer) if answer.status_code == 400 else None


def evicted(world: World, *names: str) -> object:
    """Whose blocks are gone when many are needed."""
    world.fill()
    return [name for name in names if not world.cached(name)]


def evicted_of_two(context: RunContext) -> object:
    """Who is evicted: a request that has the context, or one that came later and says nothing."""
    world = World()
    world.ask("asked", context=context)
    world.ask("other")
    return evicted(world, "asked", "other")


def evicted_of_two_kept(context: RunContext) -> object:
    """Who is evicted: one that has the context, or one that is needed in 20 s; `slow` takes 60 s."""
    world = World()
    world.ask("learnt", 1, hints=Hints(tool="slow"), run_id="r")
    world.now_s += 60.0
    world.ask("back", 1, run_id="r")
    world.ask("asked", context=context)
    world.ask("other", hints=Hints(tool_s=20.0))
    return evicted(world, "asked", "other")


def evicted_after_one_follower(context: RunContext) -> object:
    """Who is evicted once a first request has followed the one that has the context."""
    world = World()
    world.ask("asked", context=context)
    world.ask("follower", 1, parent="asked")
    world.ask("other")
    return evicted(world, "asked", "other")


def evicted_after_this_one(context: RunContext) -> object:
    """Who is evicted after a request with the context: what run `r` had kept, or a later one."""
    world = World()
    world.ask("kept", hints=Hints(next="tool"), run_id="r")
    world.ask("this", 1, context=context)
    world.ask("other")
    return evicted(world, "kept", "other")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A choice, and what it is with one field as it is in `base` and as it is in `changed`."""

    choice: Choice
    changed: Any
    before: object
    after: object
    base: RunContext = dataclasses.field(default_factory=RunContext)


def cheapest_for_its_length(context: RunContext) -> object:
    """Which of a model with cheap prompts and one with cheap answers the router takes for a long prompt."""
    models = {
        "answers": candidate(price=Price(prompt=9, completion=1)),
        "prompts": candidate(price=Price(prompt=1, completion=9)),
    }
    return Cheapest().route(routing(models, context=context, messages=None, text="word " * 400))[0]


def kept_objective(context: RunContext) -> object:
    """Which of a slow cheap and a fast dear model the router takes, and what it says has bound it."""
    slow = Speed(prompt_s=2.0, prompt_tokens=1.0, token_s=0.1)
    models = {
        "slow": candidate(price=Price(prompt=1, completion=1), speed=slow),
        "fast": candidate(price=Price(prompt=9, completion=9), speed=Speed(token_s=0.001)),
    }
    name, decision = ByObjective(answer_tokens=100).route(routing(models, context=context))
    return name, decision.constraint


def joint_choice(context: RunContext) -> object:
    """Which of a better dear and a worse cheap model the joint choice takes."""
    known = Outcomes()
    for right in (True,) * 20:
        known.judged("sums", "large", "", right=right)
        known.judged("sums", "small", "", right=not right)
    models = {
        "small": candidate(price=Price(prompt=1, completion=1), quality=0.6),
        "large": candidate(price=Price(prompt=9, completion=9), quality=0.61),
    }
    return Elastic().route(dataclasses.replace(routing(models, context=context), outcomes=known))[0]


def affordable_model(context: RunContext) -> object:
    """Which of a better dear and a worse cheap model is within the money for a long prompt."""
    models = {
        "small": candidate(price=Price(prompt=1, completion=0), quality=0.2),
        "large": candidate(price=Price(prompt=1000, completion=0), quality=0.9),
    }
    context = dataclasses.replace(context, objective=Objective(max_cost=0.2, prefer="quality"))
    return Elastic().route(routing(models, context=context, messages=None, text="word " * 400))[0]


NEARLY_LATE = RunContext(objective=Objective(deadline_s=LATER), node="a")
CASES = {
    "run_id": Case(choice=evicted_after_this_one, changed="r", before=["other"], after=["kept"]),
    "step": Case(
        choice=first_admitted,
        base=RunContext(objective=Objective(deadline_s=LATER), graph=CHAIN),
        changed=1,
        before="other",
        after="asked",
    ),
    "graph": Case(choice=first_admitted, base=NEARLY_LATE, changed=CHAIN, before="other", after="asked"),
    "node": Case(
        choice=first_admitted,
        base=RunContext(objective=Objective(deadline_s=LATER), graph=CHAIN),
        changed="a",
        before="other",
        after="asked",
    ),
    "parent": Case(choice=evicted_after_this_one, changed="kept", before=["other"], after=["kept"]),
    "hints.tool": Case(
        choice=evicted_of_two_kept,
        base=RunContext(hints=Hints(next="tool")),
        changed="slow",
        before=["other"],
        after=["asked"],
    ),
    "hints.tool_s": Case(choice=evicted_of_two, changed=3.0, before=["asked"], after=["other"]),
    "hints.fan_out": Case(
        choice=evicted_after_one_follower,
        base=RunContext(hints=Hints(next="model")),
        changed=2,
        before=["asked"],
        after=["other"],
    ),
    "hints.next": Case(choice=first_admitted, changed="end", before="other", after="asked"),
    "hints.remaining_steps": Case(
        choice=first_admitted, base=NEARLY_LATE, changed=9, before="other", after="asked"
    ),
    "objective.ttft_s": Case(choice=first_admitted, changed=0.5, before="other", after="asked"),
    "objective.deadline_s": Case(choice=first_admitted, changed=5.0, before="other", after="asked"),
    "objective.inter_token_s": Case(choice=prompt_chunk, changed=0.05, before=511, after=40),
    "objective.min_quality": Case(choice=cheapest_good, changed=0.5, before="small", after="large"),
    "objective.max_cost": Case(choice=answer_limit, changed=30.0, before=50, after=20),
    "objective.prefer": Case(choice=joint_choice, changed="quality", before="small", after="large"),
    "task": Case(choice=joint_choice, changed="sums", before="small", after="large"),
    "objective.max_energy_j": Case(choice=refused, changed=1.0, before=None, after="max_energy_j"),
    "hints.output_tokens": Case(
        choice=cheapest_for_its_length, changed=2000, before="prompts", after="answers"
    ),
    "hints.prompt_tokens": Case(choice=affordable_model, changed=100, before="small", after="large"),
    "hints.output_tokens (objective)": Case(
        choice=kept_objective,
        base=RunContext(objective=Objective(deadline_s=30.0)),
        changed=1000,
        before=("slow", None),
        after=("fast", "slo.deadline_s"),
    ),
    "hints.remaining_steps (router)": Case(
        choice=kept_objective,
        base=RunContext(objective=Objective(deadline_s=30.0)),
        changed=2,
        before=("slow", None),
        after=("fast", "slo.deadline_s"),
    ),
    "objective.ttft_s (router)": Case(
        choice=kept_objective, changed=0.5, before=("slow", None), after=("fast", "slo.ttft_s")
    ),
    "objective.inter_token_s (router)": Case(
        choice=kept_objective, changed=0.05, before=("slow", None), after=("fast", "slo.inter_token_s")
    ),
    "objective.deadline_s (router)": Case(
        choice=kept_objective, changed=5.0, before=("slow", None), after=("fast", "slo.deadline_s")
    ),
    "objective.max_cost (router)": Case(
        choice=kept_objective,
        base=RunContext(objective=Objective(ttft_s=0.5)),
        changed=2e-4,
        before=("fast", "slo.ttft_s"),
        after=("slow", "slo.ttft_s, slo.max_cost"),
    ),
    "budget.wall_s (router)": Case(
        choice=kept_objective, changed=5.0, before=("slow", None), after=("fast", "budget.wall_s")
    ),
    "budget.cost (router)": Case(
        choice=kept_objective,
        base=RunContext(objective=Objective(ttft_s=0.5)),
        changed=2e-4,
        before=("fast", "slo.ttft_s"),
        after=("slow", "slo.ttft_s, budget.cost"),
    ),
    "budget.tokens": Case(choice=answer_limit, changed=25, before=50, after=15),
    "budget.cost": Case(choice=answer_limit, changed=40.0, before=50, after=30),
    "budget.wall_s": Case(choice=first_admitted, changed=5.0, before="other", after="asked"),
    "budget.tool_calls": Case(choice=refused_over_http, changed=1, before=None, after="budget.tool_calls"),
    "data_label": Case(choice=able, changed="local", before=["far", "here"], after=["here"]),
}


def fields_of(kind: type, path: str = "") -> Iterator[str]:
    """Paths of all fields, those of Objective, Budget and Hints one by one."""
    for field in dataclasses.fields(kind):
        inner = {"objective": Objective, "budget": Budget, "hints": Hints}.get(field.name)
        if inner is None:
            yield path + field.name
        else:
            yield from fields_of(inner, f"{field.name}.")


def changed(context: RunContext, path: str, value: object) -> RunContext:
    """The context with one field changed."""
    name, _, inner = path.partition(".")
    if inner:
        value = dataclasses.replace(getattr(context, name), **{inner: value})
    return dataclasses.replace(context, **{name: value})


def test_every_field_of_the_context_has_a_choice_that_it_changes() -> None:
    assert set(fields_of(RunContext)) == {name.split(" ")[0] for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_changing_the_field_alone_changes_the_choice(name: str) -> None:
    case, path = CASES[name], name.split(" ")[0]
    other = changed(case.base, path, case.changed)
    assert other != case.base
    assert (case.choice(case.base), case.choice(other)) == (case.before, case.after)
