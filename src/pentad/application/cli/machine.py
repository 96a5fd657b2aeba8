"""Verbs about machines: doctor, profile, plan."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pentad.application.cli.options import COMMON, number, settings_of, with_settings
from pentad.application.cli.output import note, print_json, print_table, working
from pentad.application.cli.planning_flags import (
    Deadline,
    DeviceHelp,
    InterToken,
    KvBits,
    Model,
    Ttft,
    WeightBits,
)
from pentad.application.cli.settings import JsonOption
from pentad.errors import InvalidRequest

if TYPE_CHECKING:
    pass


def register(app: typer.Typer) -> None:
    panel = "Machines"
    app.command("doctor", rich_help_panel=panel)(doctor)
    app.command("profile", rich_help_panel=panel)(profile)
    app.command("plan", rich_help_panel=panel)(plan)


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
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="With --list: only gpu, tpu, phone ...")
    ] = None,
    show: Annotated[str | None, typer.Option("--show", metavar="DEVICE", help=f"Print {DeviceHelp}.")] = None,
    links: Annotated[
        list[str] | None,
        typer.Option("--links", metavar="HOST", help="Measure the link to HOST[:PORT] and stop; repeatable."),
    ] = None,
    answer_links: Annotated[
        int | None,
        number(
            "--answer-links", "Answer such measurements on this port until interrupted.", least=1, most=65535
        ),
    ] = None,
    power_w: Annotated[
        float | None, number("--power-w", "Power of this machine at full load, for joules.", above=0)
    ] = None,
    idle_w: Annotated[float | None, number("--idle-w", "Its power when idle.", above=0)] = None,
    json: JsonOption = False,
) -> None:
    """Measure this machine: memory, matrix products, disk, loopback, and what a step costs beside them."""
    import msgspec

    from pentad.application.cli import device_tables
    from pentad.application.cli.planning import device_of
    from pentad.resource import profile as profiles

    settings = settings_of(flags, config, quiet=True)
    if links or answer_links is not None:
        device_tables.show_links(links or [], answer_links, as_json=json)
        return
    if list_:
        devices = device_tables.of_kind(profiles.published(), kind)
    elif show:
        devices = [device_of(show, settings)]
    else:
        with working("profile") as tell:
            effort = profiles.Effort.quick() if quick else None
            measured = profiles.measure(tell, effort=effort, kernels=settings.engine.kernels)
        measured = dataclasses.replace(measured, power_w=power_w, idle_w=idle_w)
        path = profiles.save(measured, output or settings.profile_path)
        note(f"written to {path}")
        devices = [measured]
    if json:
        plain = [msgspec.to_builtins(device) for device in devices]
        print_json(plain if list_ else plain[0])
        return
    print_table(device_tables.COLUMNS, [device_tables.row(one) for one in devices], empty="no devices")
    if show:
        typer.echo()
        print_table(device_tables.ORIGINS, device_tables.origins(devices[0]), empty="no sources are named")


@with_settings(COMMON)
def plan(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    model: Model = None,
    models: Annotated[
        str | None, typer.Option("--models", help="Several with commas, or all of the store.")
    ] = None,
    device: Annotated[list[str] | None, typer.Option("--device", help=f"{DeviceHelp}; repeatable.")] = None,
    devices: Annotated[
        str | None, typer.Option("--devices", help="Each by itself, with commas, or all: a matrix.")
    ] = None,
    cluster: Annotated[
        pathlib.Path | None, typer.Option("--cluster", metavar="FILE", help="Devices and links in YAML.")
    ] = None,
    strategy: Annotated[str, typer.Option("--strategy", help="Placement strategy, by name.")] = "auto",
    compare: Annotated[
        str | None, typer.Option("--compare", help="Several strategies with commas: a row for each.")
    ] = None,
    launch: Annotated[
        str | None, typer.Option("--launch", metavar="ENGINE", help="Print how vllm, deepspeed ... run it.")
    ] = None,
    load: Annotated[
        str | None,
        typer.Option("--load", metavar="TRACE", help="As for simulate: the highest load, what breaks first."),
    ] = None,
    limit: Annotated[int, number("--limit", "First requests of --load to take.", least=2)] = 100,
    share: Annotated[
        float, number("--share", "Of requests that must meet the objective, for --load.", above=0, most=1)
    ] = 0.9,
    prompt_tokens: Annotated[int, number("--prompt-tokens", "Per request.", least=1, most=10**7)] = 512,
    new_tokens: Annotated[int, number("--new-tokens", "Per request.", least=1, most=10**7)] = 128,
    concurrency: Annotated[int, number("--concurrency", "Requests in flight.", least=1, most=10**6)] = 1,
    weight_bits: WeightBits = None,
    kv_bits: KvBits = None,
    ttft_s: Ttft = None,
    inter_token_s: InterToken = None,
    deadline_s: Deadline = None,
    max_energy_j: Annotated[
        float | None, number("--max-energy-j", "Joules a request, at the devices' rated power.", above=0)
    ] = None,
    link_bytes_per_s: Annotated[float, number("--link-bytes-per-s", "Between devices.", above=0)] = 125e6,
    link_latency_s: Annotated[float, number("--link-latency-s", "Between devices.", least=0)] = 1e-4,
    json: JsonOption = False,
) -> None:
    """Plan where a model runs: memory, predicted times, and what binds. Exit 3 when nothing fits.

    With --models or --devices: every model on every device, each by itself.
    """
    from pentad.application.cli import matrix, plan_compare, plan_launch, planning
    from pentad.choice import Choice, build
    from pentad.resource.cluster_file import read_cluster
    from pentad.resource.placement.base import Workload
    from pentad.types import Objective

    settings = settings_of(flags, config, quiet=True)
    if (model is None) == (models is None):
        raise InvalidRequest(
            "give one MODEL, or several with --models", hint="pentad plan --models all", param="models"
        )
    if device and devices:
        raise InvalidRequest(
            "--device plans one pipeline, --devices one plan for each", hint="leave one out", param="devices"
        )
    if compare and (devices or models):
        raise InvalidRequest(
            "--compare takes one model on one cluster",
            hint="leave --devices and --models out",
            param="compare",
        )
    if launch and (compare or devices or models or load):
        raise InvalidRequest(
            "--launch takes one plan",
            hint="leave --compare, --devices, --models and --load out",
            param="launch",
        )
    if load and (compare or devices):
        raise InvalidRequest(
            "--load plans one cluster", hint="leave --compare and --devices out", param="load"
        )
    if cluster and (device or devices or (models and not load)):
        raise InvalidRequest(
            "--cluster names the devices of one plan",
            hint="leave --device and --devices out",
            param="cluster",
        )
    ask = planning.Ask(
        planner=build("placement", Choice.of(strategy)),
        workload=Workload(prompt_tokens=prompt_tokens, new_tokens=new_tokens, concurrency=concurrency),
        objective=Objective(
            ttft_s=ttft_s, inter_token_s=inter_token_s, deadline_s=deadline_s, max_energy_j=max_energy_j
        ),
        weight_bits=weight_bits,
        kv_bits=kv_bits,
        link_bytes_per_s=link_bytes_per_s,
        link_latency_s=link_latency_s,
    )
    named = matrix.models_named(models, settings) if models else [model or ""]
    described = {name: planning.describe(name, settings) for name in named}
    if load:
        from pentad.application.cli import plan_load, simulation

        items = simulation.made_or_read(load, limit)
        machines = read_cluster(cluster) if cluster else ask.cluster(device or ["local"], settings)
        with working("plan") as say:
            say(f"{len(items)} requests at rising rates")
            borne = plan_load.plan_load(ask, list(described.values()), machines, items, share=share)
        plan_load.show(borne, as_json=json)
        return
    if models or devices:
        each = matrix.devices_named(devices, settings) if devices else device or ["local"]
        pairs = matrix.fill(named, each, lambda name, on: ask.plan(described[name], [on], settings))
        raise typer.Exit(matrix.show(pairs, as_json=json))
    fleet = read_cluster(cluster) if cluster else ask.cluster(device or ["local"], settings)
    if compare:
        found = plan_compare.compared(ask, plan_compare.choices(compare), described[named[0]], fleet)
        raise typer.Exit(plan_compare.show(found, as_json=json))
    result = ask.plan_on(described[named[0]], fleet)
    if launch:
        plan_launch.show(result, ask.workload, launch, named[0], as_json=json)
        return
    if json:
        first = fleet.device(result.stages[0].device)
        print_json(result.to_dict() | {"bounds": planning.bounds(ask, described[named[0]], first)})
        return
    columns = ("device", "layers", "weights GiB", "KV", "activations", "sum", "usable")
    print_table(columns, planning.stage_rows(result), empty="no stages")
    typer.echo("\n" + "\n".join(planning.plan_lines(result)))
    if len(result.stages) > 1:
        typer.echo("\n" + "\n".join(plan_compare.drawing(result)))
