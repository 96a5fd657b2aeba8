"""How the results of `pentad simulate` read."""

from __future__ import annotations

import typer

from pentad.application.cli.output import duration, plain, print_json, print_table
from pentad.resource.simulator import Distribution, EngineReport, FleetReport, SimulationReport, Sweep
from pentad.types import Objective


def show(report: SimulationReport | FleetReport, *, as_json: bool) -> None:
    """A replay's report, as JSON or for people."""
    if as_json:
        print_json(report.to_dict())
        return
    total = report.total if isinstance(report, FleetReport) else report
    lines = report_lines(total)
    if isinstance(report, FleetReport):
        lines += fleet_lines(report)
    typer.echo("\n".join(lines) + "\n")
    rows = [
        distribution_row("time to first token", total.ttft),
        distribution_row("between tokens", total.inter_token),
        distribution_row("whole request", total.completion),
    ]
    print_table(("", "median", "p95", "p99", "mean"), rows, empty="nothing completed")
    if isinstance(report, FleetReport):
        typer.echo()
        columns = ("engine", "requests", "up", "in steps", "tokens/s", "p95 first token", "p95 between")
        print_table(columns, [engine_row(engine) for engine in report.engines], empty="no engines")


def fleet_lines(report: FleetReport) -> list[str]:
    """What is told of many engines beside the totals."""
    lines = [f"given to engines by  {report.offload}"]
    hours = sum(engine.up_s for engine in report.engines) / 3600
    lines.append(
        f"engines up by        {report.scaler}, {hours:.4g} engine hours, {report.cold_starts} cold starts"
    )
    if report.cost:
        lines.append(f"cost of all devices  {report.cost:.4g}")
    return lines


def engine_row(engine: EngineReport) -> tuple[object, ...]:
    own = engine.report
    return (
        engine.name,
        engine.given,
        duration(engine.up_s),
        f"{engine.utilisation:.0%}",
        f"{own.throughput_tokens_per_s:.1f}",
        duration(own.ttft.p95),
        duration(own.inter_token.p95),
    )


def distribution_row(name: str, values: Distribution) -> tuple[str, ...]:
    """A quantity with its median, 95th and 99th percentile and mean."""
    return (name, *(duration(v) for v in (values.p50, values.p95, values.p99, values.mean)))


def report_lines(report: SimulationReport) -> list[str]:
    """The counts and rates of a simulated replay."""
    data = report.to_dict()
    lines = [
        f"{report.model} on {plain(report.device)}, scheduler {report.scheduler}",
        f"requests             {data['completed']} of {data['requests']} completed",
        f"simulated time       {duration(report.span_s)}, {report.utilisation:.0%} of it in steps",
        f"throughput           {report.throughput_tokens_per_s:.1f} tokens/s",
        f"preemptions          {data['preemptions']}",
    ]
    if data["moved_requests"]:
        lines.append(
            f"moved                {data['moved_requests']} requests of lost engines, "
            f"{data['recomputed_tokens']} tokens computed again"
        )
    if report.objective != Objective():
        lines.append(f"within objective     {report.attainment:.1%}, {report.goodput_per_s:.3f} requests/s")
    for reason, count in data["refused"].items():
        lines.append(f"refused              {count}: {plain(reason)}")
    if data["clipped_requests"]:
        lines.append(
            f"clipped              {data['clipped_requests']} requests, {data['clipped_tokens']} tokens"
        )
    return lines


def show_sweep(found: Sweep, *, as_json: bool) -> None:
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
