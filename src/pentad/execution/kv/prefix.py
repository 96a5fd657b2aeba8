"""PrefixCache: which blocks already hold the beginning of a prompt.

Full blocks are named by a chain of hashes, so that equal names mean equal tokens from the first on:

    root(tenant, salt) --t0..t15--> key 0 --t16..t31--> key 1 ...

Where a block has inputs that are no tokens, as of an image, the digest of what they were made of is hashed
too: equal placeholders never make two images one.

The root is keyed with a secret, so nobody can aim at another tenant's chain, and what one tenant
asked never shows in another's timing.
"""

from __future__ import annotations

import secrets
from array import array
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

from pentad.execution.kv.pool import BlockPool, Key
from pentad.execution.request import EmbeddedSpan

_KEY_BYTES = 16
_STRETCH = 16
"""Blocks whose names are remembered together."""
_MOST_STRETCHES = 2048
"""Of which each takes its tokens' eight bytes and the names: some 3 KiB with blocks of 16 tokens."""


class PrefixCache:
    """Names blocks and finds them again. References and eviction are the pool's.

    Cost: one hash per full block of a sequence, once; one dictionary look-up per block found. A text that
    goes on from one that was named lately, as the next step of a run does, is named by stretches of blocks.

    Args:
        pool: where the blocks are registered.
        block_size: tokens per block.
        secret: separates this cache's names from any other's; drawn when None.

    Source: automatic prefix caching of vLLM (hash chain); our difference: the salt is mandatory
    and keyed, and equal blocks computed side by side are merged when they are registered.
    """

    __slots__ = ("_block_size", "_pool", "_secret", "_stretches", "hit_tokens", "query_tokens")

    def __init__(self, pool: BlockPool, block_size: int, secret: bytes | None = None) -> None:
        self._pool = pool
        self._block_size = block_size
        self._secret = secrets.token_bytes(32) if secret is None else secret
        self._stretches: dict[bytes, tuple[Key, ...]] = {}
        """Names of the blocks of a stretch, by the name in front of it and its tokens; the oldest first."""
        self.query_tokens = 0
        """Prompt tokens looked up, once per sequence."""
        self.hit_tokens = 0
        """Of these, the ones found."""

    def root(self, tenant: str, salt: str, source: Sequence[int] = ()) -> Key:
        """The start of the chain of that tenant and salt, and of what an encoder reads: all of it shows in
        every block."""
        name = tenant.encode("utf-8", "surrogatepass")
        framed = len(name).to_bytes(8, "little") + name + salt.encode("utf-8", "surrogatepass")
        chain = blake2b(framed, key=self._secret, digest_size=_KEY_BYTES).digest()
        if not source:
            return chain
        return blake2b(
            chain + array("q", source).tobytes(), key=self._secret, digest_size=_KEY_BYTES
        ).digest()

    def extend(
        self,
        keys: list[Key],
        root: Key,
        tokens: Sequence[int],
        blocks: int,
        embedded: Sequence[EmbeddedSpan] = (),
    ) -> None:
        """Appends the keys of the full blocks up to number `blocks` of `tokens`, with those inputs."""
        size, first = self._block_size, len(keys)
        if first >= blocks:
            return
        previous = keys[-1] if keys else root
        raw = array("q", tokens[first * size : blocks * size]).tobytes()
        width = len(raw) // (blocks - first)
        if not embedded:
            stretch = _STRETCH * width
            whole = len(raw) // stretch * stretch
            for begin in range(0, whole, stretch):
                keys += self._named(previous, raw[begin : begin + stretch], width)
                previous = keys[-1]
            keys += _chain(previous, raw[whole:], width)
            return
        for i in range(first, blocks):
            content = raw[(i - first) * width : (i - first + 1) * width]
            content += _inputs(embedded, i * size, (i + 1) * size)
            previous = blake2b(previous + content, digest_size=_KEY_BYTES).digest()
            keys.append(previous)

    def _named(self, previous: Key, raw: bytes, width: int) -> tuple[Key, ...]:
        """The names of a stretch, made once while it is remembered."""
        place = previous + raw
        names = self._stretches.get(place)
        if names is None:
            names = self._stretches[place] = tuple(_chain(previous, raw, width))
            if len(self._stretches) > _MOST_STRETCHES:
                del self._stretches[next(iter(self._stretches))]
        return names

    def find(self, keys: Sequence[Key], most: int) -> list[int]:
        """The registered blocks of the longest known beginning, at most `most` of them."""
        return self._pool.find_all(keys[:most])

    def count(self, query_tokens: int, hit_tokens: int) -> None:
        """Records the outcome of a sequence's first look-up."""
        self.query_tokens += query_tokens
        self.hit_tokens += hit_tokens


def _chain(previous: Key, raw: bytes, width: int) -> Iterator[Key]:
    """The names of blocks of so many bytes behind the name in front of them."""
    for begin in range(0, len(raw), width):
        previous = blake2b(previous + raw[begin : begin + width], digest_size=_KEY_BYTES).digest()
        yield previous


def _inputs(spans: Iterable[EmbeddedSpan], begin: int, end: int) -> bytes:
    """Which inputs the positions begin to end have beside tokens: where, which rows, and of what."""
    found = b""
    for span in spans:
        low, high = max(begin, span.start), min(end, span.end)
        if low < high:
            place = array("q", (low - begin, high - begin, low - span.start, len(span.digest)))
            found += place.tobytes() + span.digest
    return found
