"""Elastic: how much of the context a call gets is left to the router, which chooses it with the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final

from pentad.agent.context_builders.base import Built, ContextBuilder, ContextInput
from pentad.agent.context_builders.window import NewestTurns
from pentad.agent.memory.window import Overflow, Window
from pentad.agent.planning.base import ModelCallDraft
from pentad.choice import Choice, build
from pentad.errors import ContextLengthExceeded
from pentad.model.control.situation import CONTEXT
from pentad.types import Exactness

_CHARS: Final = 4
"""Of a token, about."""
_PINNED_CHARS: Final = 3
"""The same, on the safe side, of what cannot be left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Elastic:
    """Offers each call's context whole and reduced to fewer tokens; the router `elastic` takes one.

    What leaves a prompt leaves it for good, as with the builder that reduces it. Until such a way of asking
    has been judged, it counts by the success that it has at least, and for no floor of quality. With any
    other router, and where nothing can be left out, contexts stay whole.

    Exactness: lossy, where the router reduces; each cut is recorded. Cost: one more way of asking per size.
    Source: survey VI-D and VII-B1, context and strategy chosen with the model; ours is one choice per call.
    """

    tokens: tuple[int, ...] = (1024,)
    """Prompt tokens that a context may be reduced to."""
    by: str = "window"
    """The context builder that reduces it, as an agent file writes it; not this one."""
    _inner: ContextBuilder = field(init=False, repr=False, compare=False, default_factory=NewestTurns)

    name: ClassVar[str] = "elastic"
    exactness: ClassVar[Exactness] = "lossy"
    overflows: ClassVar[frozenset[Overflow]] = frozenset({"trim", "refuse"})

    def __post_init__(self) -> None:
        if not self.tokens or min(self.tokens) < 64:
            raise ValueError("tokens names sizes of 64 tokens at least")
        choice = Choice.of(self.by)
        if choice.name == self.name:
            raise ValueError("by names this builder itself; name another")
        object.__setattr__(self, "_inner", build("context", choice))

    def offers(self, draft: ModelCallDraft, window: Window) -> tuple[int, ...]:
        """The sizes that the draft can be reduced to: below what it has, above what has to stay."""
        if window.overflow == "refuse":
            return ()
        sizes = {True: len(draft.system), False: 0}
        for turn in draft.turns:
            sizes[turn.pinned] += sum(len(message.content) for message in turn.messages)
        whole, least = sum(sizes.values()) // _CHARS, sizes[True] // _PINNED_CHARS
        return tuple(tokens for tokens in self.tokens if least < tokens < whole)

    async def build(self, given: ContextInput) -> Built:
        """As the builder that reduces builds it; where that cannot get so short, as for the whole."""
        try:
            return await self._inner.build(given)
        except ContextLengthExceeded:
            if given.draft.context_tokens is None:
                raise
        return await self._inner.build(replace(given, draft=replace(given.draft, context_tokens=None)))


def in_contexts(
    builder: ContextBuilder, drafts: Mapping[str, ModelCallDraft], window: Window
) -> dict[str, ModelCallDraft]:
    """Each way of asking in each context that the router may choose from, by name, the whole one first."""
    if not isinstance(builder, Elastic):
        return dict(drafts)
    return {
        way if tokens is None else f"{way} {CONTEXT}{tokens}".strip(): replace(draft, context_tokens=tokens)
        for way, draft in drafts.items()
        for tokens in (None, *builder.offers(draft, window))
    }
