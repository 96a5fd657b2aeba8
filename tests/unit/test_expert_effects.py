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


@pytest.mark.row("het-moe-cpu-gpu", "effect", claims=(1,), negative=True)
def test_the_most_used_experts_take_four_of_five_calls_on_very_skewed_traces_only(measured: Measure) -> None:
    """40% of 16 experts in fast memory. Of Zipf's exponents that were looked at (1, 1.2, 1.5) only the last
    gives the 80% of the row, so they follow from the trace."""
    share = {}
    for skew in (1.0, 1.2, 1.5):
        counts = play(Popular(), share=0.4, skew=skew, experts=16).counts
        share[skew] = counts.hits / counts.uses
    measured("calls served in fast memory, exponent 1", share[1.0], at_most=0.8)
    measured("the same, exponent 1.2", share[1.2], at_most=0.8)
    measured("the same, exponent 1.5", share[1.5], at_least=0.8)
