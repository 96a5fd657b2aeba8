"""`pentad simulate`: a load on a simulated device, at its own rate or at several."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pentad.application.cli.options import COMMON, number, settings_of, with_settings
from pentad.application.cli.output import duration, print_json, print_table, working
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
    from pentad.resource.simulator import SimulationReport, Sweep, TraceItem
    from pentad.types import Objective


def register(app: typer.Typer) -> None:
    app.command("simulate", rich_help_panel="Machines")(simulate)


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
    rates: Annotated[
        str | None, typer.Option("--rates", help="Requests/s, with commas: goodput at each, and the knee.")
    ] = None,
    share: Annotated[
        float, number("--share", "Of requests that must meet the objective, for --rates.", above=0, most=1)
    ] = 0.9,
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
    objective = Objective(ttft_s=ttft_s, inter_token_s=inter_token_s, deadline_s=deadline_s)
    options = simulator.SimulationOptions(
        limits=EngineLimits(
            max_batch_tokens=max_batch_tokens, max_sequences=max_sequences, max_waiting=limit
        ),
        kv_blocks=kv_blocks,
        too_long="clip" if too_long == "clip" else "refuse",
        form=planning.form_for(described, profile_, weight_bits, kv_bits),
        seed=seed,
    )
    steps = None if rates is None else _rates(rates, objective)
    if trace == "poisson":
        lengths = {"prompt_tokens": (64, 1024), "output_tokens": (16, 256)}
        items = simulator.poisson(limit, rate_per_s=rate_per_s, seed=seed, **lengths)
        items = simulator.rescaled(items, rate_scale)
    else:
        items = simulator.read_trace(trace, limit=limit, rate_scale=rate_scale)

    def replay(items: Sequence[TraceItem]) -> SimulationReport:
        return simulator.simulate(
            items, described.spec, profile_, scheduler, options=options, objective=objective
        )

    with working("simulate") as tell:
        if steps is not None:
            tell(f"{len(items)} requests at {len(steps)} rates, and between them")
            _show_sweep(simulator.sweep(items, steps, replay, share=share), as_json=json)
            return
        tell(f"{len(items)} requests")
        report = replay(items)
    _show_report(report, as_json=json)


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


def _show_sweep(found: Sweep, *, as_json: bool) -> None:
    if as_json:
        print_json(found.to_dict())
        return
    rows = [
        (
            f"{rate:g}",
            f"{report.attainment:.1%}",
            f"{report.goodput_per_s:.3f}",
            f"{report.throughput_tokens_per_s:.1f}",
            duration(report.ttft.p95),
            duration(report.inter_token.p95),
        )
        for rate, report in found.points
    ]
    columns = ("requests/s", "within objective", "goodput/s", "tokens/s", "p95 first token", "p95 between")
    print_table(columns, rows, empty="no rates")
    share = f"{found.share:.0%} of requests meet the objective"
    if found.knee_per_s is None:
        typer.echo(f"\nknee  below {found.points[0][0]:g} requests/s: there fewer than {share}")
    elif not found.bounded:
        typer.echo(f"\nknee  above {found.knee_per_s:g} requests/s: there still {share}")
    else:
        typer.echo(f"\nknee  {found.knee_per_s:.3g} requests/s: the most at which {share}")


def _show_report(report: SimulationReport, *, as_json: bool) -> None:
    from pentad.application.cli import planning

    if as_json:
        print_json(report.to_dict())
        return
    typer.echo("\n".join(planning.report_lines(report)) + "\n")
    rows = [
        planning.distribution_row("time to first token", report.ttft),
        planning.distribution_row("between tokens", report.inter_token),
        planning.distribution_row("whole request", report.completion),
    ]
    print_table(("", "median", "p95", "p99", "mean"), rows, empty="nothing completed")
