"""ServedTokens: what each tenant has had of an engine, so that a scheduler can tell whose turn it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from pentad.execution.scheduling import SequenceView

_NOBODY: Mapping[str, int] = {}


class ServedTokens:
    """Counts the tokens computed for each tenant while several have sequences here.

    Who comes back starts level with the one that has had least, and keeps what it had more: being away
    earns nothing. Cost: a look-up per request, and one per sequence of a step while there are several.

    Source: virtual token counter (Sheng et al., "Fairness in Serving Large Language Models", OSDI'24,
    algorithm 2). Our difference: computed tokens count alike, prompt or answer; cached ones are free.
    """

    __slots__ = ("_sequences", "_tokens")

    def __init__(self) -> None:
        self._sequences: Counter[str] = Counter()
        self._tokens: dict[str, int] = {}

    def enter(self, tenant: str) -> None:
        """Notes a sequence of the tenant that came."""
        if not self._sequences[tenant]:
            least = min((self._tokens[other] for other in +self._sequences), default=0)
            self._tokens[tenant] = max(self._tokens.get(tenant, 0), least)
        self._sequences[tenant] += 1

    def leave(self, tenant: str) -> None:
        """Notes a sequence of the tenant that ended."""
        self._sequences[tenant] -= 1
        if not self._sequences[tenant]:
            del self._sequences[tenant]
            if not self._sequences:
                self._tokens.clear()

    def add(self, work: Iterable[tuple[SequenceView, int]]) -> None:
        """Counts a step's work."""
        if len(self._sequences) > 1:
            for seq, tokens in work:
                self._tokens[seq.tenant] += tokens

    def shown(self) -> Mapping[str, int]:
        """Tokens by tenant, of those that have sequences here; empty unless there are several."""
        if len(self._sequences) < 2:
            return _NOBODY
        return {tenant: self._tokens[tenant] for tenant in self._sequences}
