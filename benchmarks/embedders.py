"""Embeddings beside ONNX Runtime and sentence-transformers: MiniLM, the same texts, taken in turns.

    scripts/peers embedders
    python benchmarks/embedders.py [--rounds N] [--threads N] [--keep]

From text to unit vectors, tokenizing included, in each engine's own batches. Prints a table of medians and
one JSON line, which --keep adds to benchmarks/results/embedders.jsonl. To keep: at least 1.5 times the
better peer's throughput for every length of text, at a cosine to the float32 vectors of 0.9999.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from pentad.application.bench.facts import append_line, commit, machine
from pentad.model.embedding import LocalEmbedder
from pentad.model.store import ModelStore

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results" / "embedders.jsonl"
PEERS = ("onnxruntime", "sentence-transformers")
TEXTS = 96
LENGTHS = {"short": 12, "medium": 60, "long": 120}
"""Words of a text."""


class Peer:
    """A peer in a process of its own."""

    def __init__(self, name: str, folder: pathlib.Path, threads: int) -> None:
        home = pathlib.Path(os.environ.get("PENTAD_PEERS", "~/.cache/pentad-peers")).expanduser()
        command = [home / "embedders/bin/python", HERE / "embedder_peer.py", name, folder, str(threads)]
        limited = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true"}
        self._process = subprocess.Popen(
            command,
            env=limited,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.version: str = self._answer()["version"]

    def __call__(self, texts: Sequence[str], *, keep: bool = False) -> dict[str, Any]:
        assert self._process.stdin is not None
        print(json.dumps({"texts": texts, "keep": keep}), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the peer ended; is it there? scripts/peers embedders"
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def texts_of(words: int) -> list[str]:
    """Pieces of our own pages, of about that many words, each another length."""
    pages = " ".join(path.read_text() for path in sorted((HERE.parent / "docs").glob("*.md")))
    found = re.findall(r"[A-Za-z][a-z']*[.,;]?", pages)
    texts, at = [], 0
    for i in range(TEXTS):
        size = max(3, words * (50 + i * 100 // TEXTS) // 100)
        texts.append(" ".join(found[at % len(found) : at % len(found) + size]) or "text")
        at += size
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    folder = ModelStore().resolve("minilm").path
    ours = LocalEmbedder.open(folder)
    peers = {name: Peer(name, folder, given.threads) for name in PEERS}
    line: dict[str, Any] = {"model": "minilm", "threads": given.threads, "rounds": given.rounds}
    line["versions"] = {name: peer.version for name, peer in peers.items()}
    line["lengths"] = {kind: compared(ours, peers, words, given.rounds) for kind, words in LENGTHS.items()}
    for peer in peers.values():
        peer.close()
    print(f"{'texts/s':24}" + "".join(f"{kind:>10}" for kind in LENGTHS))
    for name in ("pentad", *PEERS):
        rates = (line["lengths"][kind]["texts_per_s"][name] for kind in LENGTHS)
        print(f"{name:24}" + "".join(f"{rate:10.1f}" for rate in rates))
    for what in ("least_cosine", "times_the_better_peer", "tokens"):
        print(f"{what:24}" + "".join(f"{line['lengths'][kind][what]:10.5g}" for kind in LENGTHS))
    line |= {"commit": commit(), "machine": machine()}
    print(json.dumps(line))
    if given.keep:
        append_line(RESULTS, line)


def compared(ours: LocalEmbedder, peers: dict[str, Peer], words: int, rounds: int) -> dict[str, Any]:
    """Medians of rounds in which each engine embeds the same texts, one after the other."""
    texts = texts_of(words)
    vectors, tokens = ours.embed_counted(texts)
    exact = np.array(peers["sentence-transformers"](texts, keep=True)["vectors"])
    for peer in peers.values():
        peer(texts)
    seconds: dict[str, list[float]] = {name: [] for name in ("pentad", *peers)}
    for _ in range(rounds):
        began = time.perf_counter()
        ours.embed_counted(texts)
        seconds["pentad"].append(time.perf_counter() - began)
        for name, peer in peers.items():
            seconds[name].append(peer(texts)["seconds"])
    rates = {name: len(texts) / statistics.median(times) for name, times in seconds.items()}
    return {
        "tokens": tokens,
        "texts_per_s": rates,
        "least_cosine": float((np.array(vectors) * exact).sum(1).min()),
        "times_the_better_peer": rates["pentad"] / max(rates[name] for name in peers),
    }


if __name__ == "__main__":
    main()
