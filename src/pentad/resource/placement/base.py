"""What placement strategies take: the problem, and the memory of a stage, which all of them check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from pentad.errors import Infeasible
from pentad.execution.device import Cluster, DeviceProfile
from pentad.execution.spec import Block, ModelSpec, counted
from pentad.ranges import in_range
from pentad.resource.cost import ModelForm, StepCost, feed_forward_columns, projected_elements
from pentad.resource.matrices import usable_bytes
from pentad.resource.operators import able_devices
from pentad.resource.placement.costs import CostBook
from pentad.resource.placement.plan import Plan, Role, Stage
from pentad.types import Objective

GIB = 1024**3
FP32_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The load a plan is made for: equal requests, a fixed number of them in flight."""

    prompt_tokens: int = 512
    new_tokens: int = 128
    concurrency: int = 1
    max_batch_tokens: int = 512
    """Chunk of long prompts; sizes the activations."""
    block_size: int = 16

    def __post_init__(self) -> None:
        for name in ("prompt_tokens", "new_tokens", "concurrency", "max_batch_tokens", "block_size"):
            in_range(name, getattr(self, name), least=1)

    @property
    def slots_per_sequence(self) -> int:
        """KV slots that a finished request holds, in whole blocks."""
        return -(-(self.prompt_tokens + self.new_tokens) // self.block_size) * self.block_size


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementProblem:
    """Everything that a planner may look at."""

    spec: ModelSpec
    cluster: Cluster
    workload: Workload = field(default_factory=Workload)
    objective: Objective = field(default_factory=Objective)
    """Latencies, cost and energy are kept; `min_quality` is for whoever chose the model."""
    form: ModelForm = field(default_factory=ModelForm)
    memory_fraction: float = 0.9
    """Share of a device's main memory that a plan may use."""
    costs: CostBook = field(default_factory=CostBook, compare=False, repr=False)
    """What was computed of its stages so far."""
    left_out: tuple[tuple[str, str], ...] = ()
    """Devices that cannot run the model and why; the cluster is what remains without them."""

    def __post_init__(self) -> None:
        in_range("memory_fraction", self.memory_fraction, above=0, most=1)
        if not self.cluster.devices:
            raise Infeasible("the cluster has no devices", hint="measure this machine with pentad profile")
        whole = self.cluster
        able, left_out, *_ = self.costs.keep(
            ("able", id(whole), id(self.spec)), lambda: (*able_devices(whole, self.spec), whole, self.spec)
        )
        if left_out:
            object.__setattr__(self, "cluster", able)
            object.__setattr__(self, "left_out", (*self.left_out, *left_out))


Layout = Callable[[PlacementProblem], Sequence[Stage]]
"""Cuts a model into stages; says nothing about whether they fit."""


class PlacementPlanner(Protocol):
    """Decides which device runs which part of a model (coverage.md, interface 14)."""

    @property
    def name(self) -> str: ...

    def plan(self, problem: PlacementProblem) -> Plan:
        """A plan that keeps every limit of the problem.

        Raises:
            Infeasible: no such plan; names the limit that binds, with numbers and a remedy.
        """
        ...


def replica_load(problem: PlacementProblem, weight: float, role: Role = "both") -> PlacementProblem:
    """The problem as a replica sees it that serves this share of the requests: at least one at a time.

    A prefill replica holds two prompts and their first tokens: one is computed, one is on its way.
    """
    concurrency = max(1, round(problem.workload.concurrency * weight))
    if role == "prefill":
        load = replace(problem.workload, concurrency=min(2, concurrency), new_tokens=1)
    else:
        load = replace(problem.workload, concurrency=concurrency)
    return replace(problem, workload=load)


def stage_on(problem: PlacementProblem, device: DeviceProfile, first_layer: int, end_layer: int) -> Stage:
    """The memory of layers first to end on a device. Checks nothing.

    The first stage holds the embedding, the last the final norm and the head; where these are tied
    and the stages differ, both hold the table.
    """
    book, spec = problem.costs, problem.spec
    key = (
        *("stage", book.kind(device), problem.workload, problem.form, problem.memory_fraction),
        book.layers_key(spec, first_layer, end_layer),
    )
    found = book.keep(key, lambda: _sized(problem, device, first_layer, end_layer))
    return replace(found, device=device.name, first_layer=first_layer, end_layer=end_layer)


def _sized(problem: PlacementProblem, device: DeviceProfile, first_layer: int, end_layer: int) -> Stage:
    spec, form, load = problem.spec, problem.form, problem.workload
    layers = range(first_layer, end_layer)
    first, last = first_layer == 0, end_layer == spec.layers
    outside, head = problem.costs.keep(("outside", id(spec)), lambda: _outside(spec))
    parameters = spec.layer_parameters(first_layer, end_layer)
    if first and last:
        parameters += outside
    elif first:
        parameters += outside - (0 if spec.tied_head else head)
    elif last:
        parameters += head + spec.width
    slots = load.concurrency * load.slots_per_sequence
    return Stage(
        device=device.name,
        first_layer=first_layer,
        end_layer=end_layer,
        weight_bytes=round(form.weight_bytes(parameters)),
        kv_bytes=round(form.kv_bytes(spec, slots, layers)),
        activation_bytes=_activation_bytes(spec, load, layers),
        usable_bytes=usable_bytes(device, problem.memory_fraction),
    )


def _outside(spec: ModelSpec) -> tuple[int, int]:
    """Parameters that belong to no layer, and those of the head among them."""
    head = spec.vocab_size * spec.width if spec.head is not None else 0
    return spec.parameters - spec.layer_parameters(), head


def _activation_bytes(spec: ModelSpec, load: Workload, layers: range) -> int:
    """The largest set of values alive at once: one block's, or the logits of every sequence."""
    blocks = counted(spec.blocks[layers.start : layers.stop])
    inside = 2 * spec.width + max(_inner_elements(block, spec.width) for block, _ in blocks)
    block = min(load.max_batch_tokens, load.prompt_tokens + load.concurrency) * inside
    logits = load.concurrency * spec.vocab_size if layers.stop == spec.layers else 0
    return FP32_BYTES * max(block, logits)


def _inner_elements(block: Block, width: int) -> int:
    """Numbers of a token that live inside a layer at once, beside the stream and its norm."""
    mixed = projected_elements(block.mixer, width) + width if block.mixer is not None else 0
    gated = block.feed_forward is not None and block.feed_forward.gated
    return max(mixed, feed_forward_columns(block) * (2 if gated else 1))


def stage_cost(problem: PlacementProblem, stage: Stage) -> StepCost:
    """The step times of a stage."""
    return StepCost(
        profile=problem.cluster.device(stage.device),
        spec=problem.spec,
        form=problem.form,
        layers=range(stage.first_layer, stage.end_layer),
        head=stage.end_layer == problem.spec.layers,
    )


def check_memory(problem: PlacementProblem, layout: Layout) -> tuple[Stage, ...]:
    """The stages of a layout, all of which fit their devices.

    Raises:
        Infeasible: names the first that does not, with a remedy that was tried on the same layout.
    """
    stages = tuple(layout(problem))
    for stage in stages:
        if stage.total_bytes > stage.usable_bytes:
            raise Infeasible(_too_big(problem, stage), hint=_memory_remedy(problem, layout), param="memory")
    return stages


def _too_big(problem: PlacementProblem, stage: Stage) -> str:
    what = f"model {problem.spec.name!r}"
    if stage.end_layer - stage.first_layer < problem.spec.layers:
        what = f"layers {stage.first_layer} to {stage.end_layer - 1} of {what}"
    return (
        f"device {stage.device!r} has {_gib(stage.usable_bytes)} free, {what} in "
        f"{problem.form.weight_bits:g} bits needs {_gib(stage.total_bytes)} "
        f"(weights {_gib(stage.weight_bytes)}, KV {_gib(stage.kv_bytes)}, "
        f"activations {_gib(stage.activation_bytes)})"
    )


def _memory_remedy(problem: PlacementProblem, layout: Layout) -> str:
    """The mildest change that makes the layout fit; every suggestion was tried."""

    def fits(changed: PlacementProblem) -> bool:
        return all(stage.total_bytes <= stage.usable_bytes for stage in layout(changed))

    for bits in (8, 4):
        form = problem.form.with_weight_bits(bits)
        if bits < problem.form.weight_bits and fits(replace(problem, form=form)):
            return f"set --weight-bits {bits} or add a device"
    low, high = 0, problem.workload.concurrency
    while high - low > 1:
        middle = (low + high) // 2
        if fits(replace(problem, workload=replace(problem.workload, concurrency=middle))):
            low = middle
        else:
            high = middle
    if low:
        return f"set --concurrency {low} or add a device"
    return "add a device or choose a smaller model"


def _gib(size_bytes: float) -> str:
    return f"{size_bytes / GIB:.{1 if size_bytes >= GIB else 3}f} GiB"
