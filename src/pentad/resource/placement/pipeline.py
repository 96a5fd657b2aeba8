"""PipelineCost: the time of one step through all stages of a replica and the links between them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from pentad.errors import Infeasible
from pentad.execution.device import Cluster, Link
from pentad.execution.form import ModelForm
from pentad.execution.spec import ModelSpec
from pentad.resource.cost import StepCost
from pentad.resource.step_shape import StepShape

ACTIVATION_BYTES = 2
"""Of one number sent between devices: bf16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineCost:
    """Predicts the steps of one replica; of one stage it is that stage's StepCost."""

    spec: ModelSpec
    form: ModelForm
    stages: tuple[StepCost, ...]
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


def pipeline_links(cluster: Cluster, devices: Sequence[str]) -> tuple[Link, ...]:
    """The links along devices in order. Raises Infeasible for one that is missing."""
    return tuple(link_between(cluster, a, b) for a, b in itertools.pairwise(devices))


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
