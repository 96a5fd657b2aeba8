"""`pentad train-policy`: an offload policy that learns, in a scenario of moving devices and edge machines."""

from __future__ import annotations

import pathlib
from typing import Annotated, Any

import typer

from pentad.application.cli.options import COMMON, number, with_settings
from pentad.application.cli.output import print_json, progress_bar
from pentad.application.cli.settings import JsonOption


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command("train-policy", rich_help_panel="Machines")(train_policy)


@with_settings(COMMON)
def train_policy(
    flags: dict[str, Any],  # noqa: ARG001 - the settings that every verb takes
    config: pathlib.Path | None,  # noqa: ARG001
    strategy: Annotated[str, typer.Argument(metavar="POLICY", help="Offload policy that learns.")],
    out: Annotated[pathlib.Path, typer.Option("--out", metavar="FILE", help="Where the policy is kept.")],
    scenario: Annotated[
        str | None, typer.Option("--scenario", metavar="NAME", help="Absent: the policy's own.")
    ] = None,
    steps: Annotated[int, number("--steps", "Choices to learn from.", least=1, most=10**7)] = 4000,
    seed: Annotated[int, number("--seed", "Of worlds and weights.", least=0, most=99_999)] = 0,
    json: JsonOption = False,
) -> None:
    """Train an offload policy, for --offload POLICY:policy=FILE: deep-q, replay-groups, test-time or cnc.

    Interrupted, the same call goes on at its last whole episode.
    """
    import msgspec

    from pentad.resource.offloading.learning import trained_strategies
    from pentad.resource.offloading.learning.policy_file import write_policy
    from pentad.resource.offloading.learning.training import train_policy as training

    plan = trained_strategies.plan(strategy, scenario=scenario, steps=steps, seed=seed)
    checkpoint = trained_strategies.checkpoint_of(out)
    with progress_bar(f"train {strategy}") as bar:
        policy = training(plan, checkpoint=checkpoint, tell=bar)
    write_policy(out, policy)
    checkpoint.unlink(missing_ok=True)
    if json:
        told = msgspec.to_builtins(policy)
        print_json({k: v for k, v in told.items() if k not in ("matrices", "biases")} | {"path": str(out)})
        return
    first, best = policy.curve[0], min(policy.curve, key=lambda point: point.cost)
    typer.echo(f"{strategy}  {policy.scenario}  {policy.steps} choices  {out}")
    typer.echo(
        f"cost of a request {first.cost:.3f} after {first.step} choices, {best.cost:.3f} after {best.step}"
    )
