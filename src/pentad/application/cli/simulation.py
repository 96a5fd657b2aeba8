"""`pentad simulate`: a load on a simulated device or cluster, at its own rate or at several."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pentad.application.cli.options import COMMON, number, settings_of, with_settings
from pentad.application.cli.output import progress_bar, working
from pentad.application.cli.planning_flags import (
    Deadline,
    DeviceHelp,
    InterToken,
    KvBits,
    Ttft,
    WeightBits,
)
from pentad.application.cli.settings import JsonOption
from pentad.errors import InvalidRequest
from pentad.ranges import in_range

if TYPE_CHECKING:
    from pentad.resource.simulator import FleetReport, SimulationReport, TraceItem
    from pentad.types import Objective


def register(app: typer.Typer) -> None:
    app.command("simulate", rich_help_panel="Machines")(simulate)


@with_settings(COMMON)
def simulate(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    trace: Annotated[str, typer.Argument(metavar="TRACE", help="Azure .csv, Mooncake .jsonl, or `poisson`.")],
    model: Annotated[str, typer.Option("--model", help="As for plan.")] = "smollm2-135m",
    device: Annotated[str | None, typer.Option("--device", help=f"{DeviceHelp}. Absent: local.")] = None,
    cluster: Annotated[
        pathlib.Path | None,
        typer.Option("--cluster", metavar="FILE", help="Many engines: devices and links."),
    ] = None,
    strategy: Annotated[
        str, typer.Option("--strategy", help="Placement of the engines on a cluster, by name.")
    ] = "data-parallel",
    offload: Annotated[
        str, typer.Option("--offload", help="Which engine of a cluster gets a request, by name.")
    ] = "local",
    scaler: Annotated[
        str, typer.Option("--scaler", help="How many engines of a cluster are up, by name.")
    ] = "fixed",
    cold_start_s: Annotated[
        float | None,
        number("--cold-start-s", "Of an engine. Absent: its weights at the disk's rate.", least=0),
    ] = None,
    origin: Annotated[
        str | None, typer.Option("--origin", metavar="DEVICE", help="Of a cluster: where requests arise.")
    ] = None,
    scheduler: Annotated[str, typer.Option("--scheduler", help="Batch scheduler, by name.")] = "sarathi",
    kv_policy: Annotated[
        str, typer.Option("--kv-policy", help="What stays in the KV cache, by name.")
    ] = "keep-all",
    limit: Annotated[int, number("--limit", "First requests of the trace to take.", least=1)] = 100,
    rate_scale: Annotated[float, number("--rate-scale", "How many times as fast they come.", above=0)] = 1.0,
    rate_per_s: Annotated[float, number("--rate-per-s", "Of poisson arrivals.", above=0)] = 1.0,
    rates: Annotated[
        str | None, typer.Option("--rates", help="Requests/s, with commas: goodput at each, and the knee.")
    ] = None,
    share: Annotated[
        float, number("--share", "Of requests that must meet the objective, for --rates.", above=0, most=1)
    ] = 0.9,
    max_sequences: Annotated[int, number("--max-sequences", "Sequences at once.", least=1)] = 32,
    kept_fraction: Annotated[
        float, number("--kept-fraction", "KV kept over the pauses of runs.", least=0, most=1)
    ] = 0.5,
    max_batch_tokens: Annotated[int, number("--max-batch-tokens", "Per step.", least=1)] = 512,
    kv_blocks: Annotated[int | None, number("--kv-blocks", "Absent: what memory leaves.", least=1)] = None,
    too_long: Annotated[
        str, typer.Option("--too-long", help="refuse, or clip over-long requests.")
    ] = "refuse",
    weight_bits: WeightBits = None,
    kv_bits: KvBits = None,
    ttft_s: Ttft = None,
    inter_token_s: InterToken = None,
    deadline_s: Deadline = None,
    seed: Annotated[int, number("--seed", "Of made-up prompts and arrivals.", least=0)] = 0,
    json: JsonOption = False,
) -> None:
    """Replay a load on simulated devices: the real scheduler and block pool on a virtual clock.

    With --cluster: many engines on one clock, each given requests by the policy of --offload.
    """
    from pentad.application.cli import planning, simulation_output, simulation_replay
    from pentad.choice import Choice, build
    from pentad.execution.scheduling import EngineLimits
    from pentad.resource import simulator
    from pentad.resource.cluster_file import read_cluster
    from pentad.types import Objective

    if too_long not in ("refuse", "clip"):
        raise InvalidRequest(f"--too-long is {too_long!r}", hint="use refuse or clip", param="too_long")
    if cluster and device:
        raise InvalidRequest(
            "--cluster names the devices", hint="leave --device or --cluster out", param="cluster"
        )
    settings = settings_of(flags, config, quiet=True)
    objective = Objective(ttft_s=ttft_s, inter_token_s=inter_token_s, deadline_s=deadline_s)
    described = planning.describe(model, settings)
    options = simulator.SimulationOptions(
        limits=EngineLimits(
            max_batch_tokens=max_batch_tokens,
            max_sequences=max_sequences,
            max_waiting=limit,
            kept_fraction=kept_fraction,
        ),
        kv_blocks=kv_blocks,
        kv_policy=build("kv_policy", Choice.of(kv_policy)),
        too_long="clip" if too_long == "clip" else "refuse",
        cold_start_s=cold_start_s,
        seed=seed,
    )
    steps = None if rates is None else _rates(rates, objective)
    items = _load(trace, limit, rate_per_s=rate_per_s, rate_scale=rate_scale, seed=seed)
    ask = simulation_replay.Ask(
        model=described, objective=objective, options=options, weight_bits=weight_bits, kv_bits=kv_bits
    )
    replay: simulation_replay.Replay
    if cluster:
        replay = simulation_replay.fleet_replay(
            ask,
            read_cluster(cluster),
            items,
            placement=strategy,
            policies=simulator.Policies.of(scheduler=scheduler, offload=offload, scaler=scaler),
            origin=origin,
        )
    else:
        found = planning.device_of(device or "local", settings)
        replay = simulation_replay.device_replay(ask, found, scheduler)
    if steps is not None:
        with working("simulate") as say:
            say(f"{len(items)} requests at {len(steps)} rates, and between them")
            sweep = simulator.sweep(items, steps, lambda load: _total(replay(load, None)), share=share)
        simulation_output.show_sweep(sweep, as_json=json)
        return
    with progress_bar("simulate") as bar:
        report = replay(items, lambda ended: bar(ended, len(items)))
    simulation_output.show(report, as_json=json)


def _load(
    trace: str, limit: int, *, rate_per_s: float, rate_scale: float, seed: int
) -> tuple[TraceItem, ...]:
    """A made-up load, or one of a file."""
    from pentad.resource import simulator

    if trace != "poisson":
        return simulator.read_trace(trace, limit=limit, rate_scale=rate_scale)
    lengths = {"prompt_tokens": (64, 1024), "output_tokens": (16, 256)}
    items = simulator.poisson(limit, rate_per_s=rate_per_s, seed=seed, **lengths)
    return simulator.rescaled(items, rate_scale)


def _total(report: SimulationReport | FleetReport) -> SimulationReport:
    from pentad.resource.simulator import SimulationReport

    return report if isinstance(report, SimulationReport) else report.total


def _rates(text: str, objective: Objective) -> list[float]:
    from pentad.types import Objective

    if objective == Objective():
        raise InvalidRequest(
            "--rates finds where an objective is missed, but none is set",
            hint="set --ttft-s, --inter-token-s or --deadline-s",
            param="rates",
        )
    hint = "give numbers with commas: --rates 1,2,4,8"
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        raise InvalidRequest(f"--rates is {text!r}", hint=hint, param="rates") from None
    for rate in rates:
        in_range("--rates", rate, above=0, hint=hint)
    return rates
