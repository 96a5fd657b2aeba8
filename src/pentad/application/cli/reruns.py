"""Verbs that make a run out of another: fork, replay."""

from __future__ import annotations

import pathlib
from typing import Annotated, Any

import typer

from pentad.application.cli.agents import of_members, serving_only
from pentad.application.cli.options import (
    AGENTS,
    COMMON,
    ENGINE,
    MODELS,
    TELEMETRY,
    number,
    settings_of,
    with_settings,
)
from pentad.application.cli.runs import RunId, journal_of
from pentad.application.cli.settings import JsonOption


@with_settings(COMMON, MODELS, AGENTS, ENGINE, TELEMETRY)
def runs_fork(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    run: RunId,
    step: Annotated[int, number("--step", "First step to do anew.", least=1)],
    goal: Annotated[str | None, typer.Option("--goal", help="In place of the old goal.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Model to think with.")] = None,
    json: JsonOption = False,
) -> None:
    """Start a run that has done what another had before a step. Effects of before are not made again."""
    import asyncio

    from pentad.agent.state import fold
    from pentad.application.cli.running import fork_run

    with journal_of(flags, config) as journal:
        state = fold(journal.read(run))
    settings = serving_only(
        settings_of(flags, config, quiet=True), model or state.spec.model, *of_members(state.spec)
    )
    done = fork_run(settings, run, step, goal=goal, model=model, tenant=state.tenant, as_json=json)
    raise typer.Exit(asyncio.run(done))


@with_settings(COMMON, MODELS, AGENTS, ENGINE, TELEMETRY)
def runs_replay(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    run: RunId,
    model: Annotated[str | None, typer.Option("--model", help="Model to think with.")] = None,
    policy: Annotated[
        str | None,
        typer.Option("--policy", help="Router to decide anew by, from the record alone.", metavar="NAME"),
    ] = None,
    objectives: Annotated[
        bool, typer.Option("--objectives", help="What five objectives would have chosen in each layer.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Run an agent again in the record of a run: its tools answer as they did, and nothing is done.

    With --policy no model is asked: each recorded decision is made once more by that router, written
    NAME or NAME:OPTION=VALUE,..., and what it would have come to is estimated. With --objectives its first
    decision is made for the fastest, the best, the cheapest and the greenest answer, and for the best one
    that stays on this machine.
    """
    import asyncio

    from pentad.agent.state import fold
    from pentad.application.cli.running import replay_run

    with journal_of(flags, config) as journal:
        records = journal.read(run)
        state = fold(records)
    if objectives:
        from pentad.application.cli.policy_replay import show_objectives

        show_objectives(records, policy or "elastic", as_json=json)
        return
    if policy is not None:
        from pentad.application.cli.policy_replay import show_replay

        show_replay(records, policy, as_json=json)
        return
    settings = serving_only(
        settings_of(flags, config, quiet=True), model or state.spec.model, *of_members(state.spec)
    )
    done = replay_run(settings, run, model=model, tenant=state.tenant, as_json=json)
    raise typer.Exit(asyncio.run(done))
