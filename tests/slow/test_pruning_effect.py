"""What pruning costs SmolLM2-135M: the published order of methods, and structured forms that are smaller.

The rows name OPT-125M, which no package brings; what they state relative to another method or to the
dense model is held on SmolLM2-135M, whose absolute perplexities are its own.
"""

from __future__ import annotations

import pathlib
import time

import numpy as np
import pytest

from evidence.plugin import Measure
from pentad.execution.quant import dequantize
from pruning_effects import Bench
from torch_reference import DATA

pytestmark = pytest.mark.slow

HALF = "sparsity=0.5,format=F16"


@pytest.fixture(scope="module")
def bench(smollm2_path: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    path = DATA / "wikitext2-valid.txt"
    if not path.exists():
        pytest.skip(f"{path.name} is not on this machine; it is the held-out text of this test")
    return Bench(smollm2_path, path.read_text(), tmp_path_factory.mktemp("store"), windows=16, measured=16)


@pytest.mark.row("prune-magnitude", "effect")
@pytest.mark.row("prune-wanda", "effect")
def test_wanda_is_far_below_magnitude(bench: Bench, measured: Measure) -> None:
    wanda = bench.perplexity(f"wanda:{HALF}")
    measured("perplexity, magnitude over Wanda", bench.perplexity(f"magnitude:{HALF}") / wanda, at_least=3)


@pytest.mark.row("prune-wanda", "effect", claims=(2,))
def test_wanda_prunes_in_under_three_minutes(bench: Bench, measured: Measure) -> None:
    began_s = time.process_time()  # no less than the time on the clock of a machine that does nothing else
    bench.made(f"wanda:{HALF}")
    measured("CPU seconds", time.process_time() - began_s, at_most=180, unit="s")


@pytest.mark.row("prune-sparsegpt", "effect")
def test_sparsegpt_is_not_worse_than_wanda(bench: Bench, measured: Measure) -> None:
    found = bench.perplexity(f"sparsegpt:{HALF}")
    measured("perplexity, SparseGPT over Wanda", found / bench.perplexity(f"wanda:{HALF}"), at_most=1.03)


@pytest.mark.row("prune-gblm", "effect", claims=(1, 2))
def test_gradients_of_few_samples_do_not_make_wanda_worse(bench: Bench, measured: Measure) -> None:
    found = bench.perplexity(f"gblm:{HALF}")
    measured("perplexity, GBLM over Wanda", found / bench.perplexity(f"wanda:{HALF}"), at_most=1.01)
    measured("samples", bench.windows, at_most=128)


@pytest.mark.row("prune-shao-mixed", "effect", claims=(1, 2))
def test_mixed_sparsity_is_below_uniform_sparsity_at_the_same_total(bench: Bench, measured: Measure) -> None:
    uniform = bench.perplexity(f"mixed-sparsity:{HALF},spread=0")
    mixed = f"mixed-sparsity:{HALF}"
    measured("perplexity, mixed over uniform", bench.perplexity(mixed) / uniform, at_most=1.0)
    bench.made(mixed)
    zeros = weights = 0
    with bench.opened("small") as files:
        for name in files.weights.names():
            values = dequantize(files.weights.tensor(name))
            if name.startswith("layers.") and values.ndim == 2:
                zeros, weights = zeros + int(np.count_nonzero(values == 0)), weights + values.size
    measured("sparsity, off by", abs(zeros / weights - 0.5), at_most=0.001)


@pytest.mark.row("prune-flap", "effect", claims=(1,), negative=True)
def test_biases_win_back_less_than_a_tenth_of_the_perplexity(bench: Bench, measured: Measure) -> None:
    """83.4 against 90.4 on 8 windows, calibrated on 8: 7.7% where the row asks for 10%."""
    plain = bench.perplexity("flap:ratio=0.2,format=F16,bias=false")
    share = 1 - bench.perplexity("flap:ratio=0.2,format=F16") / plain
    measured("share of the perplexity that biases take away", share, at_most=0.1)
