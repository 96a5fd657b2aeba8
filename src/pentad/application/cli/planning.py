"""What plan and simulate share: a model's spec, named devices as a cluster, and how plans read."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

from pentad.application.cli.output import duration, plain
from pentad.application.config import Settings
from pentad.execution.device import Cluster, DeviceProfile, LinkSpeed
from pentad.execution.form import ModelForm
from pentad.execution.spec import ModelSpec
from pentad.resource import profile as profiles
from pentad.resource.matrices import widest_bits
from pentad.resource.operators import LEFT_OUT
from pentad.resource.phases import decode_label, prefill_label
from pentad.resource.placement.base import PlacementPlanner, PlacementProblem, Workload
from pentad.resource.placement.plan import Plan, Replica, Stage
from pentad.types import Objective

DEFAULT_BITS = 16.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What is known of a model without loading it."""

    spec: ModelSpec
    form: ModelForm | None
    """In which the native kernels would hold it; None where they cannot, or there are no weights."""
    quality: float | None = None
    """Of its answers, 0 to 1, by the catalogue; None where that does not have it."""


def describe(model: str, settings: Settings) -> Described:
    """A stored model, a model at a path, a bare config.json without weights, or a published geometry."""
    path = pathlib.Path(model).expanduser()
    if path.suffix == ".json" and path.is_file():
        from pentad.model.families import family_of
        from pentad.model.families.base import spec_of_config
        from pentad.model.files.folder_files import read_json

        config = read_json(path, required=True)
        family = family_of(config.text("model_type"), config.source)
        spec = spec_of_config(family, config)
        return Described(spec=dataclasses.replace(spec, name=path.resolve().parent.name), form=None)
    from pentad.execution.native.runner import NativeRunner
    from pentad.model.geometries import GEOMETRIES
    from pentad.model.loading import open_model
    from pentad.model.store import ModelStore

    store = ModelStore(settings.root)
    if model in GEOMETRIES and all(stored.name != model for stored in store.list()):
        return Described(spec=GEOMETRIES[model].spec(model), form=None)
    stored = store.resolve(model)
    files = open_model(stored.path, name=stored.name)
    try:
        fits = NativeRunner.supports(files.spec, files.weights) is None
        form = NativeRunner.form_of(files.spec, files.weights, settings.engine.kv_dtype) if fits else None
        entry = store.catalogue.get(stored.name)
        return Described(spec=files.spec, form=form, quality=None if entry is None else entry.quality)
    finally:
        files.close()


def device_of(name: str, settings: Settings) -> DeviceProfile:
    """`local`, a device of the catalogue, or a profile file."""
    if name == "local":
        return profiles.load(settings.profile_path)
    if name.endswith(".json"):
        return profiles.load(name)
    return profiles.find(name)


def cluster_of(
    names: Sequence[str], settings: Settings, *, link_bytes_per_s: float, link_latency_s: float
) -> Cluster:
    """The named devices, all linked with each other alike. A name may stand more than once."""
    devices: list[DeviceProfile] = []
    for i, name in enumerate(names):
        device = device_of(name, settings)
        again = names.count(name) > 1
        devices.append(dataclasses.replace(device, name=f"{device.name}-{i + 1}") if again else device)
    speed = LinkSpeed(bytes_per_s=link_bytes_per_s, latency_s=link_latency_s)
    return Cluster(devices=tuple(devices), default_link=speed)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What plans are asked for, whatever the model and the devices."""

    planner: PlacementPlanner
    workload: Workload
    objective: Objective
    weight_bits: float | None
    kv_bits: float | None
    link_bytes_per_s: float
    link_latency_s: float

    def plan(self, model: Described, devices: Sequence[str], settings: Settings) -> Plan:
        """The plan of a model on these devices together. Raises Infeasible."""
        return self.plan_on(model, self.cluster(devices, settings))

    def cluster(self, devices: Sequence[str], settings: Settings) -> Cluster:
        """These devices, linked as asked."""
        return cluster_of(
            devices,
            settings,
            link_bytes_per_s=self.link_bytes_per_s,
            link_latency_s=self.link_latency_s,
        )

    def plan_on(self, model: Described, cluster: Cluster) -> Plan:
        """The plan of a model on a cluster. Raises Infeasible."""
        problem = PlacementProblem(
            spec=model.spec,
            cluster=cluster,
            workload=self.workload,
            objective=self.objective,
            form=form_for(model, cluster.devices[0], self.weight_bits, self.kv_bits),
        )
        return self.planner.plan(problem)


def bounds(ask: Ask, model: Described, device: DeviceProfile) -> list[dict[str, object]]:
    """What a prompt and a step of answers wait for on a device, each with what would help."""
    form = form_for(model, device, ask.weight_bits, ask.kv_bits)
    load = ask.workload
    context = load.prompt_tokens + load.new_tokens // 2
    labels = (
        prefill_label(model.spec, form, device, load.prompt_tokens),
        decode_label(model.spec, form, device, context=context, sequences=load.concurrency),
    )
    return [
        {"phase": one.phase, "bound": one.bound, "seconds": dict(one.seconds), "would_help": one.remedy}
        for one in labels
    ]


def form_for(
    model: Described, device: DeviceProfile, weight_bits: float | None, kv_bits: float | None
) -> ModelForm:
    """The precisions asked for; unasked, those that the model has there.

    A device measured on the native kernels holds the file's own packed weights, one measured on
    PyTorch the precision that was measured; elsewhere 16 bits, or less where the device has no such rate.
    """
    native = device.kernels not in (None, "torch")
    if native and model.form is not None:
        found = model.form
    else:
        widest = widest_bits(device, DEFAULT_BITS)
        measured = float(device.gemm_points[0]["bits"]) if device.gemm_points else widest
        found = ModelForm(weight_bits=measured, kv_bits=widest if native else measured)
    return ModelForm(
        weight_bits=weight_bits or found.weight_bits,
        head_bits=None if weight_bits else found.head_bits,
        kv_bits=kv_bits or found.kv_bits,
    )


def stage_rows(plan: Plan) -> list[tuple[object, ...]]:
    """One row per stage: device, layers, and its memory in GiB."""
    gib = 2**30
    several = len(plan.replicas) > 1
    return [
        (
            ", ".join(_words(stage, replica, several=several)),
            f"{stage.first_layer} to {stage.end_layer - 1}",
            *(
                f"{size / gib:.2f}"
                for size in (
                    stage.weight_bytes,
                    stage.kv_bytes,
                    stage.activation_bytes,
                    stage.total_bytes,
                    stage.usable_bytes,
                )
            ),
        )
        for replica in plan.replicas
        for stage in replica.stages
    ]


def _words(stage: Stage, replica: Replica, *, several: bool) -> Iterator[str]:
    """A stage's device, and what of which requests it computes where that is not all of all."""
    yield stage.device
    if stage.share < 1:
        yield f"{stage.share:.0%} of each layer"
    if replica.role != "both":
        yield "prompts" if replica.role == "prefill" else "answers"
    if several:
        yield f"{replica.weight:.0%} of requests"


def plan_lines(plan: Plan) -> list[str]:
    """What the plan predicts, and on whose word."""
    return [
        f"time to first token  {duration(plan.ttft_s)}",
        f"between tokens       {duration(plan.inter_token_s)}",
        f"throughput           {plan.throughput_tokens_per_s:.1f} tokens/s",
        f"binding              {plain(plan.binding)}",
        f"device rates         {plan.source}",
        *(
            f"left out             {plain(one.constraint)}"
            for one in plan.decisions
            if one.subject == LEFT_OUT
        ),
    ]
