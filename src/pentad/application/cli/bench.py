"""Verbs that measure: bench engine, serve, agents, elastic, routing, sessions, peers."""

from __future__ import annotations

import pathlib
from typing import Annotated, Any

import typer

from pentad.application.cli import bench_elastic as elastic_verbs
from pentad.application.cli import bench_load as load_verbs
from pentad.application.cli import bench_routing as routing_verbs
from pentad.application.cli import bench_sessions as session_verbs
from pentad.application.cli.bench_output import Json, Out, finish, numbers
from pentad.application.cli.options import COMMON, ENGINE, number, settings_of, with_settings
from pentad.application.cli.output import note, print_table, progress_bar, size, working

_RUNNER = tuple(
    flag for flag in ENGINE if flag.name not in ("backend", "max_waiting", "check_invariants", "prefix_cache")
)
"""The settings that change what `bench engine` measures."""

PromptTokens = Annotated[int, number("--prompt-tokens", "Of the timed prefill.", least=1)]
NewTokens = Annotated[int, number("--new-tokens", "Timed decode steps.", least=1)]
Batch = Annotated[str, typer.Option("--batch", help="Sequences at once, with commas.")]


def register(app: typer.Typer) -> None:
    bench = typer.Typer(help="Measure the engine, the server and their peers.", no_args_is_help=True)
    bench.command("engine")(engine)
    bench.command("serve")(load_verbs.serve)
    bench.command("agents")(load_verbs.agents)
    bench.command("elastic")(elastic_verbs.elastic)
    bench.command("routing")(routing_verbs.routing)
    bench.command("sessions")(session_verbs.sessions)
    bench.command("peers")(peers)
    app.add_typer(bench, name="bench", rich_help_panel="Machines")


@with_settings(COMMON, _RUNNER)
def engine(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    model: Annotated[str, typer.Option("--model", help="Stored model, or a file.")] = "smollm2-135m",
    prompt_tokens: PromptTokens = 512,
    new_tokens: NewTokens = 128,
    context_tokens: Annotated[
        int | None,
        number("--context-tokens", "In the cache when decoding starts. Absent: --prompt-tokens.", least=0),
    ] = None,
    batch: Batch = "1,8,32",
    rounds: Annotated[int, number("--rounds", "Medians of so many.", least=1)] = 5,
    out: Out = None,
    json: Json = False,
) -> None:
    """Measure the engine in this process: prefill, decode by batch, memory, share of the machine's limits."""
    from pentad.application.bench.engine import EngineLoad
    from pentad.application.bench.model_setup import run_engine

    load = EngineLoad(
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        context_tokens=context_tokens,
        batches=numbers(batch, "batch"),
        rounds=rounds,
    )
    settings = settings_of(flags, config, quiet=True)
    with progress_bar(f"bench engine {model}") as bar:
        result = run_engine(model, load, settings, bar)
    finish(result, out=out, json=json)
    if not json:
        _show_engine(result)


@with_settings(COMMON, _RUNNER)
def peers(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    model: Annotated[str, typer.Option("--model", help="Stored model, or a GGUF file.")] = "smollm2-135m",
    prompt_tokens: PromptTokens = 512,
    new_tokens: NewTokens = 128,
    context_tokens: Annotated[
        int, number("--context-tokens", "In the cache when decoding starts.", least=0)
    ] = 128,
    batch: Batch = "1,8,32",
    rounds: Annotated[int, number("--rounds", "Of all engines in turn; medians.", least=1)] = 5,
    only: Annotated[
        str | None, typer.Option("--only", help="Peers, with commas: llama.cpp, llama.cpp-q4_0 ...")
    ] = None,
    plot: Annotated[
        pathlib.Path | None, typer.Option("--plot", help="Draw the rates into this file.", metavar="FILE")
    ] = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Measure other engines on the same file beside ours, in turn. scripts/peers installs them."""
    from pentad.application.bench import plotting
    from pentad.application.bench.engine import EngineLoad
    from pentad.application.bench.model_setup import opened
    from pentad.application.bench.peers.comparing import compare, lines
    from pentad.application.bench.peers.known import known_peers

    if plot is not None:
        plotting.require_plotting()
    load = EngineLoad(
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        context_tokens=context_tokens,
        batches=numbers(batch, "batch"),
        rounds=rounds,
    )
    with opened(model, load, settings_of(flags, config, quiet=True)) as ours, working("bench peers") as tell:
        chosen = known_peers(ours.files, only)
        measured, theirs, absent = compare(ours.bench, chosen, load, ours.threads, tell)
        results = lines(ours.described(load, measured), theirs, chosen, absent)
    for result in results:
        finish(result, out=out, json=json)
    if plot is not None:
        plotting.plot_rates(results, plot)
    if not json:
        _show_peers(results)


def _show_peers(results: list[dict[str, Any]]) -> None:
    ours = results[0]
    batches = list(ours["decode_tokens_per_s"])
    rows = []
    for line in results:
        if "absent" in line:
            continue
        rates = [line["prefill_tokens_per_s"], *(line["decode_tokens_per_s"].get(b) for b in batches)]
        ratios = [line.get("ratio", {}).get(name) for name in ("prefill", *batches)]
        cells = [f"{r} ({x:.2f})" if x else f"{r}" for r, x in zip(rates, ratios, strict=True)]
        rows.append((line["engine"], *cells, line["form"]))
    columns = ("engine", "prefill", *(f"batch {b}" for b in batches), "form")
    typer.echo(f"{ours['model']}, tokens/s (how many times as fast Pentad is)\n")
    print_table(columns, rows, empty="")
    for line in results:
        if "absent" in line:
            note(f"{line['engine']}: {line['absent']}")


def _show_engine(result: dict[str, Any]) -> None:
    limit = result["limits"]["memory_bytes_per_s"]
    typer.echo(
        f"{result['model']}, {result['kernels']} kernels, {result['threads'] or 'auto'} threads, "
        f"context {result['context_tokens']}, KV {result['kv_dtype']}, commit {result['commit']}\n"
    )
    rows = [_phase_row("prefill", result["prompt_tokens"], result["prefill_tokens_per_s"], result)]
    for batch, rate in result["decode_tokens_per_s"].items():
        rows.append(_phase_row(batch, int(batch), rate, result))
    names = [name for phases in result["phases_ms"].values() for name in phases]
    phases = list(dict.fromkeys(names))
    print_table(("batch", "tokens/s", "ms/step", *(f"{name} ms" for name in phases)), rows, empty="")
    fraction = result["roofline_fraction"]
    typer.echo(
        f"\nroofline: {'-' if fraction is None else f'{fraction:.0%}'} of {limit / 1e9:.1f} GB/s at batch 1, "
        f"{size(result['step_bytes'])} a step; peak memory {size(result['peak_rss_bytes'])}"
    )


def _phase_row(name: str, tokens: int, rate: float, result: dict[str, Any]) -> tuple[object, ...]:
    phases = result["phases_ms"].get(name, {})
    return (name, rate, round(tokens / rate * 1e3, 2), *phases.values())
