"""`pentad bench sessions`: traces of agent runs played on servers, with what could be had at best beside it.

    trace -> items -> requests --(one process)--> answers -> records -> seconds of runs, tokens missed
                         |                                                     |
                         `------> the same engine simulated                    `-> the clairvoyant bound

Requests are prompts of token ids over the completions API, so that every server computes the same tokens. To
servers that take them, a request also says which run it is of, what it follows from and that more follows.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import httpx2

from pentad.application.bench.servers import Server
from pentad.application.bench.serving import play_plan
from pentad.application.config import EngineSettings, Settings
from pentad.application.runners import engine_limits, load_runner
from pentad.choice import build
from pentad.execution.device import DeviceProfile
from pentad.execution.native.kv_format import kv_element_bytes
from pentad.execution.native.runner import NativeRunner
from pentad.execution.spec import ModelSpec
from pentad.model.loading import open_model
from pentad.model.store import ModelStore
from pentad.resource.calibration import calibrate
from pentad.resource.cost import StepCost
from pentad.resource.simulator import SimulationOptions, simulate
from pentad.resource.simulator.clairvoyant import belady_misses, block_names, clairvoyant
from pentad.resource.simulator.report import Distribution, RequestRecord, run_seconds
from pentad.resource.simulator.runner import StepTimes
from pentad.resource.simulator.trace import TraceItem, prompt_of
from pentad.types import Hints

BLOCK_SIZE: Final = 16
"""Tokens of a KV block of ours."""


def requests_of(
    items: Iterable[TraceItem], vocab_size: int, *, seed: int, hinted: bool
) -> list[dict[str, Any]]:
    """What the client plays: each item as a completion of exactly as many tokens.

    Args:
        seed: of the prompts' tokens, so that no round finds what another has left in a cache.
        hinted: whether requests tell of their runs in the field `pentad`.
    """
    found = []
    for item in items:
        body: dict[str, Any] = {
            "prompt": prompt_of(item, vocab_size, seed=seed),
            "max_tokens": item.output_tokens,
        }
        if hinted and item.run is not None:
            body["pentad"] = {"run_id": item.run, "hints": _told(item.hints or Hints())}
        found.append(
            {
                "id": item.id,
                "at_s": item.arrival_s,
                "waits_for": item.waits_for,
                "pause_s": item.pause_s,
                "parent": item.after if hinted else None,
                "body": body,
            }
        )
    return found


def _told(hints: Hints) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(hints).items() if value is not None}


def play(server: Server, requests: Sequence[Mapping[str, Any]], *, deadline_s: float) -> dict[str, Any]:
    """Plays the requests from a process of its own and returns what it wrote.

    Raises:
        BackendFailed: the client failed, or no request was answered.
    """
    plan = server.plan((), concurrency=1, deadline_s=deadline_s)
    plan["path"] = plan["path"].replace("/chat/completions", "/completions")
    plan["requests"] = list(requests)
    return play_plan("graph_client", server, plan)


def records_of(items: Iterable[TraceItem], answers: Iterable[Mapping[str, Any]]) -> list[RequestRecord]:
    """The answers as the simulator records requests, in the order in which they arrived.

    Items behind a failed one were never sent and have no record; the failed one has the error `failed`.
    """
    by_id = {item.id: item for item in items}
    return [
        RequestRecord(
            item=by_id[answer["id"]],
            arrived_s=answer["due_s"],
            token_times_s=list(answer["events_s"]),
            finished_s=answer["ended_s"],
            cached_tokens=answer["cached_tokens"] or 0,
            refusal="failed" if "error" in answer else None,
        )
        for answer in sorted(answers, key=lambda answer: answer["due_s"])
    ]


def numbers(items: Sequence[TraceItem], records: Sequence[RequestRecord]) -> dict[str, Any]:
    """What records say, live or simulated. Runs count where every request of them was answered."""
    roots = {item.root or item.run or item.id for item in items}
    answered = {record.item.id for record in records if record.completed}
    broken = {item.root or item.run for item in items if item.id not in answered}
    runs = {name: took for name, took in run_seconds(records).items() if name not in broken}
    done = [record for record in records if record.completed]
    return {
        "requests": len(items),
        "failed": len(items) - len(done),
        "runs": len(roots),
        "runs_done": len(runs),
        "run_s": _rounded(Distribution.of(list(runs.values()))),
        "ttft_s": _rounded(Distribution.of([record.ttft_s for record in done])),
        "completion_s": _rounded(Distribution.of([record.completion_s for record in done])),
        "prompt_tokens": sum(record.item.prompt_tokens for record in done),
        "missed_tokens": sum(record.item.prompt_tokens - record.cached_tokens for record in done),
    }


def _rounded(one: Distribution) -> dict[str, float]:
    return {name: round(value, 4) for name, value in one.to_dict().items()}


def least_missed_tokens(
    records: Iterable[RequestRecord], vocab_size: int, *, blocks: int, block_size: int
) -> int:
    """Prompt tokens that a cache of so many blocks misses at least, of requests in the order of `records`.

    Belady's misses on this very sequence; what is behind a prompt's last full block is missed anyway.
    """
    done = [record for record in records if record.completed]
    uses = [block_names(record.item, vocab_size, block_size) for record in done]
    ends = sum(
        record.item.prompt_tokens - len(use) * block_size for record, use in zip(done, uses, strict=True)
    )
    return belady_misses(uses, blocks) * block_size + ends


def bound_of(
    items: Sequence[TraceItem], cost: StepTimes, *, blocks: int, slots: int, block_size: int
) -> dict[str, float]:
    """Seconds that the runs take at least: on the mean, and their critical paths at the 95th percentile."""
    found = clairvoyant(items, cost, capacity_blocks=blocks, slots=slots, block_size=block_size)
    paths = Distribution.of(list(found.critical_s.values()))
    return {"mean_s": round(found.mean_s, 4), "path_p95_s": round(paths.p95, 4)}


def kv_blocks(server: Server) -> int | None:
    """KV blocks of a server of ours, as its metrics say; None where they do not."""
    address = server.base_url.removesuffix("/v1") + "/metrics"
    try:
        told = httpx2.get(address, timeout=10).text
    except httpx2.HTTPError:
        return None
    found = re.search(r"^pentad_engine_kv_blocks(?:\{[^}]*\})? (\d+)", told, re.MULTILINE)
    return None if found is None else int(found[1])


def kv_block_bytes(spec: ModelSpec, settings: EngineSettings) -> int:
    """Bytes of a KV block of the model in our server."""
    return spec.kv_bytes_per_token(kv_element_bytes(spec, settings.kv_dtype)) * BLOCK_SIZE


def judged(
    items: Sequence[TraceItem],
    records: Sequence[RequestRecord],
    spec: ModelSpec,
    settings: EngineSettings,
    *,
    blocks: int,
    cost: StepCost | None,
) -> dict[str, Any]:
    """What a round lost to the best cache and the best order, and what its simulation says.

    Args:
        cost: step times, for all but the cache; None leaves the rest out.
    """
    missed = sum(record.item.prompt_tokens - record.cached_tokens for record in records if record.completed)
    block_bytes = kv_block_bytes(spec, settings)
    stored = 0 if settings.kv_store_bytes is None else settings.kv_store_bytes // block_bytes
    least = least_missed_tokens(records, spec.vocab_size, blocks=blocks + stored, block_size=BLOCK_SIZE)
    found: dict[str, Any] = {
        "kv_blocks": blocks,
        "kv_store_blocks": stored,
        "least_missed_tokens": least,
        "missed_over_belady": round(missed / least, 3) if least else None,
    }
    if cost is None:
        return found
    limits = engine_limits(settings)
    bound = bound_of(items, cost, blocks=blocks, slots=limits.max_sequences, block_size=BLOCK_SIZE)
    options = SimulationOptions(
        limits=limits,
        kv_blocks=blocks,
        block_size=BLOCK_SIZE,
        prefix_cache=settings.prefix_cache,
        kv_eviction=build("kv_eviction", settings.kv_eviction),
        kv_store_blocks=stored,
        form=cost.form,
    )
    scheduler = build("scheduler", settings.scheduler)
    report = simulate(items, spec, cost.profile, scheduler, options=options, cost=cost)
    simulated = numbers(items, report.records)
    took = Distribution.of(list(run_seconds(records).values()))
    return found | {
        "bound": bound,
        "mean_over_bound": round(took.mean / bound["mean_s"], 3) if bound["mean_s"] else None,
        "simulated": simulated,
    }


def calibrated(model: str, device: DeviceProfile, settings: Settings) -> StepCost:
    """Step times of a model on the device, fitted to some steps of its runner here and now."""
    files = open_model(ModelStore(settings.root).resolve(model).path, name=model)
    form = NativeRunner.form_of(files.spec, files.weights, settings.engine.kv_dtype)
    runner = load_runner(files, settings.engine, engine_limits(settings.engine))
    try:
        return calibrate(StepCost(profile=device, spec=runner.spec, form=form), runner)
    finally:
        runner.close()
