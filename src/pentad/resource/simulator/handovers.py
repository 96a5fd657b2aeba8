"""What an engine that answers has of prompts that another one has computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pentad.execution.kv.pool import BlockPool, Key
from pentad.execution.kv.prefix import PrefixCache
from pentad.execution.request import TokenRequest

if TYPE_CHECKING:
    from pentad.resource.simulator.engines import SimulatedEngine


class ReceivedBlocks:
    """The `BlockStore` of an engine that answers: whole blocks of prompts that another one has computed.

    They wait beside the pool until their request has its first token here; one that is preempted later is
    computed again. What of a prompt is no whole block is computed again as well, as vLLM's connectors do.
    """

    secret: ClassVar[bytes] = bytes(32)
    """Nobody is to be kept apart in a simulation."""

    def __init__(self, block_size: int) -> None:
        self.version = 0
        self._block_size = block_size
        self._names = PrefixCache(BlockPool(1), block_size, self.secret)
        self._keys: dict[str, list[Key]] = {}
        self._held: Counter[Key] = Counter()

    def receive(self, request: TokenRequest) -> None:
        """Takes the blocks of a request's text but its last token, which is computed here."""
        keys: list[Key] = []
        root = self._names.root(request.tenant, request.cache_salt)
        self._names.extend(keys, root, request.prompt, (len(request.prompt) - 1) // self._block_size)
        self._keys[request.id] = keys
        self._held.update(keys)
        self.version += 1

    def forget(self, id: str) -> None:
        """Lets a request's blocks go; nothing where there are none."""
        for key in self._keys.pop(id, ()):
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]
                self.version += 1

    def __contains__(self, key: Key) -> bool:
        return key in self._held

    def save(self, key: Key, block: int) -> bool:  # noqa: ARG002 - what is computed here stays in the pool
        return False

    def load(self, key: Key, block: int) -> bool:  # noqa: ARG002 - simulated blocks hold nothing
        return key in self._held

    def touch(self, keys: Sequence[Key]) -> None:
        """Nothing gives way here, so uses are not noted."""

    def stats(self) -> dict[str, float]:
        return {"kv_blocks_received": len(self._held)}

    def close(self) -> None:
        self._keys.clear()
        self._held.clear()


@dataclass(frozen=True, slots=True)
class Target:
    """An engine that may answer what another one has prefilled."""

    engine: SimulatedEngine
    weight: float
    by_layer: bool
