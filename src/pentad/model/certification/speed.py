"""Speed and energy of both models on this machine, measured in turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pentad.errors import Incompatible
from pentad.execution.batch import SampleRow
from pentad.model.certification.base import Bench, Better, Measured, Row, Subject, bootstrapped
from pentad.model.certification.logits import batch_of
from pentad.ranges import in_range

_GREEDY = [SampleRow(temperature=0.0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedProbe:
    """Turns of both models, each reading a prompt and drawing tokens behind it, one sequence alone."""

    turns: int = 5
    prompt_tokens: int = 128
    answer_tokens: int = 32

    @property
    def key(self) -> str:
        return f"speed-{self.turns}-{self.prompt_tokens}-{self.answer_tokens}"

    def units(self, bench: Bench) -> int:
        context = bench.derived.files.spec.context_length
        if self.prompt_tokens + self.answer_tokens > context:
            raise Incompatible(
                f"speed is measured with {self.prompt_tokens} tokens of prompt and {self.answer_tokens} of "
                f"answer, the model's context has {context}",
                hint="set --metric to others than the timed ones",
                param="metric",
            )
        return self.turns

    def measure(self, bench: Bench, unit: int) -> Row:
        """Seconds and joules of a turn of each; who begins changes from turn to turn."""
        order = (("", bench.derived), ("source_", bench.source))
        row: dict[str, float] = {}
        for prefix, subject in order if unit % 2 else reversed(order):
            row |= {prefix + name: value for name, value in self._turn(bench, subject).items()}
        return row

    def data(self, bench: Bench) -> Mapping[str, str]:  # noqa: ARG002
        return {}

    def _turn(self, bench: Bench, subject: Subject) -> dict[str, float]:
        runner, vocab = subject.runner(), subject.files.spec.vocab_size
        prompt = [(i * 7919 + 11) % vocab for i in range(self.prompt_tokens)]
        runner.step(batch_of(runner, prompt[:1], 0), _GREEDY)  # what is paged in at first is no speed
        began = bench.clock()
        token = runner.step(batch_of(runner, prompt, 0, last_only=True), _GREEDY)[0].token
        read, joules = bench.clock(), bench.meter.joules()
        for place in range(self.prompt_tokens, self.prompt_tokens + self.answer_tokens):
            token = runner.step(batch_of(runner, [token], place, last_only=True), _GREEDY)[0].token
        drawn, used = bench.clock(), bench.meter.joules()
        return {
            "prefill": self.prompt_tokens / max(1e-9, read - began),
            "decode": self.answer_tokens / max(1e-9, drawn - read),
            "joules": 0.0 if used is None or joules is None else (used - joules) / self.answer_tokens,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Base of the metrics of speed: the mean over turns. A subclass names its field of the row."""

    turns: int = 5
    """Turns of each model, 1 or more."""

    field: ClassVar[str]
    timed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        in_range("turns", self.turns, least=1, most=1000)

    @property
    def probe(self) -> SpeedProbe:
        return SpeedProbe(turns=self.turns)

    def value(self, rows: Sequence[Row]) -> Measured:
        """The mean over turns, with the paired bootstrap over them."""

        def mean(some: Sequence[Row], field: str) -> float:
            return sum(row[field] for row in some) / len(some)

        source = mean(rows, f"source_{self.field}")
        return bootstrapped(rows, lambda some: mean(some, self.field), what="turns", source=source)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeSpeed(Timed):
    """Tokens a second that one sequence draws alone, on the machine that the certificate names."""

    name: ClassVar[str] = "decode-speed"
    unit: ClassVar[str] = "tokens/s"
    better: ClassVar[Better] = "higher"
    field: ClassVar[str] = "decode"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillSpeed(Timed):
    """Tokens a second of a prompt of 128 tokens, on the machine that the certificate names."""

    name: ClassVar[str] = "prefill-speed"
    unit: ClassVar[str] = "tokens/s"
    better: ClassVar[Better] = "higher"
    field: ClassVar[str] = "prefill"


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy(Timed):
    """Joules of the machine for a token drawn alone: counted where it has counters, else modelled.

    The certificate's `machine` says which.
    """

    name: ClassVar[str] = "joules"
    unit: ClassVar[str] = "J/token"
    better: ClassVar[Better] = "lower"
    field: ClassVar[str] = "joules"
