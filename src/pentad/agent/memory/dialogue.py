"""Dialogue: a long conversation by modules that are prompts: clarifier, summariser and retriever."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.agent.memory.base import Experience, Item, MemoryServices, Occasion, Recollection, Scope
from pentad.agent.memory.store import Store
from pentad.agent.memory.wrapped import Wrapped
from pentad.ranges import in_range

_CLARIFY = (
    "Rewrite the last message as one question that is clear without the conversation: put names in place "
    "of pronouns. Answer with the question alone."
)
_SUMMARISE = (
    "From this exchange write what will still hold later about either speaker: who they are, have, like, "
    "did or promised. One short sentence per line that begins with `User` or `Assistant`. Write `none` where "
    "there is nothing."
)
_TURNS = 4
"""Messages before the last that the clarifier sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    """Remembers what the speakers of a long conversation said about themselves, and recalls it in time.

    Three modules, each a prompt to the run's own model or a search: after a turn the *summariser* writes
    lasting facts of both speakers, the agent's own too, so that it does not contradict itself; before one
    the *clarifier* makes the user's message clear by itself, and the *retriever* brings what is nearest to
    the message and to its clear form. The planner's answer is the *responder*.

    Source: Lee et al. 2023, "Prompted LLMs as Chatbot Modules for Long Open-domain Conversation" (MPC),
    section 3. Ours retrieves by the store's scores, and keeps facts across conversations. Exactness: lossy;
    the metric is the rate of contradictions. Cost: two short model calls per turn.
    """

    facts: int = 4
    """That are kept of one turn, at most."""

    needs: ClassVar[frozenset[str]] = Store.needs
    name: ClassVar[str] = "dialogue"

    def __post_init__(self) -> None:
        in_range("facts", self.facts, least=1)

    def open(self, services: MemoryServices) -> _Conversing:
        """The file's items."""
        return _Conversing(self, services)


class _Conversing(Wrapped):
    def __init__(self, strategy: Dialogue, services: MemoryServices) -> None:
        super().__init__(Store().open(services))
        self._strategy = strategy

    async def learn(self, experience: Experience, scope: Scope) -> None:
        """Writes down the turn's lasting facts; once."""
        if not experience.answered or await self.inner.item(_ident(experience, 0), scope) is not None:
            return
        turn = f"User: {experience.goal}\nAssistant: {experience.answer}"
        said = await experience.think(_SUMMARISE, turn, 32 * self._strategy.facts)
        lines = [line.strip(" -*\t") for line in said.splitlines()]
        facts = [line for line in lines if line.split(" ")[0].rstrip("':s") in ("User", "Assistant")]
        for number, fact in enumerate(dict.fromkeys(facts[: self._strategy.facts])):
            item = Item(
                id=_ident(experience, number),
                text=fact,
                kind="fact",
                source=experience.run_id,
                derived_from=experience.recalled,
            )
            await self.write(item, scope)

    async def recall(self, occasion: Occasion, *, k: int, scope: Scope) -> list[Recollection]:
        """What is nearest to the message or to what it asks; best first."""
        cues = [occasion.goal]
        if occasion.history:
            lines = [f"{m.role}: {m.content}" for m in occasion.history[-_TURNS:] if m.content]
            asked = "\n".join([*lines, f"Last message: {occasion.goal}"])
            cues.append(await occasion.think(_CLARIFY, asked, 64))
        found: dict[str, Recollection] = {}
        for cue in cues:
            for one in await self.query(cue, k=k, scope=scope):
                known = found.get(str(one.item.id))
                if known is None or known.score < one.score:
                    found[str(one.item.id)] = one
        return sorted(found.values(), key=lambda r: (-r.score, str(r.item.id)))[:k]


def _ident(experience: Experience, number: int) -> str:
    return f"{experience.run_id}.fact{number}"
