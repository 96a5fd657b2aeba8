"""The baseline: every cached key and value stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.execution.kv.policy import Exactness, Feature, KVCost, KVPolicyRun, Need
from pentad.execution.spec import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepAll:
    """Keeps every entry, so a text takes as many slots as it has tokens.

    Exactness: lossless. Cost: none; the engine runs as it would without policies.
    """

    name: ClassVar[str] = "keep-all"
    exactness: ClassVar[Exactness] = "lossless"
    needs: ClassVar[frozenset[Need]] = frozenset()
    excludes: ClassVar[frozenset[Feature]] = frozenset()

    def cost(self, prompt_tokens: int, tokens: int) -> KVCost:
        del prompt_tokens
        return KVCost(slots=tokens, scored=False)

    def start(self, spec: ModelSpec) -> KVPolicyRun | None:
        del spec
        return None
