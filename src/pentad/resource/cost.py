"""StepCost: predicted seconds of one engine step, from the shape of its ragged batch.

A step's time is a sum of terms, each with its own measured rate:

    matrices     layers x (qkv, o, gate, up, down) at N rows, plus the head at R rows
    attention    keys and values read, and the pairs of prompt chunks computed
    elementwise  norms, rotations and activations of N rows per layer, and the logits' drawing
    overhead     per step, sequence and layer: launches and bookkeeping

The rates come from a DeviceProfile, so a prediction for a model needs no run of that model: where
the profile holds measured software costs (`software_units`, fitted to steps of made-up models) these are
used, else a roofline. Scaling the terms to a real model's steps is separate: calibration.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from pentad.execution.device import DeviceProfile
from pentad.execution.form import ModelForm as ModelForm
from pentad.execution.layers import Experts
from pentad.execution.mixers import Mixer
from pentad.execution.spec import Attention, Block, ModelSpec
from pentad.execution.spec import counted as counted_blocks
from pentad.resource.matrices import MatrixRates, flops_per_s, read_bytes_per_s
from pentad.resource.step_series import DecodeSeries, Numbers, each_step, summed
from pentad.resource.step_shape import StepShape

TERMS = ("matrices", "attention", "elementwise", "overhead")
COUNTS = ("steps", "sequences", "tokens", "decode_pairs", "chunk_pairs")
"""What calibration may find a cost for beside the terms; fields of StepShape, and the step itself."""

Unit = tuple[str, str | None, int]
"""The term a cost belongs to, the field of StepShape that counts it (None: once), and how many
units one count is for a model."""


DENSE_EXTRA: Mapping[str, str] = {
    "slots": "padded_slots",
    "decode_pairs": "padded_slots",
    "chunk_pairs": "masked_pairs",
}
"""What runners of dense attention compute beyond a count of StepShape; a profile measured with one
has 1 under `dense_attention` in its extra."""


def counted_units(shape: StepShape, counted: str | None, *, dense: bool) -> int:
    """How many units of a cost a step has."""
    if counted is None:
        return 1
    more = getattr(shape, DENSE_EXTRA[counted]) if dense and counted in DENSE_EXTRA else 0
    return int(getattr(shape, counted) + more)


def software_units(spec: ModelSpec, layers: range | None = None) -> dict[str, Unit]:
    """What a runner spends beside matrix products: name in `DeviceProfile.extra`, seconds per unit.

    Args:
        layers: those that it runs; None means all.
    """
    blocks = spec.blocks if layers is None else spec.blocks[layers.start : layers.stop]
    count = len(blocks)
    mixers = [block.mixer for block in blocks if block.mixer is not None]
    pairs = sum(2 * mixer.pair_products() for mixer in mixers)
    heads = sum(projected_elements(mixer, spec.width) for mixer in mixers)
    return {
        "step_overhead_s": ("overhead", None, 1),
        "layer_overhead_s": ("overhead", None, count),
        "sequence_overhead_s": ("overhead", "sequences", 1),
        "token_overhead_s": ("overhead", "tokens", 1),
        "attention_call_s": ("overhead", "calls", count),
        "kv_element_s": ("attention", "slots", sum(block.kv_elements for block in blocks)),
        "decode_pair_flop_s": ("attention", "decode_pairs", pairs),
        "chunk_pair_flop_s": ("attention", "chunk_pairs", pairs),
        "width_element_s": ("elementwise", "tokens", count * spec.width),
        "head_element_s": ("elementwise", "tokens", heads),
        "ffn_element_s": ("elementwise", "tokens", sum(feed_forward_columns(block) for block in blocks)),
        "logit_s": ("elementwise", "rows", spec.vocab_size),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What measured steps taught: factors on the predicted terms, and what comes on top.

    Factors of 1 and rates of 0 mean pure prediction.
    """

    factors: tuple[float, ...] = (1.0,) * len(TERMS)
    rates: tuple[float, ...] = (0.0,) * len(COUNTS)
    """Seconds per each of COUNTS that the terms leave unexplained."""
    steps: int = 0
    """How many measured steps the factors rest on."""
    error: float = 0.0
    """Median relative error over those steps after fitting."""


_Linear = tuple[float, tuple[tuple[str, float], ...]]
"""Seconds at any shape, and seconds per count of a field of StepShape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """Predicts step times of one model, or of a range of its layers, on one device.

    A prediction costs some ten microseconds: matrix times are kept per row count.
    """

    profile: DeviceProfile
    spec: ModelSpec
    form: ModelForm = field(default_factory=ModelForm)
    layers: range | None = None
    """Which of the layers this device runs; None means all."""
    head: bool = True
    """Whether the head runs here (the last stage of a pipeline)."""
    calibration: Calibration = field(default_factory=Calibration)
    _blocks: MatrixRates = field(init=False, repr=False, compare=False)
    _head: MatrixRates = field(init=False, repr=False, compare=False)
    _software: tuple[_Linear, ...] = field(init=False, repr=False, compare=False)
    _products: tuple[tuple[Product, int], ...] = field(init=False, repr=False, compare=False)
    _slot_bytes: float = field(init=False, repr=False, compare=False)
    _pair_flops: int = field(init=False, repr=False, compare=False)
    _scores: int = field(init=False, repr=False, compare=False)
    _block_seconds: dict[int, float] = field(init=False, repr=False, compare=False, default_factory=dict)
    _head_seconds: dict[int, float] = field(init=False, repr=False, compare=False, default_factory=dict)
    _rates: list[tuple[float, float]] = field(init=False, repr=False, compare=False, default_factory=list)

    def __post_init__(self) -> None:
        head_bits = self.form.weight_bits if self.form.head_bits is None else self.form.head_bits
        working_set = self.form.weight_bytes(self.spec.layer_parameters(*self._bounds))
        if self.head:
            working_set += self.spec.vocab_size * self.spec.width * head_bits / 8
        tied = MatrixRates(self.profile, head_bits, working_set, tied_head=True)
        own = tied if self.spec.tied_head and tied.measured else None
        object.__setattr__(self, "_blocks", MatrixRates(self.profile, self.form.weight_bits, working_set))
        object.__setattr__(self, "_head", own or MatrixRates(self.profile, head_bits, working_set))
        blocks: Counter[Block] = Counter()
        for block, count in counted_blocks(self.spec.blocks[slice(*self._bounds)]):
            blocks[block] += count
        products = (
            (product, count)
            for block, count in blocks.items()
            for product in products_of(block, self.spec.width)
        )
        object.__setattr__(self, "_products", tuple(products))
        object.__setattr__(self, "_software", self._linear())
        pairs = sum(
            count * block.mixer.pair_products() for block, count in blocks.items() if block.mixer is not None
        )
        object.__setattr__(self, "_pair_flops", 2 * pairs)
        scored = ((b.mixer, count) for b, count in blocks.items() if isinstance(b.mixer, Attention))
        object.__setattr__(self, "_scores", sum(count * mixer.heads for mixer, count in scored))
        object.__setattr__(self, "_slot_bytes", self.form.kv_bytes(self.spec, 1, self.layers))

    def _linear(self) -> tuple[_Linear, ...]:
        """Attention, element-wise work and overhead as sums over a shape; empty if not measured."""
        extra = self.profile.extra
        if "kv_element_s" not in extra:
            return ()
        # These two cost by their bytes; the rates were measured at software_bits per element.
        scale = self.form.kv_bits / extra.get("software_bits", self.form.kv_bits)
        sums: dict[str, float] = dict.fromkeys(TERMS, 0.0)
        counts: dict[str, dict[str, float]] = {term: {} for term in TERMS}
        for name, (term, counted, units) in software_units(self.spec, self.layers).items():
            seconds = extra.get(name, 0.0) * units * (1.0 if term == "overhead" else scale)
            if counted is None:
                sums[term] += seconds
            elif self.head or counted != "rows":
                also = DENSE_EXTRA.get(counted) if extra.get("dense_attention") else None
                for count in (counted, also) if also else (counted,):
                    counts[term][count] = counts[term].get(count, 0.0) + seconds
        return tuple((sums[term], tuple(counts[term].items())) for term in TERMS[1:])

    @property
    def num_layers(self) -> int:
        return self.spec.layers if self.layers is None else len(self.layers)

    @property
    def _bounds(self) -> tuple[int, int]:
        return (0, self.spec.layers) if self.layers is None else (self.layers.start, self.layers.stop)

    def seconds(self, shape: StepShape) -> float:
        """Predicted wall time of one step."""
        found = self.calibration
        products, attention, elementwise, overhead = self.terms(shape)
        first, second, third, fourth = found.factors
        predicted = first * products + second * attention + third * elementwise + fourth * overhead
        if not found.steps:
            return predicted
        return predicted + sum(rate * n for rate, n in zip(found.rates, counts(shape), strict=True))

    def terms(self, shape: StepShape) -> tuple[float, float, float, float]:
        """Uncalibrated seconds of each of TERMS."""
        if self._software:
            return self._matrices(shape), *self._software_terms(shape)
        overhead = self.profile.extra.get("step_overhead_s", 0.0)
        return self._matrices(shape), self._roofline(shape), 0.0, overhead

    def _matrices(self, shape: StepShape) -> float:
        return self._products_s(shape.chunk_tokens, shape.tokens, shape.rows)

    def _products_s(self, chunk_tokens: int, tokens: int, rows: int) -> float:
        """Seconds of all products of so many tokens, of which some are of chunks."""
        apart = chunk_tokens if self.profile.extra.get("prompts_apart") else 0
        layers = self._layers(apart) + self._layers(tokens - apart)
        if not self.head:
            return layers
        head = self._head_seconds.get(rows)
        if head is None:
            head = self._head.seconds(rows, self.spec.vocab_size, self.spec.width)
            self._head_seconds[rows] = head
        return layers + head

    def _layers(self, tokens: int) -> float:
        """Seconds of the layers' products."""
        if not tokens:
            return 0.0
        seconds = self._block_seconds.get(tokens)
        if seconds is None:
            seconds = sum(
                count * p.count * self._blocks.seconds(p.rows_of(tokens), p.n, p.k)
                for p, count in self._products
            )
            self._block_seconds[tokens] = seconds
        return seconds

    def _software_terms(self, shape: StepShape) -> tuple[float, float, float]:
        attention, elementwise, overhead = (
            constant + sum(seconds * getattr(shape, counted) for counted, seconds in per_count)
            for constant, per_count in self._software
        )
        return attention, elementwise, overhead

    def _roofline(self, shape: StepShape) -> float:
        kv_bytes = shape.slots * self._slot_bytes
        pairs = shape.decode_pairs + shape.chunk_pairs
        rate, pair_s = self._roofline_rates()
        if self.profile.bandwidth_by_working_set:
            rate = read_bytes_per_s(self.profile, kv_bytes)
        return max(kv_bytes / rate, pairs * pair_s)

    def _roofline_rates(self) -> tuple[float, float]:
        """Bytes a second of any keys and values, and seconds for a query token and a slot that it sees; a few
        lanes apart may compute exponentials."""
        if not self._rates:
            products_s = self._pair_flops / flops_per_s(self.profile, self.form.kv_bits)
            rate = self.profile.extra.get("nonlinear_elements_per_s")
            pair_s = max(products_s, self._scores / rate) if rate else products_s
            self._rates.append((read_bytes_per_s(self.profile, 1.0), pair_s))
        return self._rates[0]

    def decode_seconds(self, contexts: Sequence[int], steps: int) -> npt.NDArray[np.float64]:
        """[steps] what `seconds` gives for steps that follow each other, one token for each of the same
        sequences, in one go.

        Args:
            contexts: slots of each sequence in the first of the steps.
            steps: how many; at least 1.
        """
        if self.profile.bandwidth_by_working_set and not self._software:
            return each_step(self.seconds, contexts, steps)
        found = self.calibration
        if not (self._software or found.steps):
            return self._roofline_series(contexts, steps)
        series = DecodeSeries.of(contexts, steps)
        terms: list[Numbers] = [self._matrices(series.first)]
        if self._software:
            terms += [
                constant + summed(seconds * series.count(counted) for counted, seconds in per_count)
                for constant, per_count in self._software
            ]
        else:
            rate, pair_s = self._roofline_rates()
            read_s = series.slots * self._slot_bytes / rate
            compute_s = series.slots * pair_s
            terms += [np.maximum(read_s, compute_s), 0.0, self.profile.extra.get("step_overhead_s", 0.0)]
        total = summed(factor * term for factor, term in zip(found.factors, terms, strict=True))
        if found.steps:
            total += summed(rate * series.count(n) for rate, n in zip(found.rates, COUNTS, strict=True))
        return np.broadcast_to(np.asarray(total, np.float64), (steps,))

    def _roofline_series(self, contexts: Sequence[int], steps: int) -> npt.NDArray[np.float64]:
        """[steps] where nothing is measured and attention is all that changes."""
        count = len(contexts)
        slots = sum(contexts) + count * np.arange(steps, dtype=np.float64)
        rate, pair_s = self._roofline_rates()
        read_s = slots * self._slot_bytes / rate
        first, second, third, fourth = self.calibration.factors
        total = first * self._products_s(0, count, count) + second * np.maximum(read_s, slots * pair_s)
        found: npt.NDArray[np.float64] = (
            total + third * 0.0 + fourth * self.profile.extra.get("step_overhead_s", 0.0)
        )
        return found

    def binding(self, shape: StepShape) -> str:
        """The term that takes most of the step."""
        terms = self.terms(shape)
        return TERMS[terms.index(max(terms))]

    def with_calibration(self, calibration: Calibration) -> StepCost:
        """The same predictor with other factors."""
        return replace(self, calibration=calibration)


def counts(shape: StepShape) -> tuple[int, ...]:
    """COUNTS of a step."""
    return 1, shape.sequences, shape.tokens, shape.decode_pairs, shape.chunk_pairs


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix product of one layer."""

    n: int
    """Outputs."""
    k: int
    """Inputs."""
    count: int = 1
    """How many of this shape there are."""
    share: float = 1.0
    """Of the tokens, how many go through each: of routed experts a part."""

    def rows_of(self, tokens: int) -> int:
        """Rows of it in a step of so many tokens."""
        return tokens if self.share == 1 else max(1, round(tokens * self.share))


def products_of(block: Block, width: int) -> tuple[Product, ...]:
    """Every matrix product of one layer; q, k and v of attention are one."""
    shapes = block.matrices(width)
    found = []
    if isinstance(block.mixer, Attention):
        (q, _), (kv, _) = shapes.pop("q"), shapes.pop("k")
        del shapes["v"]
        found.append(Product(q + 2 * kv, width))
    for name, shape in shapes.items():
        if len(shape) == 2:
            found.append(Product(shape[0], shape[1]))
        elif isinstance(block.feed_forward, Experts) and name.startswith("experts."):
            share = block.feed_forward.per_token / block.feed_forward.count
            found.append(Product(shape[1], shape[2], shape[0], share))
    return tuple(found)


def projected_elements(mixer: Mixer, width: int) -> int:
    """Numbers that a token's projections give in front of mixing: of attention, queries, keys and values."""
    return sum(s[0] for name, s in mixer.shapes(width).items() if len(s) == 2 and name not in ("o", "conv"))


def feed_forward_columns(block: Block) -> int:
    """Hidden columns of the feed-forward that a token goes through."""
    return 0 if block.feed_forward is None else block.feed_forward.width


def chunks(tokens: int, chunk_tokens: int) -> Sequence[tuple[int, int]]:
    """(computed before, tokens) of each step of a chunked prompt."""
    return [(start, min(chunk_tokens, tokens - start)) for start in range(0, tokens, chunk_tokens)]
