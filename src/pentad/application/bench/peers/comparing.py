"""`pentad bench peers`: our engine and its peers in turn, so that what drifts drifts for all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from pentad.application.bench import facts
from pentad.application.bench.engine import EngineBench, EngineLoad, Measured
from pentad.application.bench.peers.base import Peer, Rates
from pentad.errors import BackendFailed

Tell = Callable[[str], None]


def compare(
    bench: EngineBench, peers: Sequence[Peer], load: EngineLoad, threads: int, tell: Tell
) -> tuple[Measured, dict[str, Rates], dict[str, str]]:
    """Every round: our engine, then each peer.

    Returns our measurements, the peers' by name, and why the other peers have none.
    """
    absent: dict[str, str] = {}
    ready: list[Peer] = []
    ours, theirs = Measured(), {}
    with contextlib.ExitStack() as undo:
        for peer in peers:
            if hint := peer.missing():
                absent[peer.name] = f"not installed: {hint}"
                continue
            tell(f"{peer.name}: looking for its best options")
            if close := getattr(peer, "close", None):
                undo.callback(close)
            try:
                peer.prepare(load, threads)
            except BackendFailed as error:
                absent[peer.name] = str(error)
                continue
            ready.append(peer)
            theirs[peer.name] = Rates()
        bench.round(Measured())
        for number in range(load.rounds):
            tell(f"round {number + 1} of {load.rounds}: pentad")
            bench.round(ours)
            for peer in tuple(ready):
                tell(f"round {number + 1} of {load.rounds}: {peer.name}")
                try:
                    theirs[peer.name].add(*peer.round())
                except BackendFailed as error:
                    absent[peer.name] = str(error)
                    ready.remove(peer)
                    del theirs[peer.name]
    ours.limits = bench.limits()
    return ours, theirs, absent


def lines(
    ours: dict[str, Any], theirs: dict[str, Rates], peers: Sequence[Peer], absent: dict[str, str]
) -> list[dict[str, Any]]:
    """One result per engine, ours first, each with how many times as fast as it we are."""
    found = [{"benchmark": "peers", "engine": "pentad", "form": ours["kernels"], **ours}]
    common = {key: ours[key] for key in ("model", "prompt_tokens", "new_tokens", "context_tokens", "threads")}
    for peer in peers:
        if peer.name not in theirs:
            continue
        rates = theirs[peer.name]
        medians = rates.medians()
        found.append(
            {
                "benchmark": "peers",
                "engine": peer.name,
                "form": peer.form,
                **common,
                **medians,
                "ratio": ratio(ours, medians),
                "rounds": {
                    "prefill_tokens_per_s": [round(x, 1) for x in rates.prefill],
                    "decode_tokens_per_s": {
                        str(b): [round(x, 1) for x in values] for b, values in rates.decode.items()
                    },
                },
                "commit": ours["commit"],
                "machine": facts.machine(),
            }
        )
    found += [{"benchmark": "peers", "engine": name, "absent": why, **common} for name, why in absent.items()]
    return found


def ratio(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    """Our rate over theirs, for the prefill and each batch."""
    rates = {"prefill": (ours["prefill_tokens_per_s"], theirs["prefill_tokens_per_s"])}
    for batch, rate in theirs["decode_tokens_per_s"].items():
        rates[batch] = (ours["decode_tokens_per_s"].get(batch), rate)
    return {name: round(mine / other, 3) for name, (mine, other) in rates.items() if mine and other}
