"""`pentad train-retriever`: what an agent's tool policy `learned` finds tools by."""

from __future__ import annotations

import pathlib
from typing import Annotated, Any

import typer

from pentad.application.cli.agents import Agent
from pentad.application.cli.options import AGENTS, COMMON, MODELS, number, settings_of, with_settings
from pentad.application.cli.output import print_json, progress_bar
from pentad.application.cli.settings import JsonOption


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command("train-retriever", rich_help_panel="Agents")(train_retriever)


@with_settings(COMMON, MODELS, AGENTS)
def train_retriever(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    agent: Agent,
    calls: Annotated[
        pathlib.Path,
        typer.Argument(metavar="CALLS", help="JSON lines with `input` and `calls`, each call with `name`."),
    ],
    out: Annotated[pathlib.Path, typer.Option("--out", metavar="FILE", help="Where the head is kept.")],
    steps: Annotated[int, number("--steps", "Steps of training, at most.", least=1, most=10**5)] = 60,
    seed: Annotated[int, number("--seed", "Of what is held out.", least=0, most=2**31)] = 0,
    json: JsonOption = False,
) -> None:
    """Train the retriever of an agent's tools on solved calls, for tool_policy learned:file=FILE.

    It learns over the vectors of the embedding model that is served, and on one tool in five that is held out
    it finds out how many steps are worth making.
    """
    import asyncio

    from pentad.agent.example_lines import solved_calls
    from pentad.agent.tool_listing import tools_of
    from pentad.agent.tools.logins import Logins
    from pentad.agent.tools.pins import ToolPins
    from pentad.agent.tools.policy.training import trained
    from pentad.application.cli.agents import chosen_agent
    from pentad.application.cli.approving import allow_programs
    from pentad.application.cli.recollection import relevance_alone
    from pentad.model.relevance_head import write_head

    settings = settings_of(flags, config, quiet=True)
    chosen = chosen_agent(settings, agent)
    solved_calls(str(calls), "CALLS")  # refused before anything is loaded
    allow_programs(settings, chosen.spec, agent)
    with progress_bar(f"train {out.name}") as bar:

        async def work() -> Any:
            tools = await tools_of(
                chosen.spec,
                pins=ToolPins(settings.approvals_path),
                logins=Logins(settings.logins_path),
                commands=settings.mcp_commands,
            )
            relevance = relevance_alone(settings)
            return await trained(str(calls), tools, relevance, steps=steps, seed=seed, tell=bar)

        made = asyncio.run(work())
    write_head(out, made.head)
    told = {
        "path": str(out),
        "encoder": made.head.encoder,
        "tools": made.tools,
        "examples": made.head.examples,
        "steps": made.head.steps,
        "first_before": made.first_before,
        "first_after": made.first_after,
    }
    if json:
        print_json(told)
        return
    typer.echo(f"{out}  {made.head.examples} requests  {made.tools} tools  {made.head.steps} steps")
    typer.echo(
        f"the right tool is nearest for {made.first_before:.1%} of them before, {made.first_after:.1%} after"
    )
