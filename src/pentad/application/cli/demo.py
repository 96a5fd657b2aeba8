"""`pentad demo`: the shipped agent at work, with the models that it needs brought first."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pentad.application.cli.options import COMMON, ENGINE, settings_of, with_settings
from pentad.application.cli.output import note, progress_bar, size
from pentad.application.cli.settings import JsonOption

if TYPE_CHECKING:
    from pentad.application.config import Settings

GOAL = "What is 347 times 28, and which weekday is 2026-12-25?"


def register(app: typer.Typer) -> None:
    app.command("demo", rich_help_panel="Serve and talk")(demo)


@with_settings(COMMON, ENGINE)
def demo(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    goal: Annotated[str, typer.Argument(help="What the agent is to do.", show_default=False)] = GOAL,
    json: JsonOption = False,
) -> None:
    """Show an agent plan, use tools and answer on the default model, which is brought if it is not here."""
    import asyncio

    from pentad.agent.loading import load_agent
    from pentad.application.cli.running import run_agent

    settings = settings_of(flags, config, quiet=True)
    bring(settings)
    raise typer.Exit(asyncio.run(run_agent(settings, load_agent("demo"), goal, as_json=json)))


def bring(settings: Settings) -> None:
    """Pulls the models that the settings name and the store lacks, saying so on standard error."""
    from pentad.application.folders import use_home
    from pentad.errors import ModelNotFound
    from pentad.model.store import ModelStore

    store = ModelStore(use_home(settings))
    for name in (*settings.models, settings.embedding_model):
        if name is None:
            continue
        try:
            store.resolve(name)
        except ModelNotFound:
            note(f"bringing {name}, once ...")
            with progress_bar(f"pull {name}", in_bytes=True) as bar:
                stored = store.pull(name, bar)
            note(f"{name}: {size(stored.size_bytes)} in {stored.path}")
