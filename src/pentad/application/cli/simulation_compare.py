"""`pentad simulate --compare`: the same load under several policies, a row for each."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import typer

from pentad.application.cli.line_chart import Points, cumulative, line_chart
from pentad.application.cli.output import duration, note, print_json, print_table
from pentad.application.cli.plan_compare import choices
from pentad.application.cli.simulation_replay import Replay
from pentad.errors import InvalidRequest
from pentad.resource.simulator import FleetReport, SimulationReport, Sweep, TraceItem, sweep

FAMILIES = ("scheduler", "kv_eviction", "offload", "scaler", "strategy")
"""What may be compared, in the words of the flags."""
_OF_CLUSTERS = ("offload", "scaler", "strategy")
_MOST = 32
"""Rows of one comparison; each is a whole simulation, or several."""
Report = SimulationReport | FleetReport


@dataclass(frozen=True, slots=True)
class Row:
    """One combination of policies, by family."""

    policies: Mapping[str, str]

    @property
    def name(self) -> str:
        return " ".join(self.policies.values())


def rows_of(asked: Sequence[str], *, cluster: bool) -> list[Row]:
    """Every combination of the policies that `--compare` names, the first of each family first.

    Args:
        asked: texts `FAMILY=NAME,NAME`; a name may have options.
        cluster: whether there are several engines.

    Raises InvalidRequest for what cannot be compared; whether there are such policies is found later.
    """
    found: dict[str, list[str]] = {}
    for text in asked:
        family, equals, names = text.partition("=")
        family = family.strip().replace("-", "_")
        if not equals or family not in FAMILIES:
            raise InvalidRequest(
                f"--compare is {text!r}",
                hint=f"give FAMILY=NAME,NAME with FAMILY one of {', '.join(FAMILIES)}",
                param="compare",
            )
        if family in found:
            raise InvalidRequest(
                f"--compare names {family} twice", hint="give its names in one list", param="compare"
            )
        if family in _OF_CLUSTERS and not cluster:
            raise InvalidRequest(
                f"--compare {family} needs several engines", hint="add --cluster FILE", param="compare"
            )
        found[family] = list(dict.fromkeys(choices(names)))
    rows = [Row(dict(zip(found, names, strict=True))) for names in itertools.product(*found.values())]
    if len(rows) > _MOST:
        raise InvalidRequest(
            f"--compare asks for {len(rows)} simulations, at most {_MOST} are made",
            hint="name fewer policies",
            param="compare",
        )
    return rows


def compare(
    rows: Sequence[Row],
    replay_of: Callable[[Row], Replay],
    items: Sequence[TraceItem],
    *,
    rates: Sequence[float] | None,
    share: float,
    tell: Callable[[str], None],
) -> dict[str, Report | Sweep]:
    """What each row of policies makes of the load: its report, or with `rates` its sweep."""
    replays = {row.name: replay_of(row) for row in rows}  # a misspelt name is told before anything runs
    found: dict[str, Report | Sweep] = {}
    for name, replay in replays.items():
        tell(name)
        if rates is None:
            found[name] = replay(items, None)
        else:
            found[name] = sweep(items, rates, _under(replay), share=share)
    return found


def _under(replay: Replay) -> Callable[[Sequence[TraceItem]], SimulationReport]:
    return lambda load: total_of(replay(load, None))


def total_of(report: Report) -> SimulationReport:
    """The report of all engines together."""
    return report.total if isinstance(report, FleetReport) else report


def show(
    rows: Sequence[Row], found: Mapping[str, Report | Sweep], *, as_json: bool, plot: pathlib.Path | None
) -> None:
    """Prints the comparison, and draws it where asked."""
    if plot is not None:
        draw(found, plot)
    if as_json:
        print_json([{"policies": dict(row.policies), **found[row.name].to_dict()} for row in rows])
        return
    swept = {name: one for name, one in found.items() if isinstance(one, Sweep)}
    if swept:
        rates = [rate for rate, _ in next(iter(swept.values())).points]
        columns = ("policies", "knee/s", *(f"goodput at {rate:g}/s" for rate in rates))
        print_table(columns, [_sweep_row(name, one) for name, one in swept.items()], empty="no policies")
        share = next(iter(swept.values())).share
        typer.echo(f"\nknee  the most requests/s at which {share:.0%} of them meet the objective")
        return
    reports = {name: one for name, one in found.items() if not isinstance(one, Sweep)}
    runs = any(total_of(one).run_seconds for one in reports.values())
    cost = any(isinstance(one, FleetReport) and one.cost for one in reports.values())
    columns = (
        *("policies", "completed", "within objective", "p95 first token", "p95 between", "p95 request"),
        *(("mean run", "p95 run") if runs else ()),
        *("tokens/s", "cached", "preemptions"),
        *(("cost",) if cost else ()),
    )
    table = [_report_row(name, one, runs=runs, cost=cost) for name, one in reports.items()]
    print_table(columns, table, empty="no policies")


def _report_row(name: str, report: Report, *, runs: bool, cost: bool) -> tuple[object, ...]:
    total = total_of(report)
    prompt = sum(record.item.prompt_tokens for record in total.completed)
    cached = sum(record.cached_tokens for record in total.completed)
    return (
        name,
        f"{len(total.completed)} of {len(total.records)}",
        f"{total.attainment:.1%}",
        duration(total.ttft.p95),
        duration(total.inter_token.p95),
        duration(total.completion.p95),
        *((duration(total.run_completion.mean), duration(total.run_completion.p95)) if runs else ()),
        f"{total.throughput_tokens_per_s:.1f}",
        f"{cached / prompt if prompt else 0:.1%}",
        sum(record.preemptions for record in total.records),
        *((f"{report.cost:.4g}" if isinstance(report, FleetReport) else "-",) if cost else ()),
    )


def _sweep_row(name: str, found: Sweep) -> tuple[object, ...]:
    if found.knee_per_s is None:
        knee = f"below {found.points[0][0]:g}"
    else:
        knee = f"{found.knee_per_s:.3g}" if found.bounded else f"above {found.knee_per_s:g}"
    return (name, knee, *(f"{report.goodput_per_s:.3f}" for _, report in found.points))


def draw(found: Mapping[str, Report | Sweep], path: pathlib.Path) -> None:
    """Writes the comparison as an SVG: attainment over rate, or which share completed within which time.

    Raises InvalidRequest where the file cannot be written.
    """
    lines: dict[str, Points] = {name: list(_line(one)) for name, one in found.items()}
    if any(isinstance(one, Sweep) for one in found.values()):
        chart = line_chart("Requests within the objective", "requests per second", "share", lines)
    else:
        whole = all(total_of(one).run_seconds for one in found.values() if not isinstance(one, Sweep))
        what = "runs" if whole else "requests"
        chart = line_chart(f"Completed {what}", "seconds from arrival to the last token", "share", lines)
    try:
        path.write_text(chart, encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(
            f"cannot write {str(path)!r}: {error.strerror}", hint="give --plot another place", param="plot"
        ) from error
    note(f"written to {path}")


def _line(found: Report | Sweep) -> Iterator[tuple[float, float]]:
    if isinstance(found, Sweep):
        yield from ((rate, report.attainment) for rate, report in found.points)
        return
    total = total_of(found)
    values = list(total.run_seconds.values()) or [record.completion_s for record in total.completed]
    yield from cumulative(values)
