"""Wrapped: a memory that is another one in all that it does not say itself."""

from __future__ import annotations

from collections.abc import Sequence

from pentad.agent.memory.base import Experience, Item, Memory, Occasion, Recollection, Scope


class Wrapped:
    """Passes everything on; strategies say what is different.

    Args:
        inner: where the items are kept.
    """

    def __init__(self, inner: Memory) -> None:
        self.inner = inner

    async def write(self, item: Item, scope: Scope) -> str:
        return await self.inner.write(item, scope)

    async def query(self, cue: str, *, k: int, scope: Scope) -> list[Recollection]:
        return await self.inner.query(cue, k=k, scope=scope)

    async def recall(self, occasion: Occasion, *, k: int, scope: Scope) -> list[Recollection]:
        return await self.query(occasion.goal, k=k, scope=scope)

    async def item(self, ident: str, scope: Scope) -> Item | None:
        return await self.inner.item(ident, scope)

    async def supersede(self, ident: str, item: Item, scope: Scope) -> str:
        return await self.inner.supersede(ident, item, scope)

    async def forget(self, idents: Sequence[str], scope: Scope) -> list[str]:
        return await self.inner.forget(idents, scope)

    async def items(self, scope: Scope) -> list[Item]:
        return await self.inner.items(scope)

    async def learn(self, experience: Experience, scope: Scope) -> None:
        await self.inner.learn(experience, scope)

    async def consolidate(self, scope: Scope) -> int:
        return await self.inner.consolidate(scope)

    def close(self) -> None:
        self.inner.close()
