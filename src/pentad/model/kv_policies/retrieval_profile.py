"""Which heads of a model look far back for what stands there: found on texts that repeat their beginning."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt

from pentad.execution.engine import Engine
from pentad.execution.kv.policy import OBSERVED_TOKENS, Exactness, Feature, KVCost, KVPolicyRun, KVView, Need
from pentad.execution.request import TokenRequest
from pentad.execution.runner import Runner
from pentad.execution.scheduling import EngineLimits
from pentad.execution.spec import ModelSpec
from pentad.resource.scheduling.fcfs import Fcfs
from pentad.types import Sampling

_TEXTS: Final = 4
_TOKENS: Final = 320
"""Of a text, its beginning and the repetition included."""


def retrieval_scores(runner: Runner, seed: int = 0) -> npt.NDArray[np.float64]:
    """[heads] share of its attention that each KV head pays to the beginning of a text, where the text's end
    says the same again; runs of random tokens, so that nothing else leads there.

    Args:
        runner: with counted attention; room for 320 tokens, which nobody else uses meanwhile.
        seed: of the texts.
    """
    rng = random.Random(seed)
    probe = _Probe()
    engine = Engine(runner, Fcfs(), limits=EngineLimits(), kv_policy=probe, prefix_cache=False)
    for i in range(_TEXTS):
        text = [rng.randrange(runner.spec.vocab_size) for _ in range(_TOKENS - OBSERVED_TOKENS)]
        text += text[:OBSERVED_TOKENS]
        request = TokenRequest(
            id=f"probe-{i}", prompt=tuple(text), sampling=Sampling(temperature=0), max_tokens=2
        )
        engine.add(request)
        while engine.has_work:
            engine.step()
    found: npt.NDArray[np.float64] = np.mean(probe.shares, axis=0)
    return found


@dataclass(frozen=True, slots=True)
class _Probe:
    """Keeps everything and looks."""

    name: ClassVar[str] = "retrieval-probe"
    exactness: ClassVar[Exactness] = "lossless"
    needs: ClassVar[frozenset[Need]] = frozenset({"attention-scores", "prompt-end-scores"})
    excludes: ClassVar[frozenset[Feature]] = frozenset({"speculation", "prefix-cache"})
    shares: list[npt.NDArray[np.float64]] = field(default_factory=list)

    def cost(self, prompt_tokens: int, tokens: int) -> KVCost:
        del prompt_tokens
        return KVCost(slots=tokens, scored=True)

    def start(self, spec: ModelSpec) -> KVPolicyRun:
        del spec
        return self

    def after_prefill(self, view: KVView) -> None:
        mass = view.observed()
        # The first token draws attention whatever it says.
        self.shares.append(mass[:, 1 : OBSERVED_TOKENS + 1].sum(axis=1) / mass.sum(axis=1))

    def after_step(self, view: KVView) -> None:
        del view
