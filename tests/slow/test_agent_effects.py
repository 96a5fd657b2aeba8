"""What agents gain from their parts, with real models. Minutes each; see the printed figures.

nice .venv/bin/pytest -m slow tests/slow/test_agent_effects.py --rows-file benchmarks/results/rows-agent.jsonl
"""

from __future__ import annotations

import datetime
import pathlib
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from agent_models import real_runtime
from agent_support import run
from evidence.plugin import Measure
from pentad.agent.memory.base import Item, Scope
from pentad.agent.memory.window import Window
from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec, LongTermChoice, MemoryChoice
from pentad.agent.tools.functions import tool
from pentad.choice import Choice
from pentad.types import Message, Request, Sampling

pytestmark = pytest.mark.slow
MINUTES_S = 60.0
Record = Callable[[str, object], None]
FREE = Choice(name="react", options={"max_plan": 0})


def numbers(text: str) -> set[str]:
    return {n.rstrip(".") for n in re.findall(r"-?\d[\d.]*", text.replace(",", ""))}


def products(count: int, seed: int) -> list[tuple[str, str]]:
    source = random.Random(seed)
    pairs = [(source.randint(100, 999), source.randint(100, 999)) for _ in range(count)]
    return [(f"What is {a} times {b}?", str(a * b)) for a, b in pairs]


async def answer(runtime: AgentRuntime, agent: AgentSpec, goal: str, **options: Any) -> str:
    run_id = await runtime.start(agent, goal, **options)
    return (await runtime.wait(run_id)).answer


@pytest.mark.row("tool-functional", "effect", claims=(1,))
def test_a_calculator_makes_three_digit_products_right(
    qwen_path: pathlib.Path, tmp_path: pathlib.Path, measured: Measure
) -> None:
    asked = products(200, seed=11)

    async def scenario() -> None:
        async with real_runtime(qwen_path, tmp_path) as (runtime, models, _):
            agent = AgentSpec(
                name="calc",
                instructions="Use the calculator for arithmetic.",
                tools=("calculator",),
                planner=FREE,
                max_steps=4,
                max_tokens=96,
            )
            with_tool = sum([value in numbers(await answer(runtime, agent, goal)) for goal, value in asked])
            without = 0
            for number, (goal, value) in enumerate(asked):
                request = Request(
                    id=f"plain{number}",
                    model="",
                    messages=(Message(role="user", content=f"{goal} Answer with the number only."),),
                    sampling=Sampling(temperature=0, max_tokens=32),
                )
                without += value in numbers((await models.complete(request)).message.content)
            print(f"3-digit products of {len(asked)}: with calculator {with_tool}, without {without}")
            measured(f"right of {len(asked)} with the calculator", with_tool / len(asked), at_least=0.95)
            measured(f"right of {len(asked)} without", without / len(asked), at_most=0.60)

    run(scenario(), 90 * MINUTES_S)


GREENHOUSE = [
    ("What is the temperature in the orchid room?", "read_temperature", {"room": "orchid"}),
    ("How warm is it in the fern room?", "read_temperature", {"room": "fern"}),
    ("Tell me the temperature of the palm room.", "read_temperature", {"room": "palm"}),
    ("Read the temperature in the cactus room.", "read_temperature", {"room": "cactus"}),
    ("Open the vent in the fern room to 40 percent.", "set_vent", {"room": "fern", "percent": 40}),
    ("Set the vent of the palm room to 75 percent.", "set_vent", {"room": "palm", "percent": 75}),
    ("Close the vent in the cactus room, set it to 0 percent.", "set_vent", {"room": "cactus", "percent": 0}),
    ("Open the orchid room vent to 10 percent.", "set_vent", {"room": "orchid", "percent": 10}),
    ("Water bed 3 for 15 minutes.", "water_bed", {"bed": 3, "minutes": 15}),
    ("Please water bed 12 for 5 minutes.", "water_bed", {"bed": 12, "minutes": 5}),
    ("Bed 7 needs 20 minutes of water.", "water_bed", {"bed": 7, "minutes": 20}),
    ("Give bed 1 water for 8 minutes.", "water_bed", {"bed": 1, "minutes": 8}),
    ("Order 6 packets of basil seeds.", "order_seeds", {"plant": "basil", "packets": 6}),
    ("We need 2 packets of tomato seeds, order them.", "order_seeds", {"plant": "tomato", "packets": 2}),
    ("Order 10 packets of marigold seeds.", "order_seeds", {"plant": "marigold", "packets": 10}),
    ("Buy 4 packets of lavender seeds.", "order_seeds", {"plant": "lavender", "packets": 4}),
    ("Move the lemon tree to the palm room.", "move_plant", {"plant": "lemon tree", "to_room": "palm"}),
    ("Move the big agave to the cactus room.", "move_plant", {"plant": "agave", "to_room": "cactus"}),
    ("Bring the vanilla plant to the orchid room.", "move_plant", {"plant": "vanilla", "to_room": "orchid"}),
    ("Put the tree fern in the fern room.", "move_plant", {"plant": "tree fern", "to_room": "fern"}),
]


@tool(effects="none")
def read_temperature(room: str) -> str:
    """Reads the temperature in a room of the greenhouse."""
    return f"{len(room) + 15} degrees"


@tool(effects="none")
def set_vent(room: str, percent: int) -> str:
    """Opens or closes the roof vent of a room; 0 percent is closed."""
    return f"the vent of {room} is at {percent} percent"


@tool(effects="none")
def water_bed(bed: int, minutes: int) -> str:
    """Waters a bed, by its number, for some minutes."""
    return f"bed {bed} was watered for {minutes} minutes"


@tool(effects="none")
def order_seeds(plant: str, packets: int) -> str:
    """Orders packets of seeds of a plant."""
    return f"{packets} packets of {plant} ordered"


@tool(effects="none")
def move_plant(plant: str, to_room: str) -> str:
    """Moves a plant into another room."""
    return f"{plant} is in {to_room}"


def fits(value: object, wanted: object) -> bool:
    return str(wanted).lower() in str(value).lower() if isinstance(wanted, str) else value == wanted


@pytest.mark.row("tool-new-domain", "effect", claims=(1,))
def test_an_unseen_domain_is_used_as_soon_as_it_is_registered(
    qwen_path: pathlib.Path, tmp_path: pathlib.Path, measured: Measure
) -> None:
    async def scenario() -> None:
        async with real_runtime(qwen_path, tmp_path) as (runtime, _, _):
            agent = AgentSpec(name="greenhouse", tools=("*",), planner=FREE, max_steps=2, max_tokens=96)
            before = await runtime.wait(await runtime.start(agent, GREENHOUSE[0][0]))
            assert not any(e.calls for e in before.exchanges)
            for made in (read_temperature, set_vent, water_bed, order_seeds, move_plant):
                runtime.toolbox.add(made)
            right = 0
            for goal, name, wanted in GREENHOUSE:
                run_id = await runtime.start(agent, goal)
                state = await runtime.wait(run_id)
                calls = [c for e in state.exchanges for c in e.calls][:1]
                right += (
                    bool(calls)
                    and calls[0].name == name
                    and all(fits(calls[0].parsed().get(key), value) for key, value in wanted.items())
                )
            print(f"correct first calls in an unseen domain of 5 APIs: {right} of {len(GREENHOUSE)}")
            measured(f"correct calls of {len(GREENHOUSE)}", right / len(GREENHOUSE), at_least=0.60)

    run(scenario(), 40 * MINUTES_S)


@pytest.mark.row("mem-short", "effect", claims=(2,))
def test_facts_of_the_last_ten_turns_are_recalled_from_a_long_chat(
    qwen_path: pathlib.Path, tmp_path: pathlib.Path, measured: Measure
) -> None:
    source = random.Random(3)
    things = ["boat", "dog", "street", "teacher", "boss", "neighbour", "horse", "village", "sister", "cousin"]
    names = ["Petrel", "Basil", "Linden", "Okafor", "Varga", "Moreau", "Comet", "Selby", "Irene", "Tomas"]

    async def scenario() -> None:
        async with real_runtime(qwen_path, tmp_path) as (runtime, _, _):
            memory = MemoryChoice(window=Window(max_tokens=700))
            agent = AgentSpec(name="chat", planner=FREE, memory=memory, max_tokens=40)
            right = 0
            for _ in range(10):
                source.shuffle(names)
                history = []
                for turn in range(200):
                    weather = source.choice(("fair", "wet", "dry"))
                    told = f"Turn {turn}: the weather at place {turn} was {weather}."
                    if turn >= 190:
                        told = f"My {things[turn - 190]} is called {names[turn - 190]}."
                    history += [
                        Message(role="user", content=told),
                        Message(role="assistant", content="Noted."),
                    ]
                for thing, name in zip(things, names, strict=True):
                    goal = f"What is my {thing} called?"
                    right += name in await answer(runtime, agent, goal, history=history)
            print(f"facts of the last ten of 200 turns recalled: {right} of 100")
            measured("facts of the last ten of 200 turns, of 100", right / 100, at_least=0.95)

    run(scenario(), 40 * MINUTES_S)


@dataclass(frozen=True)
class Suite:
    """Questions of one kind; an answer is right when it holds all that is wanted."""

    needs: str
    questions: list[tuple[str, tuple[str, ...]]]
    remembered: tuple[str, ...] = field(default=())


def weekday(date: str) -> str:
    return f"{datetime.date.fromisoformat(date):%A}"


def suites(count: int = 10) -> list[Suite]:
    """Four kinds of goals: one needs tools, one memory, one a plan, one nothing but the model."""
    source = random.Random(5)
    products_ = [(goal, (value,)) for goal, value in products(count, seed=21)]
    kinds = ["boat", "dog", "horse", "village", "teacher", "sister", "uncle", "garden", "doctor", "bakery"]
    names = ["Petrel", "Basil", "Comet", "Selby", "Okafor", "Irene", "Varga", "Arcady", "Moreau", "Halm"]
    dates = [
        f"20{source.randint(24, 29)}-{source.randint(1, 12):02}-{source.randint(1, 28):02}" for _ in kinds
    ]
    pairs = [(source.randint(100, 999), source.randint(11, 99)) for _ in kinds]
    both = [
        (f"What is {a} times {b}, and which weekday is {date}?", (str(a * b), weekday(date)))
        for (a, b), date in zip(pairs, dates, strict=True)
    ]
    texts = [
        (f"{name} has a red {kind} and a blue hat. Which colour is the {kind} of {name}?", ("red",))
        for kind, name in zip(kinds, names, strict=True)
    ]
    return [
        Suite("tools", products_),
        Suite(
            "memory",
            [(f"What is my {kind} called?", (name,)) for kind, name in zip(kinds, names, strict=True)],
            tuple(f"The user's {kind} is called {name}" for kind, name in zip(kinds, names, strict=True)),
        ),
        Suite("planner", both[:count]),
        Suite("model", texts[:count]),
    ]


@pytest.mark.row("agent-core", "effect", claims=(1, 2))
def test_every_module_is_missed_where_it_is_needed(
    qwen_path: pathlib.Path,
    minilm_path: pathlib.Path,
    tmp_path: pathlib.Path,
    record_property: Record,
    measured: Measure,
) -> None:
    full = AgentSpec(
        name="full",
        tools=("calculator", "calendar"),
        planner=Choice(name="react", options={"mode": "guided", "min_plan": 0, "max_plan": 3}),
        memory=MemoryChoice(long_term=LongTermChoice(k=3, episodes=False, shared=True)),
        max_steps=8,
        max_tokens=80,
    )
    variants = {
        "full": full,
        "tools": replace(full, name="no-tools", tools=()),
        "memory": replace(full, name="no-memory", memory=MemoryChoice()),
        "planner": replace(full, name="no-planner", planner=FREE),
    }
    scores: dict[tuple[str, str], float] = {}

    async def scenario() -> None:
        async with real_runtime(qwen_path, tmp_path, minilm_path) as (runtime, _, memory):
            assert memory is not None
            for suite in suites():
                scope = Scope(tenant=suite.needs)
                await memory.write_all(
                    [Item(text=t) for t in suite.remembered or ("The sky is blue",)], scope
                )
                for name, agent in variants.items():
                    right = 0
                    for goal, wanted in suite.questions:
                        text = await _tenant_answer(runtime, agent, goal, suite.needs)
                        said = text.replace(",", "")
                        right += all(part in said for part in wanted)
                    scores[suite.needs, name] = 100 * right / len(suite.questions)
                row = {name: scores[suite.needs, name] for name in variants}
                print(f"suite that needs {suite.needs}: {row}", flush=True)
                record_property(f"percent right, suite that needs {suite.needs}, by what is missing", row)

    run(scenario(), 120 * MINUTES_S)
    for module in ("tools", "memory", "planner"):
        points = scores[module, "full"] - scores[module, module]
        measured(f"lost without {module}", points, at_least=10, unit=" points")
    best = [
        scores[s, "full"] >= max(scores[s, v] for v in variants)
        for s in ("tools", "memory", "planner", "model")
    ]
    measured("suites of 4 where the full stack is best", sum(best), at_least=3)


async def _tenant_answer(runtime: AgentRuntime, agent: AgentSpec, goal: str, tenant: str) -> str:
    run_id = await runtime.start(agent, goal, tenant=tenant)
    return (await runtime.wait(run_id, tenant=tenant)).answer
