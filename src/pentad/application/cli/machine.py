"""Verbs about machines: doctor, profile, plan, simulate."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from pentad.application.cli.options import COMMON, number, settings_of, with_settings
from pentad.application.cli.output import note, print_json, print_table, size, working
from pentad.application.cli.settings import JsonOption
from pentad.errors import InvalidRequest

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Stored model, path, or a bare config.json.")]
WeightBits = Annotated[
    float | None, number("--weight-bits", "Bits per weight. Absent: as measured, else 16.", least=1, most=64)
]
KvBits = Annotated[
    float | None,
    number("--kv-bits", "Bits per cached number. Absent: as measured, else 16.", least=1, most=64),
]
Ttft = Annotated[float | None, number("--ttft-s", "Longest time to first token wished for.", least=0)]
InterToken = Annotated[float | None, number("--inter-token-s", "Longest time between tokens.", least=0)]
Deadline = Annotated[float | None, number("--deadline-s", "Longest time to the last token.", least=0)]
DeviceHelp = "local, a device of profile --list, or a profile file"


def register(app: typer.Typer) -> None:
    panel = "Machines"
    app.command("doctor", rich_help_panel=panel)(doctor)
    app.command("profile", rich_help_panel=panel)(profile)
    app.command("plan", rich_help_panel=panel)(plan)
    app.command("simulate", rich_help_panel=panel)(simulate)


@with_settings(COMMON)
def doctor(flags: dict[str, Any], config: pathlib.Path | None, json: JsonOption = False) -> None:
    """Check this installation: machine, packages, kernels, disk, models. Exit 1 on trouble."""
    from pentad.application.cli.doctor import examine

    findings = examine(settings_of(flags, config, quiet=True))
    if json:
        print_json([dataclasses.asdict(finding) for finding in findings])
    else:
        rows = [(f.state, f.what, f.detail) for f in findings]
        print_table(("", "what", "finding"), rows, empty="nothing found")
        for finding in findings:
            if finding.hint:
                note(f"hint: {finding.what}: {finding.hint}")
    if any(finding.state == "trouble" for finding in findings):
        raise typer.Exit(1)


@with_settings(COMMON)
def profile(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    quick: Annotated[bool, typer.Option("--quick", help="Coarse, in seconds instead of minutes.")] = False,
    output: Annotated[
        pathlib.Path | None, typer.Option("--output", help="Where to write it. Absent: in home.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the published devices and stop.")] = False,
    show: Annotated[str | None, typer.Option("--show", metavar="DEVICE", help=f"Print {DeviceHelp}.")] = None,
    json: JsonOption = False,
) -> None:
    """Measure this machine: memory, matrix products, disk, loopback, and what a step costs beside them."""
    import msgspec

    from pentad.application.cli.planning import device_of
    from pentad.resource import profile as profiles

    settings = settings_of(flags, config, quiet=True)
    if list_:
        devices = [msgspec.to_builtins(device) for device in profiles.published()]
    elif show:
        devices = [msgspec.to_builtins(device_of(show, settings))]
    else:
        with working("profile") as tell:
            effort = profiles.Effort.quick() if quick else None
            measured = profiles.measure(tell, effort=effort, kernels=settings.engine.kernels)
        path = profiles.save(measured, output or settings.profile_path)
        note(f"written to {path}")
        devices = [msgspec.to_builtins(measured)]
    if json:
        print_json(devices if list_ else devices[0])
        return
    rows = [_device_row(device) for device in devices]
    print_table(("device", "kind", "rates", "memory", "reads", "compute"), rows, empty="no devices")


@with_settings(COMMON)
def plan(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    model: Model,
    device: Annotated[list[str] | None, typer.Option("--device", help=f"{DeviceHelp}; repeatable.")] = None,
    strategy: Annotated[str, typer.Option("--strategy", help="Placement strategy, by name.")] = "single",
    prompt_tokens: Annotated[int, number("--prompt-tokens", "Per request.", least=1, most=10**7)] = 512,
    new_tokens: Annotated[int, number("--new-tokens", "Per request.", least=1, most=10**7)] = 128,
    concurrency: Annotated[int, number("--concurrency", "Requests in flight.", least=1, most=10**6)] = 1,
    weight_bits: WeightBits = None,
    kv_bits: KvBits = None,
    ttft_s: Ttft = None,
    inter_token_s: InterToken = None,
    deadline_s: Deadline = None,
    link_bytes_per_s: Annotated[float, number("--link-bytes-per-s", "Between devices.", above=0)] = 125e6,
    link_latency_s: Annotated[float, number("--link-latency-s", "Between devices.", least=0)] = 1e-4,
    json: JsonOption = False,
) -> None:
    """Plan where a model runs: memory, predicted times, and what binds. Exit 3 when nothing fits."""
    from pentad.application.cli.planning import cluster_of, describe, form_for, plan_lines, stage_rows
    from pentad.choice import Choice, build
    from pentad.resource.placement.base import PlacementProblem, Workload
    from pentad.types import Objective

    settings = settings_of(flags, config, quiet=True)
    planner = build("placement", Choice.of(strategy))
    cluster = cluster_of(
        device or ["local"], settings, link_bytes_per_s=link_bytes_per_s, link_latency_s=link_latency_s
    )
    described = describe(model, settings)
    with _explained():
        problem = PlacementProblem(
            spec=described.spec,
            cluster=cluster,
            workload=Workload(prompt_tokens=prompt_tokens, new_tokens=new_tokens, concurrency=concurrency),
            objective=Objective(ttft_s=ttft_s, inter_token_s=inter_token_s, deadline_s=deadline_s),
            form=form_for(described, cluster.devices[0], weight_bits, kv_bits),
        )
    result = planner.plan(problem)
    if json:
        print_json(result.to_dict())
        return
    columns = ("device", "layers", "weights GiB", "KV", "activations", "sum", "usable")
    print_table(columns, stage_rows(result), empty="no stages")
    typer.echo("\n" + "\n".join(plan_lines(result)))


@with_settings(COMMON)
def simulate(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    trace: Annotated[str, typer.Argument(metavar="TRACE", help="Azure .csv, Mooncake .jsonl, or `poisson`.")],
    model: Annotated[str, typer.Option("--model", help="As for plan.")] = "smollm2-135m",
    device: Annotated[str, typer.Option("--device", help=f"{DeviceHelp}.")] = "local",
    scheduler: Annotated[str, typer.Option("--scheduler", help="Batch scheduler, by name.")] = "sarathi",
    limit: Annotated[int, number("--limit", "First requests of the trace to take.", least=1)] = 100,
    rate_scale: Annotated[float, number("--rate-scale", "How many times as fast they come.", above=0)] = 1.0,
    rate_per_s: Annotated[float, number("--rate-per-s", "Of poisson arrivals.", above=0)] = 1.0,
    max_sequences: Annotated[int, number("--max-sequences", "Sequences at once.", least=1)] = 32,
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
    """Replay a load on a simulated device: the real scheduler and block pool on a virtual clock."""
    from pentad.application.cli import planning
    from pentad.execution.scheduling import EngineLimits
    from pentad.resource import simulator
    from pentad.types import Objective

    if too_long not in ("refuse", "clip"):
        raise InvalidRequest(f"--too-long is {too_long!r}", hint="use refuse or clip", param="too_long")
    settings = settings_of(flags, config, quiet=True)
    profile_, described = planning.device_of(device, settings), planning.describe(model, settings)
    with _explained():
        options = simulator.SimulationOptions(
            limits=EngineLimits(
                max_batch_tokens=max_batch_tokens, max_sequences=max_sequences, max_waiting=max(limit, 1)
            ),
            kv_blocks=kv_blocks,
            too_long="clip" if too_long == "clip" else "refuse",
            form=planning.form_for(described, profile_, weight_bits, kv_bits),
            seed=seed,
        )
    if trace == "poisson":
        items = simulator.poisson(
            limit, rate_per_s=rate_per_s, prompt_tokens=(64, 1024), output_tokens=(16, 256), seed=seed
        )
    else:
        items = simulator.read_trace(trace, limit=limit, rate_scale=rate_scale)
    with working("simulate") as tell:
        tell(f"{len(items)} requests")
        report = simulator.simulate(
            items,
            described.spec,
            profile_,
            scheduler,
            options=options,
            objective=Objective(ttft_s=ttft_s, inter_token_s=inter_token_s, deadline_s=deadline_s),
        )
    if json:
        print_json(report.to_dict())
        return
    typer.echo("\n".join(planning.report_lines(report)) + "\n")
    rows = [
        planning.distribution_row("time to first token", report.ttft),
        planning.distribution_row("between tokens", report.inter_token),
        planning.distribution_row("whole request", report.completion),
    ]
    print_table(("", "median", "p95", "p99", "mean"), rows, empty="nothing completed")


@contextmanager
def _explained() -> Iterator[None]:
    """Turns the range checks of dataclasses into errors for people."""
    try:
        yield
    except InvalidRequest as e:
        hint = e.hint or (f"change --{e.param.replace('_', '-')}" if e.param else None)
        raise InvalidRequest(e.message, hint=hint, param=e.param) from None


def _device_row(device: dict[str, Any]) -> tuple[object, ...]:
    main = next((tier for tier in device["memory"] if tier["name"] == "main"), device["memory"][0])
    rates = [f"{name} {rate / 1e9:.0f}" for name, rate in device["flops_per_s"].items()]
    return (
        device["name"],
        device["kind"],
        device["source"],
        size(main["capacity_bytes"]),
        f"{main['read_bytes_per_s'] / 1e9:.1f} GB/s",
        f"{', '.join(rates)} GFLOP/s" if rates else "-",
    )
