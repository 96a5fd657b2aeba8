"""Gates of accuracy: the native engine is no further from float32 than llama.cpp on the same file."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from accuracy_support import Distances, Llama, Ours, chats, measure, wikitext
from native_support import HERE
from pentad.application.bench.facts import append_line, commit, machine
from pentad.execution.native.runner import NativeRunner
from pentad.execution.torch.runner import TorchRunner
from pentad.model.loading import open_model

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not HERE, reason="no native kernels are built")]

RESULTS = pathlib.Path(__file__).parent.parent.parent / "benchmarks" / "results" / "accuracy.jsonl"
THREADS = 2
PASSAGES = {"smollm2-135m": 12, "qwen-0.5b": 6, "qwen-1.5b": 2}
"""WikiText-2 passages of 256 tokens, beside ten chats of a hundred: what two cores read in three minutes."""


@dataclass(frozen=True)
class Outcome:
    """What one model's tokens gave."""

    model: str
    distances: dict[str, Distances]

    def __str__(self) -> str:
        lines = [f"{self.model}, {len(self.distances['exact'].kl)} tokens"]
        for name, found in self.distances.items():
            summary = found.summary()
            lines.append(
                f"  {name:20} mean KL {summary['mean_kl']:.5f} +- {summary['kl_error']:.5f}, "
                f"top-1 {summary['top1']:.4f}, next token right {summary['next_token']:.4f}"
            )
        return "\n".join(lines)


@pytest.fixture
def keep(request: pytest.FixtureRequest) -> Callable[[Outcome], None]:
    """Adds a line to the kept results, where outcomes are recorded (--rows-file)."""

    def keep(outcome: Outcome) -> None:
        if not request.config.getoption("--rows-file"):
            return
        found = {name: distances.summary() for name, distances in outcome.distances.items()}
        line = {"model": outcome.model, "tokens": len(outcome.distances["exact"].kl), "kernels": HERE[0]}
        append_line(RESULTS, line | {"found": found, "commit": commit(), "machine": machine()})

    return keep


@pytest.fixture(params=PASSAGES)
def outcome(request: pytest.FixtureRequest) -> Outcome:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    fixture = {"smollm2-135m": "smollm2_path", "qwen-0.5b": "qwen_path", "qwen-1.5b": "qwen_large_path"}
    path: pathlib.Path = request.getfixturevalue(fixture[request.param])
    files = open_model(path)
    texts = [*wikitext(files, PASSAGES[request.param]), *chats(files)]
    settings: dict[str, Any] = {"num_blocks": 16, "threads": THREADS}
    exact = Ours(TorchRunner.load(files.spec, files.weights, dtype="float32", **settings))
    engines = {
        "pentad": Ours(NativeRunner.load(files.spec, files.weights, **settings)),
        "llama.cpp": Llama(path, THREADS),
    }
    found = Outcome(request.param, measure(exact, engines, texts))  # type: ignore[arg-type]
    for engine in (exact, *engines.values()):
        engine.close()
    files.close()
    return found


def test_kl_and_agreement_with_float32_are_no_worse_than_llama_cpp_s(
    outcome: Outcome, keep: Callable[[Outcome], None], record_property: Callable[[str, object], None]
) -> None:
    """As prompts, which AMX computes in bf16, and as generated tokens, computed in 8 bits.

    Where both engines compute in 8 bits they err equally often, so which one is ahead in top-1 is up to
    the sample; a lag counts from two standard errors of the paired difference on.
    """
    print(f"\n{outcome}")
    keep(outcome)
    for name, distances in outcome.distances.items():
        record_property(name, distances.summary())
    for way in ("prompt", "decode"):
        ours, theirs = outcome.distances[f"pentad, {way}"], outcome.distances[f"llama.cpp, {way}"]
        assert ours.mean_kl <= theirs.mean_kl, f"{way}: {ours.mean_kl:.5f} against {theirs.mean_kl:.5f}"
        lag, error = ours.lag(theirs)
        print(f"  {way}: top-1 lags by {lag:.5f} +- {error:.5f}")
        assert lag <= 2 * error, f"{way}: {ours.top1:.4f} against {theirs.top1:.4f}"
