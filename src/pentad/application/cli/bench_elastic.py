"""`pentad bench elastic`: policies on a mixed workload, live or simulated."""

from __future__ import annotations

import pathlib
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pentad.application.cli.bench_output import Json, finish
from pentad.application.cli.options import COMMON, ENGINE, MODELS, number, settings_of, with_settings
from pentad.application.cli.output import note, print_table, progress_bar
from pentad.application.cli.simulated_machine import Models, machine_of, serving
from pentad.errors import InvalidRequest

if TYPE_CHECKING:
    from pentad.agent.evaluation.workload import Workload
    from pentad.application.bench.elastic.play import Bench
    from pentad.application.bench.elastic.policy import BenchPolicy
    from pentad.application.bench.elastic.run_line import RunLine
    from pentad.application.config import Settings


@with_settings(COMMON, MODELS, ENGINE)
def elastic(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    workload: Annotated[
        pathlib.Path | None,
        typer.Option("--workload", metavar="FILE", help="Classes and tasks with their checks."),
    ] = None,
    policies: Annotated[
        str,
        typer.Option(
            "--policies",
            help="fixed:MODEL/STRATEGY, strategy:MODEL, router:NAME/STRATEGY, elastic, remote:URL/MODEL.",
        ),
    ] = "elastic",
    models: Models = None,
    load: Annotated[str, typer.Option("--load", help="Arrivals over the capacity, with commas.")] = "0.8",
    minutes: Annotated[
        float, number("--minutes", "Of arrivals, for each policy and load.", above=0, most=1440)
    ] = 2.0,
    rounds: Annotated[
        int, number("--rounds", "Policies take turns in so many parts.", least=1, most=100)
    ] = 2,
    capacity: Annotated[
        float | None,
        number("--capacity", "Runs per minute. Absent: measured with the first policy.", above=0),
    ] = None,
    feedback: Annotated[
        float, number("--feedback", "Share of runs whose verdict policies are told.", least=0, most=1)
    ] = 0.0,
    learn: Annotated[
        list[pathlib.Path] | None,
        typer.Option("--learn", metavar="FILE", help="Runs of an earlier --out to learn from; repeatable."),
    ] = None,
    simulate: Annotated[
        bool,
        typer.Option(
            "--simulate", help="In virtual time, on this machine's profile, by the runs of --learn."
        ),
    ] = False,
    machine: Annotated[
        str, typer.Option("--machine", help="Of --simulate: local, a device by name, or a profile.")
    ] = "local",
    seed: Annotated[int, number("--seed", "Of arrivals and intervals.", least=0, most=2**31)] = 0,
    out: Annotated[
        pathlib.Path | None, typer.Option("--out", metavar="FILE", help="Add a line per run to this file.")
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the schema of a workload file.")] = False,
    json: Json = False,
) -> None:
    """Measure policies on a mixed workload: runs per minute that are right, in time and within budget.

    Every policy gets the same tasks at the same instants. Ctrl-C shows what was measured until then.
    """
    from pentad.agent.evaluation.workload_file import read_workload, schema_json
    from pentad.application.bench.elastic.play import Bench, Plan
    from pentad.application.bench.elastic.policy import policies_of
    from pentad.application.bench.elastic.run_line import append_lines, read_lines

    if schema:
        typer.echo(schema_json(), nl=False)
        return
    if workload is None:
        raise InvalidRequest("no workload is named", hint="give --workload FILE", param="workload")
    tasks, known = read_workload(workload), read_lines(learn or ())
    plan = Plan(
        loads=_loads(load),
        minutes=minutes,
        rounds=rounds,
        capacity_per_minute=capacity,
        seed=seed,
        feedback=feedback,
    )
    chosen = policies_of(policies)
    settings = serving(settings_of(flags, config, quiet=True), models)
    bench = Bench(workload=tasks, plan=plan)
    with progress_bar("bench elastic") as bar:

        def told(line: RunLine) -> None:
            total = len(plan.loads) * len(chosen) * minutes
            bar(sum(one.minutes for one in bench.played.values()), total)
            if out is not None:
                append_lines(out, [line])

        bench.told = told
        work = (
            _simulated(bench, settings, chosen, known, machine)
            if simulate
            else _live(bench, settings, chosen, known)
        )
        finished = _play(work, virtual=simulate)
    result = {
        "bench": "elastic",
        "workload": workload.name,
        "simulated": simulate,
        "finished": finished,
        **bench.result(),
    }
    finish(result, out=None, json=json)
    if not json:
        _show(result, tasks)
    if not finished:
        raise typer.Exit(1)


async def _live(bench: Bench, settings: Settings, chosen: list[BenchPolicy], known: list[RunLine]) -> None:
    from pentad.application.bench.elastic.live import live_contestants, settings_with

    served = settings_with(settings, chosen)
    async with live_contestants(served, chosen, bench.workload, known) as contestants:
        await bench.play(contestants)


async def _simulated(
    bench: Bench, settings: Settings, chosen: list[BenchPolicy], known: list[RunLine], on: str
) -> None:
    from pentad.application.bench.elastic.live import settings_with
    from pentad.application.bench.elastic.simulated import simulated_contestants

    machine = machine_of(settings_with(settings, chosen), on)
    seed = bench.plan.seed
    async with simulated_contestants(machine, chosen, bench.workload, known, seed=seed) as contestants:
        await bench.play(contestants)


def _play(work: Coroutine[Any, Any, None], *, virtual: bool) -> bool:
    """Whether it came to its end; False where somebody interrupted it."""
    import asyncio

    from pentad.resource.simulator.virtual_loop import VirtualLoop

    try:
        with asyncio.Runner(loop_factory=VirtualLoop if virtual else None) as runner:
            runner.run(work)
    except KeyboardInterrupt:
        note("interrupted; shown is what was measured until then")
        return False
    return True


def _loads(text: str) -> tuple[float, ...]:
    hint = "give numbers with commas: --load 0.5,0.8,1.2"
    try:
        found = tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        raise InvalidRequest(f"--load is {text!r}", hint=hint, param="load") from None
    return found


def _show(result: dict[str, Any], workload: Workload) -> None:
    capacity = result["capacity_per_minute"]
    told = "no capacity was measured" if capacity is None else f"capacity {capacity:.1f} runs a minute"
    typer.echo(f"{told}; {result['minutes']:g} minutes for each policy and load")
    for at in result["loads"]:
        typer.echo(f"\nload {at['load']:g}")
        rows = [_row(name, one, at["over"].get(name)) for name, one in at["policies"].items()]
        columns = ("policy", "runs", "goodput/min (95%)", "right", "in time", "in budget", "tokens", "joules",
                   "elastic over it")  # fmt: skip
        print_table(columns, rows, empty="")
        typer.echo("")
        classes = [one.name for one in workload.classes]
        quality = [
            (name, *(_quality(one["classes"][each]) for each in classes))
            for name, one in at["policies"].items()
        ]
        print_table(("quality by class", *classes), quality, empty="")


def _row(name: str, one: dict[str, Any], over: dict[str, Any] | None) -> tuple[object, ...]:
    low, high = one["goodput_interval"]
    ratio = (
        "-"
        if over is None
        else f"{over['ratio']:.2f} ({over['interval'][0]:.2f} to {over['interval'][1]:.2f})"
    )
    return (
        name,
        one["runs"],
        f"{one['goodput_per_minute']:.2f} ({low:.2f} to {high:.2f})",
        one["right"],
        one["in_time"],
        one["within_budget"],
        one["tokens"],
        one["joules"],
        ratio,
    )


def _quality(one: dict[str, Any]) -> str:
    if not one["runs"]:
        return "-"
    floor = "" if one["floor"] is None else f" {'>=' if one['floor_kept'] else '<'} {one['floor']:.2f}"
    return f"{one['quality']:.2f}{floor} of {one['runs']}"
