"""What policies of expert memory cost on a simulated device of two rates, on traces with a skew."""

from __future__ import annotations

import pytest

from evidence.plugin import Measure
from expert_traces import skewed_trace
from pentad.execution.expert_cache.base import ExpertCosts, ExpertPolicy, Mixture
from pentad.execution.expert_cache.popular import Popular
from pentad.execution.expert_cache.recent import Recent
from pentad.execution.expert_cache.replay import Replayed, replay

LAYERS, EXPERTS = 6, 8
EXPERT_BYTES = 168 << 20
"""Of Mixtral in 8 bits."""
COSTS = ExpertCosts(copy_bytes_per_s=25e9, here_s=EXPERT_BYTES / 1e12, there_s=EXPERT_BYTES / 60e9)
"""A GPU of 1 TB/s behind 16 lanes of PCIe 4, beside a CPU that reads weights at 60 GB/s; a batch of one."""


def play(policy: ExpertPolicy, *, share: float, skew: float, experts: int = EXPERTS) -> Replayed:
    """With room for that share of the experts, behind a beginning that fills it."""
    trace = skewed_trace(layers=LAYERS, experts=experts, per_token=2, tokens=180, seed=3, skew=skew)
    mixture = Mixture(
        counts=dict.fromkeys(range(LAYERS), experts),
        nbytes=dict.fromkeys(range(LAYERS), EXPERT_BYTES),
        room_bytes=int(share * LAYERS * experts) * EXPERT_BYTES,
    )
    return replay(trace, mixture, policy, COSTS, layer_s=1e-4, warm_steps=80)


@pytest.mark.row("moe-fiddler", "effect", claims=(1,))
def test_tokens_come_sooner_where_rare_experts_are_computed_where_they_lie(measured: Measure) -> None:
    split = play(Popular(), share=0.25, skew=1.0)
    for name, policy in (("the most used", Popular(there=False)), ("the last used", Recent(ahead=0))):
        copied = play(policy, share=0.25, skew=1.0)
        times = copied.step_s / split.step_s
        measured(f"a token that always copies, keeping {name}, over split", times, at_least=1.5, unit="x")


@pytest.mark.row("het-moe-cpu-gpu", "effect", claims=(1,))
def test_the_most_used_experts_take_most_calls(measured: Measure) -> None:
    """Zipf's law with an exponent of 1.5. With 1.2 it is 0.77 and with 1.0 0.72: the trace decides."""
    counts = play(Popular(), share=0.4, skew=1.5, experts=16).counts
    measured("calls served in fast memory, 40% of 16 experts there", counts.hits / counts.uses, at_least=0.8)
