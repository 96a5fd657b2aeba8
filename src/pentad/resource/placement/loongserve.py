"""Sequence parallelism whose degree follows the load: many instances for long prompts, few for answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pentad.errors import Infeasible
from pentad.ranges import in_range
from pentad.resource.placement.base import GIB, PlacementProblem
from pentad.resource.placement.finish import finish
from pentad.resource.placement.groups import group_on
from pentad.resource.placement.plan import Elastic, Handoff, Plan, Replica, ScaleDown, Stage
from pentad.resource.placement.predict import Prediction
from pentad.resource.placement.sequence_parallel import sequence_cost
from pentad.resource.step_shape import StepShape


@dataclass(frozen=True, slots=True, kw_only=True)
class LoongServe:
    """Every instance holds the whole model; in each iteration some of them work on one batch together.

    A prompt is computed by as many instances as lower the waiting of all most, and its keys and values stay,
    while they go around, on as few of them as have room, so that none are moved when the others leave. With a
    `degree` groups of so many instances are fixed instead: static sequence parallelism. `simulate` runs such
    a plan with an engine of its own, which chooses the degree of each iteration. Cost: a prediction per
    degree.

    Source: LoongServe (Wu et al., SOSP'24). Ours: room for the whole answer is kept when a prompt starts, so
    answers neither grow onto further instances nor are moved off one, and degrees are chosen by the summed
    delays of prompts and of the answers that they interrupt.
    """

    tensor: int = 1
    """Devices of an instance, which split its layers."""
    degree: int | None = None
    """Instances of each fixed group; None: elastic."""
    scale_down: ScaleDown = "proactive"
    """`proactive`: keys and values stay on the instances that go on; `reactive`: they are moved there behind
    the prompt. Without meaning where a degree is given."""

    def __post_init__(self) -> None:
        in_range("tensor", self.tensor, least=1)
        in_range("degree", self.degree, least=1)

    @property
    def name(self) -> str:
        return "loongserve"

    def plan(self, problem: PlacementProblem) -> Plan:
        instances = self._instances(problem)
        count = len(instances)
        replicas = []
        for names in instances:
            stages = _stages(problem, names, count)
            for stage in stages:
                if stage.total_bytes > stage.usable_bytes:
                    raise Infeasible(
                        f"device {stage.device!r} has {stage.usable_bytes / GIB:.1f} GiB free, its part of "
                        f"model {problem.spec.name!r} and of the keys and values of "
                        f"{problem.workload.concurrency} requests needs {stage.total_bytes / GIB:.1f} GiB",
                        hint="raise the option tensor, set --weight-bits 4, or lower --concurrency",
                        param="memory",
                    )
            replicas.append(Replica(stages=stages, weight=1 / count))
        plan = finish(self.name, problem, *replicas, predictor=self._predicted)
        return replace(plan, elastic=Elastic(degree=self.degree, scale_down=self.scale_down))

    def _instances(self, problem: PlacementProblem) -> list[tuple[str, ...]]:
        names = [device.name for device in problem.cluster.devices]
        spec = problem.spec
        if spec.kv_heads % self.tensor:
            raise Infeasible(
                f"{self.tensor} devices cannot split the {spec.kv_heads} key/value heads of model "
                f"{spec.name!r} evenly",
                hint="choose tensor among the divisors of the key/value heads",
                param="tensor",
            )
        size, group = self.tensor, self.tensor * (self.degree or 1)
        count = len(names) // group * (self.degree or 1)
        if not count:
            raise Infeasible(
                f"a group of {group} devices is more than the cluster's {len(names)}",
                hint="lower the options tensor or degree, or add devices",
                param="degree",
            )
        return [tuple(names[i * size : (i + 1) * size]) for i in range(count)]

    def _predicted(
        self, problem: PlacementProblem, replicas: Sequence[Replica], _: Sequence[Handoff]
    ) -> tuple[list[Prediction], Prediction]:
        """Prompts with all instances of a group, answers with as few as hold them, one after the other."""
        load, count = problem.workload, len(replicas)
        cost = sequence_cost(problem, [replica.devices for replica in replicas])
        degree = self.degree or count
        groups = count // degree
        prompt = StepShape.prefill(load.prompt_tokens)
        ttft_s = min(cost.prompt_s(prompt, n) for n in ([degree] if self.degree else range(1, degree + 1)))
        context = load.prompt_tokens + load.new_tokens // 2
        own = -(-load.concurrency // groups)
        few = degree if self.degree else _fewest(replicas)
        gap_s = cost.answer_s(StepShape.decode(own, context), few)
        round_s = own * ttft_s + load.new_tokens * gap_s
        whole = Prediction(
            ttft_s=ttft_s,
            inter_token_s=gap_s,
            throughput_tokens_per_s=load.concurrency * load.new_tokens / round_s,
            completion_s=ttft_s + (load.new_tokens - 1) * gap_s,
            device_s=round_s / load.concurrency,
            binding_term="prompts" if own * ttft_s > load.new_tokens * gap_s else "answers",
        )
        # A request takes part of every instance's time.
        each = replace(whole, device_s=whole.device_s * count)
        return [each] * count, whole


def _stages(problem: PlacementProblem, names: Sequence[str], count: int) -> tuple[Stage, ...]:
    """An instance with its part of all keys and values, and of the tokens of a step."""
    members = [(problem.cluster.device(name), 1 / len(names)) for name in names]
    stages = group_on(problem, members, 0, problem.spec.layers)
    return tuple(
        replace(
            stage,
            kv_bytes=-(-stage.kv_bytes // count),
            activation_bytes=-(-stage.activation_bytes // count),
        )
        for stage in stages
    )


def _fewest(replicas: Sequence[Replica]) -> int:
    """Instances on which the keys and values of all requests find room."""
    stage = replicas[0].stages[0]
    room = stage.usable_bytes - stage.weight_bytes - stage.activation_bytes
    return min(len(replicas), max(1, -(-stage.kv_bytes * len(replicas) // max(1, room))))
