"""Step times of instances that each hold the whole model and share the tokens of a step.

prompt   instance 0 [tokens 0 4 8 ..] --keys, values--> instance 1 [1 5 9 ..] --> ... --> instance 0
answers  each instance computes its part of the sequences; their queries visit the keys of the others
"""

from __future__ import annotations

from dataclasses import dataclass

from pentad.execution.device import Cluster, Link
from pentad.execution.form import ModelForm
from pentad.resource.placement.base import PlacementProblem
from pentad.resource.placement.costs import LayerCost
from pentad.resource.placement.pipeline import ACTIVATION_BYTES, GroupCost, link_between, ring_links
from pentad.resource.step_shape import StepShape


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceCost:
    """Predicts steps of some of the instances together; of one instance alone it is that instance's time.

    Tokens are striped over the instances, so each has as much of causal attention as the others. Keys and
    values of a layer go once around them, in as many parts as there are instances, while attention to the
    part before is computed; what takes longer is waited for. In a step of answers queries and partial results
    go to and fro, which nothing overlaps.

    Source: striped attention (Brandon et al., 2023) and the multi-master decoding of LoongServe (Wu et al.,
    SOSP'24, sections 4.1 and 4.2); ours: times from device profiles.
    """

    instance: GroupCost
    """Of one instance by itself, with all layers."""
    form: ModelForm
    link: Link | None
    """The slowest between two instances; None where there is one instance only."""

    def prompt_s(self, shape: StepShape, degree: int) -> float:
        """Wall time of a step of whole prompts on so many instances."""
        if degree == 1:
            return self.instance.seconds(shape)
        assert self.link is not None, "one instance has no degree but 1"
        part, spec = shape.part(degree), self.instance.members[0].spec
        sent_s = self.link.latency_s + self.form.kv_bytes(spec, part.tokens) / spec.layers / self._rate
        computed_s = self._attention_s(part) / spec.layers / degree
        waited_s = spec.layers * (degree - 1) * max(0.0, sent_s - computed_s)
        return self.instance.seconds(part) + waited_s

    def answer_s(self, shape: StepShape, degree: int) -> float:
        """Wall time of a step with a token for each of the sequences on so many instances."""
        if degree == 1:
            return self.instance.seconds(shape)
        assert self.link is not None, "one instance has no degree but 1"
        part, spec = shape.part(degree), self.instance.members[0].spec
        sent_bytes = part.tokens * (degree - 1) * spec.width * ACTIVATION_BYTES
        return self.instance.seconds(part) + spec.layers * 2 * (self.link.latency_s + sent_bytes / self._rate)

    @property
    def _rate(self) -> float:
        """Bytes per second between two instances: each device of one sends to its own in the other."""
        assert self.link is not None
        return self.link.bytes_per_s * len(self.instance.members)

    def _attention_s(self, shape: StepShape) -> float:
        """Of the device that takes longest for it."""
        pairs = zip(self.instance.members, self.instance.shares, strict=True)
        return max(share * cost.terms(shape)[1] for cost, share in pairs)


def sequence_cost(problem: PlacementProblem, instances: list[tuple[str, ...]]) -> SequenceCost:
    """The step times of instances of equally many devices; as slow as the slowest of them and of their links.

    Raises Infeasible where a link is missing.
    """
    shape = StepShape.decode(1, problem.workload.prompt_tokens)
    groups = [_group(problem, names) for names in instances]
    links = [
        link_between(problem.cluster, one[0], other[0])
        for one in instances
        for other in instances
        if one != other
    ]
    slowest = max(groups, key=lambda group: group.seconds(shape))
    link = min(links, key=lambda found: found.bytes_per_s, default=None)
    return SequenceCost(instance=slowest, form=problem.form, link=link)


def _group(problem: PlacementProblem, names: tuple[str, ...]) -> GroupCost:
    cluster: Cluster = problem.cluster
    members: list[LayerCost] = [
        problem.costs.cost(cluster.device(name), problem.spec, problem.form, 0, problem.spec.layers)
        for name in names
    ]
    return GroupCost(
        members=tuple(members),
        shares=(1 / len(names),) * len(names),
        split="tensor" if len(names) > 1 else "none",
        ring=ring_links(cluster, names),
    )
