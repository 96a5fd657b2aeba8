"""Recency alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.execution.kv.eviction import CachedText


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastRecent:
    """Keeps nothing for anybody: the block that was used least recently goes first.

    The baseline that the others are measured against. Exactness: lossless.

    Source: automatic prefix caching of vLLM 0.x; RadixAttention (Zheng et al., SGLang, 2024, section 3).
    """

    name: ClassVar[str] = "least-recent"

    def expected_s(self, text: CachedText) -> float | None:  # noqa: ARG002
        return None

    def keep_value(self, text: CachedText, expected_s: float) -> float:  # noqa: ARG002
        return 0.0
