"""Verbs that load a server: bench serve, bench agents."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pentad.application.cli.bench_output import Json, Out, finish, numbers
from pentad.application.cli.options import COMMON, ENGINE, number, settings_of, with_settings
from pentad.application.cli.output import print_table, size, working

if TYPE_CHECKING:
    from pentad.application.bench.answers import Slo
    from pentad.application.bench.plans import ChatLoad
    from pentad.application.bench.servers import Server
    from pentad.application.config import Settings

_SERVED = tuple(flag for flag in ENGINE if flag.name not in ("backend", "check_invariants"))
_DEADLINE_S = 900.0
_COLUMNS = (
    "server",
    "at once",
    "tokens/s",
    "decoding/s",
    "of engine",
    "TTFT p50/p95 ms",
    "between p50/p95 ms",
    "good",
    "run s",
    "peak",
    "client",
)

Model = Annotated[str, typer.Option("--model", help="Stored model, or a file, to serve.")]
Url = Annotated[
    list[str] | None,
    typer.Option("--url", help="A server that runs already, in place of ours unless --ours; repeatable."),
]
ApiKey = Annotated[str | None, typer.Option("--api-key", envvar="PENTAD_API_KEY", help="Of those servers.")]
Ours = Annotated[bool, typer.Option("--ours", help="Ours too, in turn with those of --url.")]
Beside = Annotated[
    bool, typer.Option("--llama-cpp", help="llama.cpp's server on the same file too, in turn with ours.")
]
SystemTokens = Annotated[int, number("--system-tokens", "About; of the shared system prompt.", least=0)]
Rounds = Annotated[int, number("--rounds", "Medians of so many.", least=1)]
TtftSlo = Annotated[float | None, number("--ttft-slo", "Seconds to the first token, for goodput.", least=0)]
ItlSlo = Annotated[float | None, number("--itl-slo", "Mean seconds between tokens, for goodput.", least=0)]


@dataclass(frozen=True, slots=True)
class _Target:
    """Which servers are loaded."""

    model: str
    urls: tuple[str, ...]
    """Servers that run already."""
    api_key: str | None
    ours: bool
    """Whether our own is started."""
    llama_cpp: bool
    settings: Settings
    flags: dict[str, Any]
    """As given, to be handed on to our server."""


def _target(
    model: str,
    url: list[str] | None,
    api_key: str | None,
    ours: bool,
    llama_cpp: bool,
    flags: dict[str, Any],
    config: pathlib.Path | None,
) -> _Target:
    """Our own server is loaded where no other is named, or where it is asked for as well."""
    settings = settings_of(flags, config, quiet=True)
    return _Target(model, tuple(url or ()), api_key, ours or not url, llama_cpp, settings, flags)


@with_settings(COMMON, _SERVED)
def serve(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    model: Model = "smollm2-135m",
    url: Url = None,
    api_key: ApiKey = None,
    ours: Ours = False,
    llama_cpp: Beside = False,
    concurrency: Annotated[str, typer.Option("--concurrency", help="Chats at once, with commas.")] = "8,32",
    per_client: Annotated[int, number("--per-client", "Chats of each, one after the other.", least=1)] = 2,
    system_tokens: SystemTokens = 1000,
    user_tokens: Annotated[int, number("--user-tokens", "About; of each question.", least=1)] = 24,
    new_tokens: Annotated[int, number("--new-tokens", "Of each answer.", least=1)] = 128,
    trace: Annotated[
        pathlib.Path | None, typer.Option("--trace", help="Arrivals of an Azure .csv or Mooncake .jsonl.")
    ] = None,
    limit: Annotated[int, number("--limit", "First requests of the trace.", least=1)] = 50,
    rate: Annotated[float, number("--rate", "How many times as fast the trace arrives.", above=0)] = 1.0,
    ttft_slo: TtftSlo = None,
    itl_slo: ItlSlo = None,
    rounds: Rounds = 3,
    out: Out = None,
    json: Json = False,
) -> None:
    """Measure a server through HTTP with streaming: latencies, rates, goodput, share of the raw engine."""
    from pentad.application.bench.answers import Slo
    from pentad.application.bench.plans import ChatLoad
    from pentad.resource.simulator import read_trace

    target = _target(model, url, api_key, ours, llama_cpp, flags, config)
    load = ChatLoad(
        system_tokens=system_tokens,
        user_tokens=user_tokens,
        new_tokens=new_tokens,
        per_client=per_client,
        arrivals=read_trace(trace, limit=limit, rate_scale=rate) if trace else (),
    )
    slo = Slo(ttft_s=ttft_slo, itl_s=itl_slo)
    for level in (limit,) if trace else numbers(concurrency, "concurrency"):
        results = _serve_at(level, load, target, rounds, slo)
        _finish(results, "serve", {"trace": trace and trace.name, "system_tokens": system_tokens}, out, json)


def _serve_at(level: int, load: ChatLoad, target: _Target, rounds: int, slo: Slo) -> list[dict[str, Any]]:
    """One level of concurrency on every server, with the raw engine in between where the server is ours."""
    from pentad.application.bench import serving
    from pentad.application.bench.beside import RawEngine, no_engine

    raw = no_engine()
    if target.ours and not load.arrivals:
        raw = RawEngine.opened(
            target.model,
            target.settings,
            batch=level,
            new_tokens=load.new_tokens,
            shared_tokens=load.system_tokens,
            context_tokens=load.system_tokens + load.user_tokens + load.new_tokens // 4,
        )
    with raw as engine, _servers(target, level, load.longest) as servers, working("bench serve") as tell:
        results = serving.measure(
            servers,
            lambda number: load.runs(level, number),
            concurrency=level,
            rounds=rounds,
            slo=slo,
            deadline_s=_DEADLINE_S,
            between=engine.round,
            tell=tell,
        )
    for result in results:
        if result["server"] == "pentad":
            result |= engine.shares(result["decode_tokens_per_s"])
    return results


@with_settings(COMMON, _SERVED)
def agents(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    model: Model = "smollm2-135m",
    url: Url = None,
    api_key: ApiKey = None,
    ours: Ours = False,
    llama_cpp: Beside = False,
    runs: Annotated[int, number("--runs", "Runs at once.", least=1)] = 6,
    turns: Annotated[int, number("--turns", "Least turns of a run; short traces repeat.", least=1)] = 6,
    traces: Annotated[
        pathlib.Path | None,
        typer.Option(
            "--traces", help="Folder of agent traces (OpenTelemetry GenAI). Absent: a built-in run."
        ),
    ] = None,
    system_tokens: SystemTokens = 1000,
    ttft_slo: TtftSlo = None,
    itl_slo: ItlSlo = None,
    rounds: Rounds = 3,
    out: Out = None,
    json: Json = False,
) -> None:
    """Measure agent-shaped load: runs of several turns, tool pauses, a shared prefix; mean run completion."""
    from pentad.application.bench import plans, serving
    from pentad.application.bench.answers import Slo

    shapes = plans.read_agent_traces(traces, min_turns=turns) if traces else [list(plans.BUILTIN_TURNS)]
    longest = 2 * system_tokens + max(sum(len(u) // 2 + t for u, _, t in shape) for shape in shapes) + 256
    target = _target(model, url, api_key, ours, llama_cpp, flags, config)
    with _servers(target, runs, longest) as servers, working("bench agents") as tell:
        results = serving.measure(
            servers,
            lambda number: plans.agent_runs(runs, turns=shapes, system_tokens=system_tokens, seed=number),
            concurrency=runs,
            rounds=rounds,
            slo=Slo(ttft_s=ttft_slo, itl_s=itl_slo),
            deadline_s=_DEADLINE_S,
            between=lambda: None,
            tell=tell,
        )
    _finish(results, "agents", {"traces": traces and traces.name, "system_tokens": system_tokens}, out, json)


@contextlib.contextmanager
def _servers(target: _Target, concurrency: int, longest: int) -> Iterator[list[Server]]:
    """Our own first, then those that run already, and llama.cpp's where asked."""
    from pentad.application.bench import beside, servers

    with contextlib.ExitStack() as undo:
        found = []
        if target.ours:
            options = serve_options(target.flags)
            if "max_sequences" not in target.flags:
                most = max(target.settings.engine.max_sequences, concurrency)
                options += ["--max-sequences", str(most)]
            found.append(undo.enter_context(servers.pentad(target.model, options)))
        found += [servers.running(one, target.api_key) for one in target.urls]
        if target.llama_cpp:
            found += [
                undo.enter_context(one)
                for one in beside.llama_servers(
                    target.model, target.settings, slots=concurrency, context=longest
                )
            ]
        yield found


def serve_options(flags: dict[str, Any]) -> list[str]:
    """Flags as `pentad serve` takes them."""
    return [word for name, value in flags.items() for word in _written(name, value)]


def _written(name: str, value: Any) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    return [flag, str(value)]


def _finish(
    results: list[dict[str, Any]], benchmark: str, load: dict[str, Any], out: pathlib.Path | None, json: bool
) -> None:
    from pentad.application.bench import facts

    ours = results[0]
    common = {"commit": facts.commit(), "machine": facts.machine()}
    for result in results:
        if result is not ours and result["tokens_per_s"]:
            result["ratio"] = {"tokens_per_s": round(ours["tokens_per_s"] / result["tokens_per_s"], 3)}
            if ours["mean_run_s"]:
                result["ratio"]["mean_run_s"] = round(result["mean_run_s"] / ours["mean_run_s"], 3)
        finish({"benchmark": benchmark, **load, **result, **common}, out=out, json=json)
    if not json:
        rows = [_row(result) for result in results]
        print_table(_COLUMNS, rows, empty="")


def _row(result: dict[str, Any]) -> tuple[object, ...]:
    first, gap = result["ttft_ms"], result["inter_token_ms"]
    share, peak = result.get("engine_share"), result["peak_rss_bytes"]
    return (
        result["server"],
        result["concurrency"],
        result["tokens_per_s"],
        result["decode_tokens_per_s"],
        None if share is None else f"{share:.0%}",
        f"{first['p50']:.0f} / {first['p95']:.0f}",
        f"{gap['p50']:.1f} / {gap['p95']:.1f}",
        f"{result['good_fraction']:.0%}",
        result["mean_run_s"],
        None if peak is None else size(peak),
        f"{result['client_cpu_fraction']:.0%}",
    )
