"""PipelineCost: the time of one step through all stages of a replica and the links between them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pentad.errors import Infeasible
from pentad.execution.device import Cluster, Link
from pentad.execution.form import ModelForm
from pentad.execution.spec import ModelSpec
from pentad.resource.cost import StepCost
from pentad.resource.placement.costs import LayerCost
from pentad.resource.placement.plan import Split
from pentad.resource.step_series import each_step
from pentad.resource.step_shape import StepShape

ACTIVATION_BYTES = 2
"""Of one number sent between devices: bf16."""
_FEW_STEPS = 16
"""Of several devices, whose times are asked for step by step."""
COLLECTIVES = 2
"""Per layer of a group: behind attention and behind the feed-forward part."""


class StageCost(Protocol):
    """Step times of one stage of a pipeline."""

    def seconds(self, shape: StepShape) -> float: ...

    def binding(self, shape: StepShape) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCost:
    """Predicts the steps of one stage: a device, or several that each run a share of its layers.

    A member takes its share of the matrices and of attention, the whole of what a step costs beside, and
    of norms and residuals the whole, or its share where these are split over the sequence. Matrices cut
    to a share are taken to run at the rate of whole ones. Collectives run as a ring over the members and
    are not overlapped with computation.

    Source: the split of Megatron-LM (Shoeybi et al., 2019) and Galaxy (Ye et al., INFOCOM'24, without its
    overlap); the ring's time after Thakur et al. (2005).
    """

    members: tuple[LayerCost, ...]
    shares: tuple[float, ...] = (1.0,)
    split: Split = "none"
    ring: tuple[Link, ...] = ()
    """From each member to the next, and from the last to the first."""

    def seconds(self, shape: StepShape) -> float:
        """Wall time of one step of this stage."""
        if len(self.members) == 1:
            return self.members[0].seconds(shape)
        times = [self._member_s(c, s, shape) for c, s in zip(self.members, self.shares, strict=True)]
        return max(times) + self.sync_s(shape)

    def _member_s(self, cost: LayerCost, share: float, shape: StepShape) -> float:
        matrices, attention, elementwise, overhead = cost.terms(shape)
        rest = elementwise * (share if self.split == "sequence" else 1.0)
        return share * (matrices + attention) + rest + overhead

    def sync_s(self, shape: StepShape) -> float:
        """Seconds of the step's collectives; of reduce-scatter and all-gather, or of an all-reduce."""
        count = len(self.members)
        if count == 1:
            return 0.0
        sent_bytes = shape.tokens * self.members[0].spec.width * ACTIVATION_BYTES
        slowest = max(link.latency_s + sent_bytes / count / link.bytes_per_s for link in self.ring)
        return self.members[0].num_layers * COLLECTIVES * 2 * (count - 1) * slowest

    def binding(self, shape: StepShape) -> str:
        """What takes most of the step."""
        times = [self._member_s(c, s, shape) for c, s in zip(self.members, self.shares, strict=True)]
        if self.sync_s(shape) > max(times):
            return "collectives"
        return self.members[times.index(max(times))].binding(shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineCost:
    """Predicts the steps of one replica; of one stage on one device it is that device's StepCost."""

    spec: ModelSpec
    form: ModelForm
    stages: tuple[StageCost, ...]
    links: tuple[Link, ...]
    """From each stage to the next."""

    def times(self, shape: StepShape) -> list[float]:
        """Seconds of each stage; a stage but the last includes sending its activations on."""
        sent_bytes = shape.tokens * self.spec.width * ACTIVATION_BYTES
        times = [stage.seconds(shape) for stage in self.stages]
        for i, link in enumerate(self.links):
            times[i] += link.latency_s + sent_bytes / link.bytes_per_s
        return times

    def seconds(self, shape: StepShape) -> float:
        """One round of all sequences of the step.

        With p stages the sequences form min(p, sequences) groups that follow each other through the
        pipeline, so a round lasts at least as long as the slowest stage needs for all groups.
        """
        if len(self.stages) == 1:
            return self.stages[0].seconds(shape)
        groups = min(len(self.stages), shape.sequences)
        times = self.times(shape.part(groups))
        return max(sum(times), groups * max(times))

    def decode_seconds(self, contexts: Sequence[int], steps: int) -> npt.NDArray[np.float64]:
        """[at most steps] what `seconds` gives for steps that each compute one token of the same sequences.

        Args:
            contexts: slots of each sequence in the first of them.
        """
        stage = self.stages[0]
        if len(self.stages) == 1 and isinstance(stage, GroupCost) and len(stage.members) == 1:
            first = stage.members[0]
            if isinstance(first, StepCost):
                return first.decode_seconds(contexts, steps)
        return each_step(self.seconds, contexts, min(steps, _FEW_STEPS))


def pipeline_links(cluster: Cluster, devices: Sequence[str]) -> tuple[Link, ...]:
    """The links along devices in order. Raises Infeasible for one that is missing."""
    return tuple(link_between(cluster, a, b) for a, b in itertools.pairwise(devices))


def ring_links(cluster: Cluster, devices: Sequence[str]) -> tuple[Link, ...]:
    """The links around devices, none for one alone. Raises Infeasible for one that is missing."""
    return pipeline_links(cluster, (*devices, devices[0])) if len(devices) > 1 else ()


def link_between(cluster: Cluster, source: str, target: str) -> Link:
    """The link from one device to another. Raises Infeasible where there is none."""
    link = cluster.link(source, target)
    if link is None:
        raise Infeasible(
            f"there is no link from device {source!r} to {target!r}",
            hint="add the link to the cluster, with its bytes_per_s and latency_s",
            param="links",
        )
    return link
