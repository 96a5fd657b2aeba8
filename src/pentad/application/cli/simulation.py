"""`pentad simulate`: a load on a simulated device or cluster, at its own rate or at several."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from functools import partial
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
    from pentad.resource.simulator import Outage, TraceItem
    from pentad.types import Objective


def register(app: typer.Typer) -> None:
    app.command("simulate", rich_help_panel="Machines")(simulate)


@with_settings(COMMON)
def simulate(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    trace: Annotated[
        str,
        typer.Argument(
            metavar="TRACE",
            help="Azure .csv, Mooncake .jsonl, sessions, telemetry; or poisson, diurnal, bursty.",
        ),
    ],
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
    kv_eviction: Annotated[
        str, typer.Option("--kv-eviction", help="Which cached texts stay over pauses, by name.")
    ] = "announced",
    limit: Annotated[int, number("--limit", "First requests of the trace to take.", least=1)] = 100,
    rate_scale: Annotated[float, number("--rate-scale", "How many times as fast they come.", above=0)] = 1.0,
    rate_per_s: Annotated[float, number("--rate-per-s", "Mean of made-up arrivals.", above=0)] = 1.0,
    period_s: Annotated[float, number("--period-s", "Of a diurnal load's day.", above=0)] = 3600.0,
    rates: Annotated[
        str | None, typer.Option("--rates", help="Requests/s, with commas: goodput at each, and the knee.")
    ] = None,
    share: Annotated[
        float, number("--share", "Of requests that must meet the objective, for --rates.", above=0, most=1)
    ] = 0.9,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            "--compare",
            metavar="FAMILY=NAMES",
            help="The load under each: scheduler, kv_eviction, offload, scaler or strategy; repeatable.",
        ),
    ] = None,
    outage: Annotated[
        list[str] | None,
        typer.Option(
            "--outage",
            metavar="DEVICE:at_s=T",
            help="Of a cluster: it fails; for_s=, notice_s= for spot leases; repeatable.",
        ),
    ] = None,
    plot: Annotated[
        pathlib.Path | None, typer.Option("--plot", metavar="FILE", help="Of --compare, as SVG.")
    ] = None,
    max_sequences: Annotated[int, number("--max-sequences", "Sequences at once.", least=1)] = 32,
    kept_fraction: Annotated[
        float, number("--kept-fraction", "KV kept over the pauses of runs.", least=0, most=1)
    ] = 0.5,
    max_batch_tokens: Annotated[int, number("--max-batch-tokens", "Per step.", least=1)] = 512,
    kv_blocks: Annotated[int | None, number("--kv-blocks", "Absent: what memory leaves.", least=1)] = None,
    kv_store_blocks: Annotated[
        int, number("--kv-store-blocks", "On disk, for the KV of runs that go on.", least=0)
    ] = 0,
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
    from pentad.application.cli import planning, simulation_compare, simulation_output, simulation_replay
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
    if plot and not compare:
        raise InvalidRequest("--plot draws what --compare compares", hint="add --compare", param="plot")
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
        kv_eviction=build("kv_eviction", Choice.of(kv_eviction)),
        kv_store_blocks=kv_store_blocks,
        too_long="clip" if too_long == "clip" else "refuse",
        cold_start_s=cold_start_s,
        seed=seed,
    )
    steps = None if rates is None else _rates(rates, objective)
    outages = [_outage(text) for text in outage or ()]
    if outages and not cluster:
        raise InvalidRequest("--outage needs several engines", hint="add --cluster FILE", param="outage")
    items = made_or_read(
        trace, limit, rate_per_s=rate_per_s, period_s=period_s, rate_scale=rate_scale, seed=seed
    )
    ask = simulation_replay.Ask(
        model=described, objective=objective, options=options, weight_bits=weight_bits, kv_bits=kv_bits
    )
    chosen = {"scheduler": scheduler, "offload": offload, "scaler": scaler, "strategy": strategy}
    if cluster:
        machines = read_cluster(cluster)

        def replay_of(row: simulation_compare.Row) -> simulation_replay.Replay:
            return simulation_replay.fleet_replay(
                ask.under(row.policies),
                machines,
                items,
                {**chosen, **row.policies},
                origin=origin,
                outages=outages,
            )
    else:
        found = planning.device_of(device or "local", settings)

        def replay_of(row: simulation_compare.Row) -> simulation_replay.Replay:
            own = row.policies.get("scheduler", scheduler)
            return simulation_replay.device_replay(ask.under(row.policies), found, own)

    if compare:
        rows = simulation_compare.rows_of(compare, cluster=cluster is not None)
        with working("simulate") as say:
            compared = simulation_compare.compare(rows, replay_of, items, rates=steps, share=share, tell=say)
        simulation_compare.show(rows, compared, as_json=json, plot=plot)
        return
    replay = replay_of(simulation_compare.Row({}))
    if steps is not None:
        with working("simulate") as say:
            say(f"{len(items)} requests at {len(steps)} rates, and between them")
            sweep = simulator.sweep(
                items, steps, lambda load: simulation_compare.total_of(replay(load, None)), share=share
            )
        simulation_output.show_sweep(sweep, as_json=json)
        return
    with progress_bar("simulate") as bar:
        report = replay(items, lambda ended: bar(ended, len(items)))
    simulation_output.show(report, as_json=json)


def made_or_read(
    trace: str,
    limit: int,
    *,
    rate_per_s: float = 1.0,
    period_s: float = 3600.0,
    rate_scale: float = 1.0,
    seed: int = 0,
) -> tuple[TraceItem, ...]:
    """A made-up load, or one of a file."""
    from pentad.resource import simulator

    made: dict[str, Callable[..., tuple[TraceItem, ...]]] = {
        "poisson": simulator.poisson,
        "diurnal": partial(simulator.diurnal, period_s=period_s),
        "bursty": simulator.bursty,
    }
    if trace not in made:
        return simulator.read_trace(trace, limit=limit, rate_scale=rate_scale)
    items = made[trace](
        limit, rate_per_s=rate_per_s, prompt_tokens=(64, 1024), output_tokens=(16, 256), seed=seed
    )
    return simulator.rescaled(items, rate_scale)


def _outage(text: str) -> Outage:
    from pentad.choice import Choice
    from pentad.resource.simulator import Outage

    choice = Choice.of(text)
    known = {"at_s", "for_s", "notice_s"}
    wrong = {k for k, v in choice.options.items() if isinstance(v, bool) or not isinstance(v, int | float)}
    if "at_s" not in choice.options or choice.options.keys() - known or wrong:
        raise InvalidRequest(
            f"--outage is {text!r}", hint="write the device and when it goes: gpu-1:at_s=30", param="outage"
        )
    return Outage(device=choice.name, **choice.options)


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
