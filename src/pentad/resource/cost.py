"""StepCost: predicted seconds of one engine step, from the shape of its ragged batch.

A step's time is a sum of terms, each with its own measured rate:

    matrices    layers x (q, k, v, o, gate, up, down) at N rows, plus the head at R rows
    attention   layers x max(bytes of keys and values read, multiply-adds over visible pairs)
    elementwise layers x N rows of norms, rotations, activations and residuals
    overhead    per step, per layer, and per sequence: launches and bookkeeping

The rates come from a DeviceProfile, so a prediction for a model needs no run of that model.
`calibrate` is the separate, optional second level: it scales the terms to a few steps of the
real runner.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pentad.execution.batch import RaggedBatch
from pentad.execution.device import DeviceProfile
from pentad.execution.spec import ModelSpec
from pentad.resource.matrices import MatrixRates, flops_per_s, read_bytes_per_s

Floats = npt.NDArray[np.float64]

TERMS = ("matrices", "attention", "elementwise", "overhead")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelForm:
    """The precision in which a model lies in a device's memory."""

    weight_bits: float = 16
    kv_bits: float = 16

    def __post_init__(self) -> None:
        for name in ("weight_bits", "kv_bits"):
            if not 0 < getattr(self, name) <= 64:
                raise ValueError(f"{name} is {getattr(self, name)}, must be above 0 and at most 64")

    def weight_bytes(self, parameters: float) -> float:
        return parameters * self.weight_bits / 8

    def kv_bytes(self, spec: ModelSpec, slots: float, layers: int | None = None) -> float:
        """Bytes of keys and values of `slots` tokens over `layers` (None means all)."""
        share = 1.0 if layers is None else layers / spec.layers
        return slots * spec.kv_bytes_per_token(self.kv_bits / 8) * share


@dataclass(frozen=True, slots=True, kw_only=True)
class StepShape:
    """The numbers of a ragged batch that its time depends on."""

    tokens: int
    """N: new tokens computed."""
    sequences: int
    rows: int
    """R: rows through the head."""
    slots: int
    """KV slots read: the sum of the context lengths."""
    pairs: int
    """(token, visible slot) pairs, the unit of attention's multiply-adds."""

    @classmethod
    def of(cls, batch: RaggedBatch) -> StepShape:
        """The shape of a batch; causal attention, no window."""
        new = np.diff(batch.starts).astype(np.int64)
        contexts = batch.context_lens.astype(np.int64)
        return cls(
            tokens=len(batch.token_ids),
            sequences=len(new),
            rows=len(batch.logit_rows),
            slots=int(contexts.sum()),
            pairs=int((new * contexts - new * (new - 1) // 2).sum()),
        )

    @classmethod
    def prefill(cls, tokens: int, *, cached: int = 0, rows: int = 1) -> StepShape:
        """One prompt chunk of `tokens` behind `cached` computed ones."""
        context = cached + tokens
        pairs = tokens * context - tokens * (tokens - 1) // 2
        return cls(tokens=tokens, sequences=1, rows=rows, slots=context, pairs=pairs)

    @classmethod
    def decode(cls, sequences: int, context: int) -> StepShape:
        """One token for each of `sequences`, which then hold `context` slots each."""
        slots = sequences * context
        return cls(tokens=sequences, sequences=sequences, rows=sequences, slots=slots, pairs=slots)

    def __add__(self, other: StepShape) -> StepShape:
        return StepShape(
            tokens=self.tokens + other.tokens,
            sequences=self.sequences + other.sequences,
            rows=self.rows + other.rows,
            slots=self.slots + other.slots,
            pairs=self.pairs + other.pairs,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Factors on the predicted terms, fitted to measured steps; all 1 means pure prediction."""

    factors: tuple[float, ...] = (1.0,) * len(TERMS)
    steps: int = 0
    """How many measured steps the factors rest on."""
    error: float = 0.0
    """Median relative error over those steps after fitting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """Predicts step times of one model, or of a range of its layers, on one device.

    A prediction costs a few microseconds: matrix times are kept per row count.
    """

    profile: DeviceProfile
    spec: ModelSpec
    form: ModelForm = field(default_factory=ModelForm)
    layers: int | None = None
    """How many of the layers this device runs; None means all."""
    head: bool = True
    """Whether the head runs here (the last stage of a pipeline)."""
    calibration: Calibration = field(default_factory=Calibration)
    _rates: MatrixRates = field(init=False, repr=False, compare=False)
    _block_seconds: dict[int, float] = field(init=False, repr=False, compare=False, default_factory=dict)
    _head_seconds: dict[int, float] = field(init=False, repr=False, compare=False, default_factory=dict)
    _attention: tuple[float, float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        working_set = self.form.weight_bytes(self.num_layers * self.spec.block_parameters)
        rates = MatrixRates(self.profile, self.form.weight_bits, working_set)
        object.__setattr__(self, "_rates", rates)
        extra = self.profile.extra
        read = extra.get("attention_bytes_per_s") or read_bytes_per_s(self.profile, working_set)
        compute = extra.get("attention_flops_per_s") or flops_per_s(self.profile, self.form.kv_bits)
        object.__setattr__(self, "_attention", (read, compute))

    @property
    def num_layers(self) -> int:
        return self.spec.layers if self.layers is None else self.layers

    def seconds(self, shape: StepShape) -> float:
        """Predicted wall time of one step."""
        terms = self.terms(shape)
        return sum(factor * term for factor, term in zip(self.calibration.factors, terms, strict=True))

    def terms(self, shape: StepShape) -> tuple[float, float, float, float]:
        """Uncalibrated seconds of matrices, attention, element-wise work and overhead."""
        spec, layers, extra = self.spec, self.num_layers, self.profile.extra
        blocks = self._block_seconds.get(shape.tokens)
        if blocks is None:
            blocks = self._block_seconds[shape.tokens] = self._block(shape.tokens)
        matrices = layers * blocks
        if self.head:
            head = self._head_seconds.get(shape.rows)
            if head is None:
                head = self._rates.seconds(shape.rows, spec.vocab_size, spec.width)
                self._head_seconds[shape.rows] = head
            matrices += head
        read, compute = self._attention
        attention = max(
            self.form.kv_bytes(spec, shape.slots, layers) / read,
            4 * layers * spec.heads * spec.head_dim * shape.pairs / compute,
        )
        elements = layers * shape.tokens * activation_elements(spec)
        overhead = (
            extra.get("step_overhead_s", 0.0)
            + layers * extra.get("layer_overhead_s", 0.0)
            + shape.sequences * extra.get("sequence_overhead_s", 0.0)
            + layers * shape.sequences * extra.get("sequence_layer_overhead_s", 0.0)
        )
        return matrices, attention, elements * extra.get("element_s", 0.0), overhead

    def _block(self, rows: int) -> float:
        return sum(self._rates.seconds(rows, n, k) for n, k in block_matrices(self.spec))

    def binding(self, shape: StepShape) -> str:
        """The term that takes most of the step."""
        terms = self.terms(shape)
        return TERMS[terms.index(max(terms))]


def block_matrices(spec: ModelSpec) -> tuple[tuple[int, int], ...]:
    """(out, in) of every matrix of one layer."""
    q, kv, width, ffn = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim, spec.width, spec.ffn_width
    up = ((ffn, width),) * (2 if spec.gated else 1)
    return ((q, width), (kv, width), (kv, width), (width, q), *up, (width, ffn))


def activation_elements(spec: ModelSpec) -> int:
    """Elements that one token's norms, rotations, activation and residuals touch in one layer."""
    q, kv = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    return 8 * spec.width + 4 * (q + 2 * kv) + (4 if spec.gated else 2) * spec.ffn_width


def calibrated(cost: StepCost, measured: Iterable[tuple[StepShape, float]]) -> StepCost:
    """The same predictor with its terms scaled to measured steps, by non-negative least squares.

    Residuals are relative, so short steps count as much as long ones. Needs steps of at least two
    different shapes to tell terms apart; a term absent from all of them keeps the factor 1.

    Args:
        cost: uncalibrated or calibrated predictor; its own factors are replaced.
        measured: shapes with their wall seconds on the real runner.
    """
    pairs = list(measured)
    if not pairs:
        raise ValueError("calibration needs at least one measured step")
    terms = np.array([cost.terms(shape) for shape, _ in pairs])
    seconds = np.array([value for _, value in pairs])
    factors = _fit(terms / seconds[:, None], np.ones(len(pairs)))
    predicted = terms @ factors
    calibration = Calibration(
        factors=tuple(float(value) for value in factors),
        steps=len(pairs),
        error=float(np.median(np.abs(predicted / seconds - 1))),
    )
    return StepCost(
        profile=cost.profile,
        spec=cost.spec,
        form=cost.form,
        layers=cost.layers,
        head=cost.head,
        calibration=calibration,
    )


def _fit(a: Floats, b: Floats) -> Floats:
    """Non-negative least squares, drawn towards 1 where the data say little (a weak ridge)."""
    pull = 0.03 * np.sqrt(len(b))
    a = np.vstack([a, np.diag(np.full(a.shape[1], pull))])
    b = np.concatenate([b, np.full(a.shape[1], pull)])
    active: list[int] = list(range(a.shape[1]))
    while active:
        solution = np.linalg.lstsq(a[:, active], b, rcond=None)[0]
        if (solution >= 0).all():
            break
        active.pop(int(np.argmin(solution)))
    factors = np.zeros(a.shape[1])
    factors[active] = solution if active else []
    return factors


def chunks(tokens: int, chunk_tokens: int) -> Sequence[tuple[int, int]]:
    """(computed before, tokens) of each step of a chunked prompt."""
    return [(start, min(chunk_tokens, tokens - start)) for start in range(0, tokens, chunk_tokens)]
