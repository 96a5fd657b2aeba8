"""What quantization costs SmolLM2-135M and Qwen2.5-Coder-0.5B, on texts that no method was calibrated on.

Sources are the models' dequantized files. Activations are rounded on the PyTorch reference (trial.py);
weights of `bits` lie on the grids of the papers. Gaps are of perplexity, over the model itself. The rows
that name OPT-125M or Qwen2.5-0.5B are held on these two, and say so here by claiming no more.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Iterator

import pytest

from evidence.plugin import Measure
from pentad import registry
from pentad.choice import Choice, build
from pentad.execution.quant import stored_bytes
from pentad.execution.taps import Comparison, Walk
from pentad.model.loading import ModelFiles, open_model
from pentad.model.transforms.base import Overlay, Unit, apply
from pentad.model.transforms.mofq import MoFQ
from pentad.model.transforms.owq import OWQ
from pentad.model.transforms.rotate import Rotate, untied
from pentad.model.transforms.rotation import space_use
from pentad.model.trial import Trial
from torch_reference import DATA

pytestmark = pytest.mark.slow

WINDOW = 256
CALIBRATION, EVALUATION = 16, 16
Tried = Callable[[str], Comparison]


class Bench:
    """One model, its trial, and what has been tried already."""

    def __init__(self, files: ModelFiles, text: str) -> None:
        tokens = files.tokenizer.encode(text[:600_000], special=False)
        kind = registry.load("walk", "torch")
        far = len(tokens) // 2
        self.files = files
        self.trial = Trial(
            spec=files.spec,
            source=files.weights,
            new_walk=lambda texts: kind(files.spec, files.weights, texts),
            calibration=[tokens[far + i * WINDOW :][:WINDOW] for i in range(CALIBRATION)],
            evaluation=[tokens[i * WINDOW :][:WINDOW] for i in range(EVALUATION)],
        )
        self.exact: Walk = self.trial.exact()
        self._found: dict[str, Comparison] = {}

    def __call__(self, method: str) -> Comparison:
        """What the method costs."""
        if method not in self._found:
            found = self.trial.run(build("transform", Choice.of(method)), self.exact)
            print(f"\n{method}: perplexity {found.perplexity:.3f}, divergence {found.divergence:.4f}")
            self._found[method] = found
        return self._found[method]

    def gap(self, method: str) -> float:
        """By how much the perplexity rises."""
        found = self(method)
        return found.perplexity - found.exact_perplexity


def opened(path: pathlib.Path) -> Iterator[Bench]:
    text = DATA / "wikitext2-valid.txt"
    if not text.exists():
        pytest.skip(f"{text.name} is not on this machine; it is the text of this test")
    files = open_model(path)
    yield Bench(files, text.read_text())
    files.close()


@pytest.fixture(scope="module")
def small(smollm2_path: pathlib.Path) -> Iterator[Bench]:
    yield from opened(smollm2_path)


@pytest.fixture(scope="module")
def qwen(qwen_path: pathlib.Path) -> Iterator[Bench]:
    yield from opened(qwen_path)


@pytest.mark.row("quant-ptq-rtn", "effect", claims=(1, 2))
def test_eight_bits_for_each_row_cost_next_to_nothing(small: Bench, measured: Measure) -> None:
    found = small("round-to-nearest:bits=8,group=0,numbers=symmetric")
    measured("perplexity over the model's", found.perplexity / found.exact_perplexity, at_most=1.01)
    files = small.files
    unit = Unit(spec=files.spec, layer=3, source=files.weights)
    made = build("transform", Choice.of("round-to-nearest:format=Q8_0")).rewrite(unit)
    numbers = sum(t.shape[0] * t.shape[1] for t in made.values())
    used = sum(t.data.nbytes for t in made.values())
    assert used == sum(stored_bytes("Q8_0", t.shape) for t in made.values())
    measured("bytes over codes and scales", used / (numbers * (1 + 2 / 32)), at_least=0.97, at_most=1.03)


@pytest.mark.row("quant-awq", "effect")
def test_awq_recovers_a_third_of_what_rounding_loses(qwen: Bench, measured: Measure) -> None:
    plain = qwen.gap("round-to-nearest:bits=4,group=128")
    scaled = qwen.gap("awq:bits=4,group=128,compensate=false")
    measured("gap of AWQ over round-to-nearest's", scaled / plain, at_most=0.7)


def test_compensated_and_searched_rounding_is_ahead_at_four_bits(small: Bench, measured: Measure) -> None:
    plain = small("round-to-nearest:format=Q4_0").divergence
    for method in ("importance:format=Q4_0", "gptq:format=Q4_0", "awq:format=Q4_0"):
        measured(f"divergence, {method} over round-to-nearest", small(method).divergence / plain, at_most=1.0)


@pytest.mark.row("quant-smoothquant", "effect", claims=(1, 2))
def test_smoothing_closes_the_gap_of_eight_bit_inputs(qwen: Bench, measured: Measure) -> None:
    smooth, naive = "smoothquant:strength=0.5", "smoothquant:strength=0"
    found = qwen(smooth)
    measured("perplexity over the model's", found.perplexity / found.exact_perplexity, at_most=1.03)
    measured("gap without smoothing over with", qwen.gap(naive) / qwen.gap(smooth), at_least=3)


@pytest.mark.row("quant-owq", "effect", claims=(1, 2))
def test_one_percent_of_columns_saves_three_bits(small: Bench, measured: Measure) -> None:
    plain, kept = small("owq:bits=3,kept=0"), small("owq:bits=3,kept=0.01")
    measured("perplexity over plain", kept.perplexity / plain.perplexity, at_most=0.7)
    spec = small.files.spec
    measured("bits", max(OWQ().stored_bits(columns) for columns in (spec.width, spec.ffn_width)), at_most=3.2)


@pytest.mark.row("quant-mofq", "effect", claims=(1,))
def test_mixed_kinds_are_no_worse_than_the_better_one(small: Bench, measured: Measure) -> None:
    alone = [small(f"importance:bits=4,numbers={kind}").perplexity for kind in ("symmetric", "floats")]
    measured("perplexity over the better kind", small("mofq:bits=4").perplexity / min(alone), at_most=1.0)
    assert MoFQ(bits=4) == build("transform", Choice.of("mofq:bits=4"))


@pytest.mark.row("quant-omniquant", "effect", claims=(1,))
def test_learnt_clips_beat_rounding_at_three_bits(small: Bench, measured: Measure) -> None:
    began_s = time.process_time()
    learnt = small("omniquant:bits=3,group=128").perplexity
    measured("CPU seconds", time.process_time() - began_s, at_most=1200, unit="s")
    plain = small("round-to-nearest:bits=3,group=128").perplexity
    measured("perplexity over round-to-nearest", learnt / plain, at_most=0.85)


@pytest.mark.row("quant-fptq", "effect", claims=(1, 3))
def test_eight_bit_inputs_cost_four_bit_weights_little(small: Bench, measured: Measure) -> None:
    ratio = small("fptq:input_bits=8").perplexity / small("fptq:input_bits=0").perplexity
    measured("perplexity, W4A8 over W4A16", ratio, at_most=1.05)


@pytest.mark.row("quant-os-plus", "effect", claims=(2,))
def test_centred_channels_do_better_at_six_bits(small: Bench, measured: Measure) -> None:
    options = "bits=6,group=0,numbers=symmetric,input_bits=6"
    measured(
        "gap over SmoothQuant's",
        small.gap(f"os-plus:{options}") / small.gap(f"smoothquant:{options}"),
        at_most=0.7,
    )


@pytest.mark.row("quant-rptq", "effect", claims=(1,))
def test_a_permuted_model_is_the_same(small: Bench, measured: Measure) -> None:
    found = small("rptq:format=F32,input_bits=0")
    measured("loss, of the model's", abs(found.loss / found.exact_loss - 1), at_most=1e-5)


@pytest.mark.row("quant-rptq", "effect", claims=(2,))
def test_clusters_halve_the_gap(small: Bench, measured: Measure) -> None:
    measured("gap over one scale's", small.gap("rptq:clusters=8") / small.gap("rptq:clusters=1"), at_most=0.5)


@pytest.mark.row("quant-ostquant", "effect", claims=(1, 2, 3))
def test_a_turned_model_bears_four_bit_inputs(small: Bench, measured: Measure) -> None:
    trial, kind = small.trial, registry.load("walk", "torch")
    spec = untied(trial.spec)
    source = Overlay(trial.source, {"head": trial.source.tensor("embed").renamed("head")})
    _, turned = apply(Rotate(format="F32"), spec, source)
    other = Trial(
        spec=spec,
        source=turned,
        new_walk=lambda texts: kind(spec, turned, texts),
        calibration=trial.calibration,
        evaluation=trial.evaluation,
    )
    same = other.run(build("transform", Choice.of("round-to-nearest:format=F32")), small.exact)
    measured("loss, turned over the model's", abs(same.loss / same.exact_loss - 1), at_most=1e-4)
    uses = []
    for one in (trial, other):
        tap = one.new_walk(one.calibration).taps(0, one.source, second_moments=True)["layers.0.q"]
        assert tap.gram is not None and tap.low is not None and tap.high is not None  # noqa: PT018
        uses.append(space_use(tap.gram, tap.rows, tap.low, tap.high))
    measured("rise of the space used", uses[1] - uses[0], at_least=0.0)
    found = other.run(build("transform", Choice.of("ostquant:bits=4,group=0")), small.exact)
    plain = "smoothquant:strength=0,bits=4,group=0,input_bits=4,scope=token,search=false"
    gap = found.perplexity - found.exact_perplexity
    measured("gap of plain rounding over turned", small.gap(plain) / gap, at_least=3)
