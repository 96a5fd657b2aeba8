"""`pentad bench sessions`: runs of a trace on servers, in turn, with what could be had at best."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pentad.application.cli.bench_load import ApiKey, Beside, Model, Ours, Url, serve_options
from pentad.application.cli.bench_output import Json, Out, finish
from pentad.application.cli.options import COMMON, ENGINE, number, settings_of, with_settings
from pentad.application.cli.output import print_table, working
from pentad.errors import InvalidRequest

if TYPE_CHECKING:
    from pentad.application.bench.servers import Server
    from pentad.application.cli.planning import Described
    from pentad.application.config import EngineSettings, Settings
    from pentad.resource.cost import StepCost
    from pentad.resource.simulator import TraceItem

_SERVED = tuple(flag for flag in ENGINE if flag.name not in ("backend", "check_invariants"))
_COLUMNS = (
    "server",
    "runs",
    "run mean s",
    "p50",
    "p95",
    "TTFT p95",
    "missed",
    "of Belady",
    "of bound",
    "simulated",
)


@dataclass(frozen=True, slots=True)
class _Arm:
    """A server to measure; it is started for each round, so that its cache is empty."""

    name: str
    open: Callable[[], AbstractContextManager[Server]]
    settings: EngineSettings | None
    """Of our own; None for another make, to which requests say nothing of their runs."""


@with_settings(COMMON, _SERVED)
def sessions(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    trace: Annotated[
        pathlib.Path,
        typer.Argument(metavar="TRACE", help="Coding sessions: a .json, or a folder of them."),
    ],
    model: Model = "smollm2-135m",
    with_: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            help='Ours again with other settings: "scheduler=fcfs kv_eviction=least-recent"; repeatable.',
            metavar="SETTINGS",
        ),
    ] = None,
    url: Url = None,
    api_key: ApiKey = None,
    ours: Ours = False,
    llama_cpp: Beside = False,
    slots: Annotated[int, number("--slots", "Of llama.cpp's server.", least=1)] = 8,
    token_scale: Annotated[float, number("--token-scale", "Tokens that make one.", above=0)] = 64.0,
    time_scale: Annotated[float, number("--time-scale", "Seconds that make one.", above=0)] = 10.0,
    longest_pause_s: Annotated[
        float, number("--longest-pause-s", "Of the trace; longer ones count so.", least=0)
    ] = 300.0,
    runs_per_s: Annotated[float, number("--runs-per-s", "Sessions that begin.", above=0)] = 1.0,
    first: Annotated[int, number("--first", "Session to begin with.", least=0)] = 0,
    every: Annotated[int, number("--every", "1: all from there; 2: every other.", least=1)] = 1,
    limit: Annotated[int | None, number("--limit", "Most sessions.", least=1)] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile", help="Simulate as well, with `local` (see pentad profile) or a profile's file."
        ),
    ] = None,
    rounds: Annotated[int, number("--rounds", "Each with other prompts; medians.", least=1)] = 1,
    deadline_s: Annotated[float, number("--deadline-s", "For one round on one server.", above=0)] = 3600.0,
    out: Out = None,
    json: Json = False,
) -> None:
    """Measure whole runs: agent sessions of a trace with their pauses; seconds per run, tokens missed."""
    from pentad.application.bench import facts, serving
    from pentad.application.cli.planning import describe
    from pentad.resource.simulator import SessionScale, read_trace
    from pentad.resource.simulator.replay import clip

    settings = settings_of(flags, config, quiet=True)
    others = {text: _settings_in(text) for text in with_ or ()}
    described = describe(model, settings)
    scale = SessionScale(
        tokens=token_scale,
        time=time_scale,
        longest_pause_s=longest_pause_s,
        runs_per_s=runs_per_s,
        first=first,
        every=every,
        most=limit,
    )
    items, clipped = clip(list(read_trace(trace, scale=scale)), described.spec.context_length)
    arms = _arms(model, flags, config, others, url or [], api_key, ours, settings)
    if llama_cpp:
        arms += _llama(model, settings, slots, described.spec.context_length)
    cost = _cost(profile, model, settings)
    found: list[list[dict[str, Any]]] = [[] for _ in arms]
    with working("bench sessions") as tell:
        for number_ in range(rounds):
            for arm, rows in zip(arms, found, strict=True):
                tell(f"{len(items)} requests, round {number_ + 1} of {rounds}: {arm.name}")
                rows.append(_measured(arm, items, described, cost, number_, deadline_s))
    common = {
        "trace": trace.name,
        "token_scale": token_scale,
        "time_scale": time_scale,
        "runs_per_s": runs_per_s,
        "clipped_requests": len(clipped),
        "commit": facts.commit(),
        "machine": facts.machine(),
    }
    results = [
        {"server": arm.name, **serving.medians(rows), "rounds": rows}
        for arm, rows in zip(arms, found, strict=True)
    ]
    for result in results:
        result["over_first"] = {
            name: round(result["run_s"][name] / results[0]["run_s"][name], 3)
            for name in ("mean", "p50", "p95")
            if results[0]["run_s"][name]
        }
        finish({"benchmark": "sessions", **result, **common}, out=out, json=json)
    if not json:
        print_table(_COLUMNS, [_row(result) for result in results], empty="")


def _measured(
    arm: _Arm,
    items: list[TraceItem],
    described: Described,
    cost: StepCost | None,
    seed: int,
    deadline_s: float,
) -> dict[str, Any]:
    """One round on one server, and what simulation and judge say of the same."""
    from pentad.application.bench import sessions as played

    spec = described.spec
    requests = played.requests_of(items, spec.vocab_size, seed=seed, hinted=arm.settings is not None)
    with arm.open() as server:
        blocks = None if arm.settings is None else played.kv_blocks(server)
        answers = played.play(server, requests, deadline_s=deadline_s)
    records = played.records_of(items, answers["answers"])
    row = played.numbers(items, records)
    row["client_cpu_fraction"] = round(answers["cpu_seconds"] / answers["seconds"], 4)
    if arm.settings is None or blocks is None:
        return row
    return row | played.judged(items, records, spec, arm.settings, blocks=blocks, cost=cost)


def _arms(
    model: str,
    flags: dict[str, Any],
    config: pathlib.Path | None,
    others: dict[str, dict[str, str]],
    urls: list[str],
    api_key: str | None,
    ours: bool,
    settings: Settings,
) -> list[_Arm]:
    """Our own server as the flags say, then with each of the other settings, then others that run."""
    from pentad.application.bench import servers

    arms = []
    own: dict[str, dict[str, str]] = {"": {}} if ours or not urls else {}
    for text, changes in (own | others).items():
        changed = {**flags, **changes}
        named = f"pentad {text}".strip()
        engine = settings_of(changed, config, quiet=True).engine if text else settings.engine
        options = serve_options(changed)
        arms.append(_Arm(named, lambda options=options: servers.pentad(model, options), engine))  # type: ignore[misc]
    for one in urls:
        server = servers.running(one, api_key)
        arms.append(_Arm(server.name, lambda server=server: contextlib.nullcontext(server), None))  # type: ignore[misc]
    return arms


def _settings_in(text: str) -> dict[str, str]:
    """`scheduler=fcfs kv_eviction=least-recent` as settings. Raises InvalidRequest naming what is wrong."""
    known = {flag.name for flag in _SERVED}
    found = {}
    for part in text.split():
        name, equals, value = part.partition("=")
        name = name.replace("-", "_")
        if not equals or name not in known:
            raise InvalidRequest(
                f"--with has {part!r}, which sets nothing of our server",
                hint='give settings with blanks, as in --with "scheduler=fcfs kv_eviction=least-recent"',
                param="with",
            )
        found[name] = value
    return found


def _llama(model: str, settings: Settings, slots: int, context: int) -> list[_Arm]:
    from pentad.application.bench.beside import llama_arms

    return [
        _Arm(name, start, None) for name, start in llama_arms(model, settings, slots=slots, context=context)
    ]


def _cost(profile: str | None, model: str, settings: Settings) -> StepCost | None:
    """Step times of the model here: of the profile, and fitted to some of its steps. None without one."""
    if profile is None:
        return None
    from pentad.application.bench.sessions import calibrated
    from pentad.application.cli.planning import device_of

    return calibrated(model, device_of(profile, settings), settings)


def _row(result: dict[str, Any]) -> tuple[object, ...]:
    took, simulated = result["run_s"], result.get("simulated")
    return (
        result["server"],
        f"{result['runs_done']:.0f} / {result['runs']:.0f}",
        *(f"{took[name]:.2f}" for name in ("mean", "p50", "p95")),
        f"{result['ttft_s']['p95']:.2f}",
        f"{result['missed_tokens'] / max(1, result['prompt_tokens']):.0%}",
        result.get("missed_over_belady"),
        result.get("mean_over_bound"),
        None if simulated is None else f"{simulated['run_s']['mean']:.2f} / {simulated['run_s']['p95']:.2f}",
    )
