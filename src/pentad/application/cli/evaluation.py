"""`pentad eval`: what models under strategies make of a suite, case by case and in sum."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pentad.application.cli.options import COMMON, ENGINE, MODELS, number, settings_of, with_settings
from pentad.application.cli.output import note, print_json, print_table
from pentad.application.cli.settings import JsonOption
from pentad.errors import InvalidRequest

if TYPE_CHECKING:
    from pentad.agent.evaluation.figures import Figures
    from pentad.agent.evaluation.results import CaseResult, Contender
    from pentad.agent.evaluation.summary import Summary

Repeated = list[str] | None


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command("eval", rich_help_panel="Agents")(evaluate)


@with_settings(COMMON, MODELS, ENGINE)
def evaluate(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    suite: Annotated[
        str | None, typer.Argument(metavar="[SUITE]", help="Suite, or SUITE:OPTION=VALUE,...")
    ] = None,
    model: Annotated[
        Repeated,
        typer.Option("--model", metavar="MODEL", help="Model to think with, oracle or idle; repeatable."),
    ] = None,
    planner: Annotated[
        Repeated, typer.Option("--planner", metavar="NAME", help="Planner; repeatable.")
    ] = None,
    coordinator: Annotated[
        Repeated, typer.Option("--coordinator", metavar="NAME", help="Coordinator of a team; repeatable.")
    ] = None,
    limit: Annotated[int | None, number("--limit", "Cases at most.", least=1, most=10**6)] = None,
    skip: Annotated[
        int, number("--skip", "Cases left out at the start, for a judgement on others.", least=0, most=10**6)
    ] = 0,
    at_once: Annotated[
        int,
        number("--at-once", "Cases under way at any time; above 1 without joules.", least=1, most=1024),
    ] = 1,
    seed: Annotated[int, number("--seed", "Of cases that are generated.", least=0, most=2**31)] = 0,
    data: Annotated[
        pathlib.Path | None,
        typer.Option("--data", metavar="FOLDER", help="Where the suite's data files lie."),
    ] = None,
    out: Annotated[
        pathlib.Path | None,
        typer.Option("--out", metavar="FILE", help="A line per case; cases in it are not run again."),
    ] = None,
    figures: Annotated[
        pathlib.Path | None,
        typer.Option(
            "--figures", metavar="FILE", help="Write the planner `flexible` with what was measured."
        ),
    ] = None,
    plot: Annotated[
        pathlib.Path | None, typer.Option("--plot", metavar="FILE", help="Success rates as SVG or PNG.")
    ] = None,
    list_suites: Annotated[bool, typer.Option("--list", help="List the suites.")] = False,
    json: JsonOption = False,
) -> None:
    """Evaluate models under strategies on a suite of cases whose outcome is judged without asking anybody.

    The model `oracle` plays what solves each case, and `idle` nothing: they show that a suite is sound.
    """
    import asyncio

    from pentad.agent.evaluation.base import CaseSource
    from pentad.agent.evaluation.results import ResultFile
    from pentad.application.cli.agents import serving_only
    from pentad.application.evaluation import Order, figures_of
    from pentad.application.evaluation import evaluate as work

    if list_suites:
        _list(as_json=json)
        return
    if suite is None or not model:
        missing, hint = ("suite", "--list shows them") if suite is None else ("model", "give --model")
        raise InvalidRequest(f"no {missing} is named", hint=hint, param=missing)
    if plot is not None:
        from pentad.application.bench.plotting import require_plotting

        require_plotting()
    settings = settings_of(flags, config, quiet=True)
    order = Order(
        suite=suite,
        models=model,
        planners=planner or (),
        coordinators=coordinator or (),
        source=CaseSource(data=data, seed=seed, limit=limit),
        skip=skip,
        at_once=at_once,
    )
    if figures is not None and len(model) > 1:
        raise InvalidRequest("figures are those of one model", hint="give --model once", param="figures")
    results = ResultFile(out)
    lines = asyncio.run(work(order, lambda name: serving_only(settings, name), results, _tell))
    if figures is not None:
        _write_figures(figures_of(order, results)[model[0]], figures)
    if plot is not None:
        from pentad.application.bench.plotting import plot_successes

        plot_successes(lines, plot)
    if json:
        print_json([dataclasses.asdict(line) for line in lines])
        return
    print_table(
        (
            "model",
            "planner",
            "coordinator",
            "cases",
            "success",
            "95%",
            "score",
            "tokens",
            "seconds",
            "joules",
        ),
        [_row(line) for line in lines],
        empty="no results",
    )
    note("tokens, seconds and joules are per success")
    if at_once == 1 and any(line.joules_per_success is None and line.successes for line in lines):
        note("joules are absent where this machine shows no energy counter that may be read")


def _write_figures(measured: Figures, path: pathlib.Path) -> None:
    """The planner as an agent file takes it."""
    import yaml

    by_cost = sorted(measured, key=lambda planner: max(tokens for _, tokens in measured[planner].values()))
    levels = {planner: {k: list(v) for k, v in measured[planner].items()} for planner in by_cost}
    planner = {"name": "flexible", "options": {"among": by_cost, "measured": levels}}
    path.write_text(
        yaml.safe_dump({"planner": planner}, sort_keys=False, default_flow_style=None, width=100), "utf-8"
    )


def _row(line: Summary) -> tuple[object, ...]:
    low, high = line.success_interval
    amounts = (line.tokens_per_success, line.seconds_per_success, line.joules_per_success)
    return (
        line.model,
        line.planner,
        line.coordinator,
        line.cases,
        f"{line.success_rate:.1%}",
        f"{low:.1%} to {high:.1%}",
        f"{line.mean_score:.3f}",
        *(None if amount is None else f"{amount:.4g}" for amount in amounts),
    )


def _tell(who: Contender, done: int, total: int, result: CaseResult | None) -> None:
    """Progress, a line a case."""
    about = f"{who.model}, {who.planner}"
    if result is None:
        note(f"{about}: {done} of {total} cases are done already" if done else f"{about}: {total} cases")
        return
    note(
        f"{done}/{total} {result.case}: {'success' if result.success else result.about} ({result.seconds} s)"
    )


def _list(*, as_json: bool) -> None:
    from pentad import registry
    from pentad.application.cli.strategies import describe

    found = []
    for name in registry.known("suite"):
        kind = registry.load("suite", name)
        about = describe("suite", name)["about"]
        found.append({"name": name, "about": about, "files": list(kind.files), "extra": kind.extra or None})
    if as_json:
        print_json(found)
        return
    rows = [
        (each["name"], ", ".join(each["files"]) or "none", each["extra"], each["about"]) for each in found
    ]
    print_table(("suite", "data files", "extra", "about"), rows, empty="no suites")
