"""What a run takes from long-term memory when it begins, and leaves there when it ends."""

from __future__ import annotations

from dataclasses import replace

from pentad.agent.events import Recalled, RunEnded
from pentad.agent.memory.base import Item, Memory, Scope
from pentad.agent.ports import count_text
from pentad.agent.run import Run
from pentad.agent.spec import LongTermChoice
from pentad.errors import PentadError


class Remembering:
    """The long-term memory of one run; does nothing for agents that have none."""

    def __init__(self, run: Run, memory: Memory | None) -> None:
        self._run = run
        self._memory = memory

    async def recall(self) -> None:
        """Journals the memories that matter to the goal, once per run."""
        state = self._run.state
        choice = state.spec.memory.long_term
        if self._memory is None or choice is None or choice.k < 1 or state.recalled is not None:
            return
        with self._run.span("agent", "memory"):
            scope = Scope(tenant=state.tenant, agent=None if choice.shared else state.spec.name)
            found = await self._memory.query(state.goal, k=choice.k, scope=scope)
            chosen = self._within(choice, [(str(r.item.id), r.item.text, r.score) for r in found])
        await self._run.append(Recalled(step=state.step, items=chosen))

    async def keep(self, ending: RunEnded) -> RunEnded:
        """Remembers an answered run as an episode; the ending, which says so if that failed.

        The item's id is the run's, so that a restart keeps it once.
        """
        state = self._run.state
        choice = state.spec.memory.long_term
        if self._memory is None or choice is None or not choice.episodes or ending.status != "answered":
            return ending
        text = f"{state.goal} -> {ending.answer}"[: choice.episode_characters]
        item = Item(id=state.run_id, text=text, kind="episode", source=state.run_id)
        try:
            with self._run.span("agent", "memory"):
                await self._memory.write(item, Scope(tenant=state.tenant, agent=state.spec.name))
        except PentadError as error:
            return replace(ending, error=f"answered, but not remembered: {error}")
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
