"""What a run takes from long-term memory when it begins, and leaves there when it ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pentad.agent.events import Recalled, RunEnded
from pentad.agent.memory.base import Experience, Memory, Occasion, Sample, Scope, Think
from pentad.agent.ports import count_text
from pentad.agent.run import Run
from pentad.agent.spec import LongTermChoice
from pentad.agent.state import RunState
from pentad.errors import PentadError

_STEP_CHARACTERS = 300


class Remembering:
    """The long-term memory of one run; does nothing for agents that have none."""

    def __init__(self, run: Run, memory: Memory | None, think: Think, sample: Sample) -> None:
        self._run, self._memory, self._think, self._sample = run, memory, think, sample

    async def recall(self) -> None:
        """Journals the memories that matter to the goal, once per run."""
        state = self._run.state
        choice = state.spec.memory.long_term
        if self._memory is None or choice is None or choice.k < 1 or state.recalled is not None:
            return
        with self._run.span("agent", "memory"):
            scope = Scope(tenant=state.tenant, agent=None if choice.shared else state.spec.name)
            occasion = Occasion(goal=state.goal, think=self._think, history=state.history)
            found = await self._memory.recall(occasion, k=choice.k, scope=scope)
            chosen = self._within(choice, [(str(r.item.id), r.item.text, r.score) for r in found])
        await self._run.append(Recalled(step=state.step, items=chosen))

    async def keep(self, ending: RunEnded) -> RunEnded:
        """Lets the memory learn from the run; the ending, which says so if that failed."""
        state = self._run.state
        choice = state.spec.memory.long_term
        if self._memory is None or choice is None or not choice.episodes:
            return ending
        experience = Experience(
            run_id=state.run_id,
            goal=state.goal,
            answer=ending.answer,
            answered=ending.status == "answered",
            think=self._think,
            sample=self._sample,
            history=state.history,
            steps=tuple(_steps(state, ending)),
            recalled=tuple(ident for ident, _, _ in state.recalled or ()),
            text=f"{state.goal} -> {ending.answer}"[: choice.episode_characters],
        )
        try:
            with self._run.span("agent", "memory"):
                scope = Scope(tenant=state.tenant, agent=state.spec.name)
                await self._memory.learn(experience, scope)
        except PentadError as error:
            return replace(ending, error=f"{ending.error or ending.status}, but not remembered: {error}")
        return ending

    def _within(
        self, choice: LongTermChoice, found: list[tuple[str, str, float]]
    ) -> tuple[tuple[str, str, float], ...]:
        """The best of them that fit `max_tokens`; a long one does not keep shorter ones out."""
        left, chosen = choice.max_tokens, []
        for item in found:
            tokens = count_text(self._run.around.models, self._run.state.spec.model, item[1])
            if tokens <= left:
                chosen.append(item)
                left -= tokens
        return tuple(chosen)


def _steps(state: RunState, ending: RunEnded) -> Iterator[tuple[str, str]]:
    """What the run saw and did, each cut to `_STEP_CHARACTERS`; an answer is what it did last."""
    seen = ""
    for exchange in state.closed:
        done = "; ".join(f"{call.name} {call.arguments}" for call in exchange.calls)
        if done:
            yield seen, done[:_STEP_CHARACTERS]
            results = [result.content for _, result in sorted(exchange.results.items())]
            seen = "; ".join(results)[:_STEP_CHARACTERS]
    if ending.status == "answered":
        yield seen, f"answer {ending.answer}"[:_STEP_CHARACTERS]
