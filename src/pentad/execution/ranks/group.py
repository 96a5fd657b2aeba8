"""RankGroup: links to all other ranks, and the collectives that stages are made of, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import numpy as np

from pentad.errors import BackendFailed
from pentad.execution.codecs.base import Codec, Floats, decoded, shape_of
from pentad.execution.codecs.plain import Plain
from pentad.execution.ranks.messages import Rows
from pentad.execution.transport.base import BadFrame, Buffer, Link, PeerLost, Received

_AT_ONCE_BYTES: Final = 16 << 10
"""What any link takes while its other end is sending too; of more the lower rank sends first."""
_DIRECT_BYTES: Final = 64 << 10
"""Up to this size everybody sends all to all: one way instead of two."""
_PLAIN: Final = Plain()


class RankGroup:
    """One rank's ends of the links.

    Collectives are called by all members in the same order. Sums are taken in the order of ranks, of what
    everybody could decode, so that all members have the same bits.

    Args:
        links: to every other rank.
        codec: of what is summed and handed on; what ranks attend to, and logits, travel as they are.
    """

    def __init__(self, rank: int, links: Mapping[int, Link], codec: Codec = _PLAIN) -> None:
        self.rank = rank
        self.links = links
        self.codec = codec
        self.calls: Counter[str] = Counter()
        """Collectives by what they are for."""
        self.sent_bytes: Counter[str] = Counter()
        """Of numbers, without frames around them."""

    def send(self, to: int, rows: Floats, what: str, *, plain: bool = False) -> None:
        """Hands rows [N, E] to a rank. Raises PeerLost."""
        self._send(to, self._encoded(rows, plain=plain), shape_of(rows), what, plain=plain)

    def receive(self, source: int, what: str) -> Floats:
        """The rows that a rank sent for that purpose. Raises PeerLost, BadFrame."""
        received = self._frame(source, what)
        return self._decoded(received)

    def all_reduce(self, rows: Floats, members: Sequence[int], what: str) -> Floats:
        """The sum over members of their rows [N, E], the same at all of them."""
        self.calls[what] += 1
        if len(members) == 1:
            return rows
        if rows.nbytes <= _DIRECT_BYTES or len(rows) < len(members):
            return self._sum(self._exchanged([rows] * len(members), members, what))
        parts = np.array_split(rows, len(members))
        own = self._sum(self._exchanged(parts, members, what))
        return np.concatenate(self._exchanged([own] * len(members), members, what))

    def all_gather(self, rows: Floats, members: Sequence[int], what: str, *, plain: bool = False) -> Floats:
        """The rows of all members, one below the other in their order."""
        self.calls[what] += 1
        return np.concatenate(self._exchanged([rows] * len(members), members, what, plain=plain))

    def all_to_all(
        self, parts: Sequence[Floats], members: Sequence[int], what: str, *, plain: bool = False
    ) -> list[Floats]:
        """What each member has for this one, given what this one has for each."""
        self.calls[what] += 1
        return self._exchanged(parts, members, what, plain=plain)

    def _sum(self, parts: Sequence[Floats]) -> Floats:
        total = parts[0].copy()
        for part in parts[1:]:
            total += part
        return total

    def _exchanged(
        self, parts: Sequence[Floats], members: Sequence[int], what: str, *, plain: bool = False
    ) -> list[Floats]:
        """The i-th part for the i-th member; what came from each, the own part as others would see it."""
        place = list(members).index(self.rank)
        same = len(parts) > 1 and all(part is parts[0] for part in parts)
        once = self._encoded(parts[0], plain=plain) if same else None
        encoded = [self._encoded(part, plain=plain) if once is None else once for part in parts]
        found: list[Floats | None] = [None] * len(members)
        own = Received(Rows(what=what, shape=shape_of(parts[place]), plain=plain), encoded[place])
        found[place] = parts[place] if plain or self.codec.exactness == "lossless" else self._decoded(own)
        # Rounds of pairs, so that two ranks always turn to each other at the same time.
        for partner in _partners(place, len(members)):
            peer, buffers = members[partner], encoded[partner]

            def give(peer: int = peer, buffers: list[Buffer] = buffers, at: int = partner) -> None:
                self._send(peer, buffers, shape_of(parts[at]), what, plain=plain)

            small = sum(memoryview(buffer).nbytes for buffer in buffers) <= _AT_ONCE_BYTES
            if small or place < partner:
                give()
                found[partner] = self.receive(peer, what)
            else:
                found[partner] = self.receive(peer, what)
                give()
        return cast("list[Floats]", found)

    def _send(
        self, to: int, buffers: list[Buffer], shape: tuple[int, int], what: str, *, plain: bool
    ) -> None:
        self.sent_bytes[what] += sum(memoryview(buffer).nbytes for buffer in buffers)
        self.links[to].send(Rows(what=what, shape=shape, plain=plain), *buffers)

    def _encoded(self, rows: Floats, *, plain: bool) -> list[Buffer]:
        return (_PLAIN if plain else self.codec).encode(rows)

    def _decoded(self, received: Received) -> Floats:
        message: Rows = received.message
        codec = _PLAIN if message.plain else self.codec
        try:
            return decoded(codec, received.buffers, message.shape)
        except BackendFailed as error:
            raise BadFrame(error.message) from None

    def _frame(self, source: int, what: str) -> Received:
        received = self.links[source].receive()
        if received is None:
            raise PeerLost(f"rank {source} said nothing")
        message: Any = received.message
        if not isinstance(message, Rows) or message.what != what:
            raise BadFrame(f"rank {source} sent {message!r:.80} where {what!r} was to come")
        return received

    def close(self) -> None:
        """Ends all links."""
        for link in self.links.values():
            link.close()


def _partners(place: int, count: int) -> list[int]:
    """Whom a member turns to in each round of a tournament; rounds without a partner are left out.

    Source: the circle method of round-robin tournaments.
    """
    even = count + count % 2
    found = []
    for turn in range(even - 1):
        circle = [0, *(1 + (i + turn) % (even - 1) for i in range(even - 1))]
        at = circle.index(place)
        partner = circle[even - 1 - at]
        if partner < count:
            found.append(partner)
    return found
