"""What notes of a conversation earn beside its history alone, with a real model. Minutes.

nice .venv/bin/pytest -s -m slow tests/slow/test_agent_memory_modules.py --rows-file \
    benchmarks/results/rows-test_agent_memory_modules.jsonl
"""

from __future__ import annotations

import asyncio
import pathlib
import random
import statistics
from dataclasses import dataclass, replace

import pytest

from agent_models import real_runtime
from agent_support import FREE, run
from evidence.plugin import Measure
from pentad.agent.journal import Journal
from pentad.agent.memories import Memories
from pentad.agent.memory.base import Experience, Memory, MemoryServices, Scope
from pentad.agent.memory.window import Window
from pentad.agent.model_events import ModelAsked
from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec, LongTermChoice, MemoryChoice
from pentad.choice import Choice
from pentad.model.service import ModelService
from pentad.types import Message, Request, Sampling

pytestmark = pytest.mark.slow
CASES, PROMPT_TOKENS = 6, 330
SLOTS = {
    "name": ["Okafor", "Lindqvist", "Moreau", "Tanaka", "Kowalski", "Haddad", "Silva"],
    "guests": ["three", "four", "five", "seven", "eight", "nine"],
    "day": ["Monday", "Tuesday", "Wednesday", "Thursday", "Saturday", "Sunday"],
    "time": ["12:15", "13:45", "17:30", "18:10", "19:40", "20:20"],
    "table": ["terrace", "window", "fireplace", "garden", "balcony", "cellar"],
    "dish": ["duck", "trout", "risotto", "lamb", "gnocchi", "paella"],
    "phone": ["5518", "7742", "9036", "2281", "6490", "3357"],
    "occasion": ["birthday", "engagement", "retirement", "graduation", "reunion", "anniversary"],
}
SAID = {
    "name": "Hello, I would like to book a table with you. The name is {}.",
    "guests": "We will be {} in all, my brother may still bring someone but do not count him.",
    "day": "It should be on {}, as the rest of the week is full of work for most of us.",
    "time": "We would come at {}, since the train arrives a little before that.",
    "table": "If it is free we would love to sit at the {}, we sat there years ago and liked it.",
    "dish": "Please have the {} ready for everybody, we read about it in the paper.",
    "phone": "If anything comes up my number ends in {}, call at any hour of the day.",
    "occasion": "By the way, it is for a {}, so a candle on the table would be kind.",
}
REPLIES = [
    "Thank you, I have written that down. Is there anything else that I should know about your visit?",
    "Very well. We are glad to have you with us; the kitchen has new things on the card this month.",
    "Noted. Please tell me what else I can do for you, we have all the time in the world today.",
]
ASKED = "Please repeat my whole booking: name, guests, day, time, table, dish, phone and occasion."


@dataclass(frozen=True)
class Talk:
    slots: dict[str, str]
    history: tuple[Message, ...]


def talks(seed: int = 11) -> list[Talk]:
    """Bookings told slot by slot in a drawn order; the day is changed once on the way."""
    source = random.Random(seed)
    made = []
    for _ in range(CASES):
        slots = {name: source.choice(values) for name, values in SLOTS.items()}
        order = source.sample(list(slots), len(slots))
        lines = [SAID[name].format(slots[name]) for name in order]
        changed = source.choice([day for day in SLOTS["day"] if day != slots["day"]])
        place = source.randint(order.index("day") + 1, len(lines))
        lines.insert(
            place, f"I have to change something: it must be {changed} now, not the day I said before."
        )
        slots["day"] = changed
        history = [
            Message(role=role, content=text)  # type: ignore[arg-type]
            for line in lines
            for role, text in (("user", line), ("assistant", source.choice(REPLIES)))
        ]
        made.append(Talk(slots, tuple(history)))
    return made


async def noted(models: ModelService, memory: Memory, talk: Talk, scope: Scope, number: int) -> None:
    """Goes through the conversation turn by turn, as the runs of a server would."""

    async def think(system: str, text: str, max_tokens: int) -> str:
        messages = (Message(role="system", content=system), Message(role="user", content=text))
        sampling = Sampling(temperature=0, max_tokens=max_tokens)
        ident = f"note-{number}-{len(text)}-{hash(text)}"
        done = await models.complete(Request(id=ident, model="model", messages=messages, sampling=sampling))
        return done.message.content

    async def sample(
        system: str, text: str, max_tokens: int, *, samples: int, temperature: float
    ) -> tuple[str, ...]:
        raise AssertionError(text)

    for at in range(0, len(talk.history), 2):
        user, assistant = talk.history[at : at + 2]
        experience = Experience(
            run_id=f"run_{number}_{at}",
            goal=user.content,
            answer=assistant.content,
            answered=True,
            think=think,
            sample=sample,
            history=talk.history[:at],
            text=f"{user.content} -> {assistant.content}",
        )
        await memory.learn(experience, scope)


async def answered(
    runtime: AgentRuntime, journal: Journal, agent: AgentSpec, talk: Talk
) -> tuple[float, int]:
    """The share of slots that the answer has, and the tokens of its prompt."""
    run_id = await runtime.start(agent, ASKED, history=talk.history)
    state = await runtime.wait(run_id)
    asked = [r.event for r in journal.read(run_id) if isinstance(r.event, ModelAsked)]
    said = state.answer.casefold()
    right = [value.casefold() in said for value in talk.slots.values()]
    print(
        f"{agent.name}: {sum(right)} of {len(right)}, {asked[-1].prompt_tokens} tokens: {state.answer!r:.300}"
    )
    return statistics.mean(right), asked[-1].prompt_tokens


@pytest.mark.row("mem-raise", "effect", claims=(1,))
def test_notes_keep_slots_that_a_window_of_the_same_size_has_lost(
    qwen_large_path: pathlib.Path, minilm_path: pathlib.Path, tmp_path: pathlib.Path, measured: Measure
) -> None:
    agent = AgentSpec(
        name="history",
        instructions="You take bookings for a restaurant. Answer briefly.",
        planner=FREE,
        max_steps=1,
        max_tokens=90,
        memory=MemoryChoice(window=Window(max_tokens=PROMPT_TOKENS)),
    )
    store = Choice(name="working-memory", options={"slots": tuple(SLOTS)})
    long_term = LongTermChoice(k=1, episodes=False)
    noting = replace(agent, name="notes", memory=replace(agent.memory, store=store, long_term=long_term))

    async def scenario() -> None:
        async with real_runtime(qwen_large_path, tmp_path, minilm_path) as (_, models, _):
            services = MemoryServices(path=tmp_path / "notes.db", models=models, embedder="minilm")
            memories = Memories(services)
            memory = memories.get(store)
            assert memory is not None
            journal = Journal(tmp_path / "runs.db")
            runtime = AgentRuntime(models, journal, memory=memories)
            cases = talks()
            scope = Scope(tenant="default", agent="notes")
            await asyncio.gather(*(noted(models, memory, t, scope, n) for n, t in enumerate(cases)))
            alone = await asyncio.gather(*(answered(runtime, journal, agent, talk) for talk in cases))
            with_notes = await asyncio.gather(*(answered(runtime, journal, noting, talk) for talk in cases))
            await runtime.close()
            memories.close()
        shares = [100 * statistics.mean(s for s, _ in found) for found in (alone, with_notes)]
        tokens = [statistics.mean(t for _, t in found) for found in (alone, with_notes)]
        print(f"slots of history and notes: {shares}; prompt tokens: {tokens}")
        measured("prompt tokens beside history alone", tokens[1] / tokens[0], at_most=1.1, unit="x")
        measured("slot accuracy above history alone", shares[1] - shares[0], at_least=8, unit=" points")

    run(scenario(), 1200)
