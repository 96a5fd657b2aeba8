"""Verbs about long-term memory: list, search, correct, forget, export."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pentad.application.cli.data import Output, Yes, agree, data_settings, open_journal, write_lines
from pentad.application.cli.options import COMMON, MODELS, number, with_settings
from pentad.application.cli.output import plain, print_json, print_table
from pentad.application.cli.settings import JsonOption

if TYPE_CHECKING:
    from pentad.agent.memory.records import Memory

Tenant = Annotated[str | None, typer.Option("--tenant", help="Only of this tenant.")]
Agent = Annotated[str | None, typer.Option("--agent", help="Only what this agent remembered.")]


def register(app: typer.Typer) -> None:
    memory = typer.Typer(help="See what agents remember beyond a run, and forget it.", no_args_is_help=True)
    memory.command("list")(memory_list)
    memory.command("search")(memory_search)
    memory.command("correct")(memory_correct)
    memory.command("forget")(memory_forget)
    memory.command("export")(memory_export)
    app.add_typer(memory, name="memory", rich_help_panel="Agents")


@with_settings(COMMON)
def memory_list(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    tenant: Tenant = None,
    agent: Agent = None,
    kind: Annotated[
        Literal["preference", "fact", "episode"] | None, typer.Option("--kind", help="Only of this kind.")
    ] = None,
    limit: Annotated[int, number("--limit", "Most items to list.", least=1)] = 50,
    json: JsonOption = False,
) -> None:
    """List what agents remember beyond a run, newest first, of all tenants."""
    from pentad.agent.memory.records import memories

    path = data_settings(flags, config).memory_path
    found = memories(path, tenant=tenant, agent=agent, kind=kind, limit=limit)
    _print_memories(found, json)


@with_settings(COMMON, MODELS)
def memory_search(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    cue: Annotated[str, typer.Argument(metavar="TEXT", help="What it is about.")],
    tenant: Annotated[str, typer.Option("--tenant", help="Whose memories.")] = "default",
    agent: Agent = None,
    limit: Annotated[int, number("--limit", "Most items to show.", least=1, most=100)] = 10,
    json: JsonOption = False,
) -> None:
    """Recall what a run would recall to a text, best first, with its score. Uses the embedding model."""
    import asyncio

    from pentad.application.cli.recollection import recalled

    found = asyncio.run(recalled(data_settings(flags, config), cue, tenant=tenant, agent=agent, k=limit))
    if json:
        print_json([_item_summary(r.item) | {"score": r.score} for r in found])
        return
    rows = [(r.item.id, r.item.kind, round(r.score, 3), _first_line(r.item.text)) for r in found]
    print_table(("memory", "kind", "score", "text"), rows, empty="nothing is remembered about that")


@with_settings(COMMON, MODELS)
def memory_correct(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    memory: Annotated[str, typer.Argument(metavar="MEMORY", help="Id, as memory list shows it.")],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What holds in its place.")],
    tenant: Annotated[str, typer.Option("--tenant", help="Whose memory.")] = "default",
    json: JsonOption = False,
) -> None:
    """Put a text in the place of an item, which is kept and no longer recalled. Uses the embedding model."""
    import asyncio

    from pentad.application.cli.recollection import corrected

    settings = data_settings(flags, config)
    ident = asyncio.run(corrected(settings, memory, text, tenant=tenant))
    if json:
        print_json({"corrected": memory, "by": ident})
        return
    typer.echo(ident)


@with_settings(COMMON)
def memory_forget(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    memories: Annotated[list[str], typer.Argument(metavar="MEMORY", help="Ids, as memory list shows them.")],
    tenant: Tenant = None,
    with_runs: Annotated[
        bool,
        typer.Option(
            "--with-runs", help="Also remove the runs that told or recalled them, and what those left."
        ),
    ] = False,
    yes: Yes = False,
    json: JsonOption = False,
) -> None:
    """Forget items for ever, with their versions and what was made of them: text, index and vector.

    Runs that recalled them keep what they recalled, unless --with-runs removes those runs too.
    """
    from pentad.agent.forgetting import Traces, forget_everywhere, traces
    from pentad.agent.memory.records import forget

    settings = data_settings(flags, config)
    if with_runs:
        with open_journal(settings) as journal:
            found = traces(journal, settings.memory_path, memories, tenant=tenant or "default")
            agree(f"Forget {len(found.memories)} items and remove {len(found.runs)} runs for ever?", yes)
            gone = forget_everywhere(journal, settings.memory_path, memories, tenant=tenant or "default")
    else:
        agree(f"Forget {len(memories)} items for ever, with their versions and what was made of them?", yes)
        gone = Traces(memories=tuple(forget(settings.memory_path, memories, tenant=tenant)), runs=())
    if json:
        print_json({"forgotten": gone.memories} | ({"removed": gone.runs} if with_runs else {}))
        return
    typer.echo(f"{len(gone.memories)} forgotten" + (f", {len(gone.runs)} runs removed" if with_runs else ""))


@with_settings(COMMON)
def memory_export(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    tenant: Tenant = None,
    agent: Agent = None,
    output: Output = None,
) -> None:
    """Write what agents remember as JSON lines, oldest first."""
    from pentad.agent.memory.records import memories

    found = memories(data_settings(flags, config).memory_path, tenant=tenant, agent=agent)
    write_lines(map(_memory_summary, reversed(found)), output)


def _print_memories(found: Sequence[Memory], as_json: bool) -> None:
    if as_json:
        print_json([_memory_summary(memory) for memory in found])
        return
    rows = [(m.item.id, m.tenant, m.agent, m.item.kind, _first_line(m.item.text)) for m in found]
    print_table(("memory", "tenant", "agent", "kind", "text"), rows, empty="nothing is remembered yet")


def _memory_summary(memory: Memory) -> dict[str, Any]:
    return {"tenant": memory.tenant, "agent": memory.agent} | _item_summary(memory.item)


def _item_summary(item: Any) -> dict[str, Any]:
    import dataclasses

    return dataclasses.asdict(item)


def _first_line(text: str) -> str:
    line = plain(" ".join(text.split()))
    return line if len(line) <= 60 else line[:59] + "…"
