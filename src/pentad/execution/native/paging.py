"""Which hook a runner's steps tell what they read: none where all weights may stay in memory."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.errors import Incompatible
from pentad.execution.expert_cache.base import ExpertPolicy
from pentad.execution.layers import Experts
from pentad.execution.native.expert_pages import ExpertHook
from pentad.execution.native.layer_window import WindowHook
from pentad.execution.native.pager import StepHook
from pentad.execution.native.pages import Places
from pentad.execution.residency.base import HeldWeights
from pentad.execution.spec import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertMemory:
    """A bound of the memory for experts, and who stays in it."""

    nbytes: int
    policy: ExpertPolicy


def paging_hook(
    spec: ModelSpec, held: HeldWeights, places: Places, experts: ExpertMemory | None
) -> StepHook | None:
    """The hook of a model whose weights are held so. Raises Incompatible, Infeasible."""
    if held.window is not None:
        if experts is not None:
            raise Incompatible(
                "a bound of all layers and one of experts are two ways to the same end",
                hint="leave expert_memory out, or set residency to mapped",
                param="expert_memory",
            )
        return WindowHook(spec, held.memory, places, held.window.memory_bytes, held.window.ahead)
    if experts is None:
        return None
    if not any(isinstance(block.feed_forward, Experts) for block in spec.blocks):
        raise Incompatible(
            f"model {spec.name!r} has no routed experts",
            hint="leave expert_memory out",
            param="expert_memory",
        )
    if not held.mapped_bytes:
        raise Incompatible(
            f"experts of model {spec.name!r} can be read again only from a packed file, and there is none",
            hint="set residency to mapped, or leave expert_memory out",
            param="expert_memory",
        )
    return ExpertHook(spec, held.memory, places, experts.nbytes, experts.policy)
