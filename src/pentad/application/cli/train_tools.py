"""`pentad train-tools`: functions that a model writes for an agent, from what came of its runs."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Annotated, Any

import typer

from pentad.application.cli.agents import Agent
from pentad.application.cli.options import AGENTS, COMMON, ENGINE, MODELS, number, settings_of, with_settings
from pentad.application.cli.output import note, plain, print_json
from pentad.application.cli.settings import JsonOption
from pentad.errors import InvalidRequest, Unavailable


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command("train-tools", rich_help_panel="Agents")(train_tools)


@with_settings(COMMON, MODELS, AGENTS, ENGINE)
def train_tools(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    agent: Agent,
    cases: Annotated[
        pathlib.Path, typer.Argument(metavar="CASES", help="JSON lines with `input` and the right `output`.")
    ],
    functions: Annotated[
        pathlib.Path | None,
        typer.Option(
            "--functions",
            metavar="FILE",
            help="Where versions are kept. Absent: AGENT.functions.json beside it.",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Model to think with.")] = None,
    optimizer: Annotated[
        str | None, typer.Option("--optimizer", metavar="MODEL", help="Model that edits. Absent: the same.")
    ] = None,
    epochs: Annotated[int, number("--epochs", "Rounds of edits, at most.", least=1, most=1000)] = 5,
    patience: Annotated[
        int, number("--patience", "Rounds without a gain, after which it ends.", least=1, most=1000)
    ] = 2,
    edits: Annotated[int, number("--edits", "Edits of a round, at most.", least=1, most=20)] = 3,
    json: JsonOption = False,
) -> None:
    """Have a model edit an agent's functions, tried on cases; edits that harm are rolled back.

    Weights stay as they are. The functions run in the agent's sandbox. Interrupted, the same call goes on
    from the version that was kept last.
    """
    import asyncio

    from pentad.agent.tool_training.cases import solvable_cases
    from pentad.agent.tool_training.trainer import Epoch, ToolTrainer, TrainedTools
    from pentad.agent.tools.function_files import ENDING
    from pentad.application import wiring
    from pentad.application.cli.agents import chosen_agent, of_members, serving_only
    from pentad.application.cli.approving import allow_programs

    settings = settings_of(flags, config, quiet=True)
    chosen = chosen_agent(settings, agent)
    path = functions or _beside(agent, ENDING)
    if not path.name.endswith(ENDING):
        raise InvalidRequest(f"{str(path)!r} is no name of a function file", hint=f"end it in {ENDING}")
    known = solvable_cases(str(cases))
    allow_programs(settings, chosen.spec, agent)
    own = model or chosen.spec.model
    others = (*of_members(chosen.spec), *((optimizer,) if optimizer else ()))
    serving = serving_only(chosen.settings, own, *others)
    # What is served alone is the default, by whatever name it was asked for.
    spec = dataclasses.replace(chosen.spec, model=own if others else "")

    def tell(epoch: Epoch) -> None:
        what = ", ".join(epoch.edits) or "as they are"
        note(f"version {epoch.version}: {what}: {epoch.solved} of {epoch.cases} solved, {epoch.outcome}")

    async def work() -> TrainedTools:
        async with wiring.build(serving) as services:
            if services.agents is None:
                raise Unavailable("this configuration runs no agents")
            trainer = ToolTrainer(
                services.agents,
                spec,
                known,
                path,
                model=optimizer or "",
                epochs=epochs,
                patience=patience,
                edits=edits,
                tell=tell,
            )
            return await trainer.train()

    made = asyncio.run(work())
    if json:
        print_json({"path": str(path), **dataclasses.asdict(made)})
        return
    typer.echo(
        plain(
            f"{path}  version {made.current}  {made.initial.solved} of {made.initial.cases} cases solved "
            f"before, {made.solved} after; {made.why}"
        )
    )


def _beside(agent: str, ending: str) -> pathlib.Path:
    file = pathlib.Path(agent)
    return file.with_name(f"{file.stem}{ending}")
