"""Learned: the tools on offer are those that a retriever finds which was trained on solved calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pentad.agent.tools.policy.retrieve import Retrieve
from pentad.model.relevance import Relevance
from pentad.model.relevance_head import read_head


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned(Retrieve):
    """Offers the k tools nearest to the goal as `retrieve` does, by vectors that a trained head has mapped.

    `pentad train-retriever` trains the head from solved calls; it knows no tool by name, so tools that come
    later are found as well. Without a `file` this is `retrieve`. It takes the encoder that it was trained on.

    Source: Kong et al. 2023, "TPTU-v2", section 3.2 (API retriever, trained contrastively). Ours keeps the
    encoder as it is and trains two linear maps over its vectors. Exactness: lossy; the metric is how often
    the right tool is on offer. Cost: as `retrieve`, and one product of E by E for each text.
    """

    file: str = ""
    """What `pentad train-retriever --out` wrote; empty finds tools as `retrieve` does."""

    name: ClassVar[str] = "learned"

    def __post_init__(self) -> None:
        """Raises BadModelFile for a file that is not there or no head."""
        Retrieve.__post_init__(self)
        if self.file:
            read_head(self.file)

    async def scored(
        self, looked_for: Sequence[str], texts: Sequence[str], relevance: Relevance
    ) -> list[float]:
        """How near each tool's text is to what is looked for, as the head maps both."""
        head = read_head(self.file) if self.file else None
        return await relevance.scores(looked_for, texts, head=head)

    def method(self, relevance: Relevance) -> str:
        """What scores come of, for the record."""
        return f"{relevance.method} and the head of {self.file}" if self.file else relevance.method
