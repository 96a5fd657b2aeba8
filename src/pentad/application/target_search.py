"""Search for a target: methods and settings tried one after another, measured, the best within it made."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from pentad import registry
from pentad.application.config import Settings
from pentad.application.config_loading import parse_bytes
from pentad.application.measuring import Alone, Request, measure
from pentad.choice import Choice, build, options_of
from pentad.errors import Incompatible, Infeasible, InvalidRequest
from pentad.execution.quantize import writable
from pentad.model.certification.certificate import Certificate, sealed, write_certificate
from pentad.model.compression import CalibrationText, compress
from pentad.model.store import ModelStore
from pentad.model.stored import StoredModel

Tell = Callable[[str, int, int], None]
"""Told what is tried, how many have been, and of how many."""
SPARSITIES = (0.3, 0.5)
"""Tried of methods that prune."""
_PAIRS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is wanted: at most so many bytes, so much faster, or at most so much divergence."""

    kind: str
    bound: float
    """size: bytes, or below 1 a share of the source; speed: of decoding, times the source; quality: KL."""

    @classmethod
    def of(cls, text: str) -> Target:
        """The target written as `size=60MB`, `size=0.5`, `speed=1.3` or `quality=0.05`.

        Raises InvalidRequest for anything else.
        """
        kind, _, value = text.partition("=")
        try:
            bound = float(value)
        except ValueError:
            try:
                bound = float(parse_bytes(value)) if kind == "size" else -1.0
            except ValueError:
                bound = -1.0
        if kind not in ("size", "speed", "quality") or not 0 < bound < float("inf"):
            raise InvalidRequest(
                f"{text!r:.100} is no target",
                hint="write size=60MB, size=0.5 (of the source's), speed=1.3 or quality=0.05 (KL in nats)",
                param="target",
            )
        return cls(kind=kind, bound=bound)

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is measured of every candidate."""
        return ("kl", "top1", "size", *(("decode-speed",) if self.kind == "speed" else ()))

    def reached(self, found: Certificate) -> bool:
        """Whether a candidate is within it."""
        if self.kind == "quality":
            return found.measured["kl"].value <= self.bound
        if self.kind == "size":
            size = found.measured["size"]
            bound = self.bound if self.bound >= 1 or size.source is None else self.bound * size.source
            return size.value <= bound
        speed = found.measured["decode-speed"]
        return speed.source is not None and speed.value >= self.bound * speed.source

    def cost(self, found: Certificate) -> float:
        """What is to be small among those within it: the size where quality is given, else the divergence."""
        return found.measured["size" if self.kind == "quality" else "kl"].value


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One candidate, and what came of it."""

    methods: tuple[str, ...]
    certificate: Certificate | None
    reached: bool = False
    about: str = ""
    """Why it could not be tried."""


def singles(methods: Sequence[Choice], *, calibrated: bool) -> list[Choice]:
    """Each method alone, in its settings: the first setting of every one before the second of any.

    Args:
        methods: those to choose from, with their options; empty takes every registered one.
        calibrated: whether there is a calibration text.
    """
    chosen = methods or [Choice(name=name) for name in registry.known("transform")]
    usable = [each for each in chosen if calibrated or not build("transform", each).needs]
    turns = itertools.zip_longest(*(list(_settings(each)) for each in usable))
    return [each for turn in turns for each in turn if each is not None]


def pairs(tried: Sequence[Tried]) -> list[tuple[Choice, Choice]]:
    """The best that prunes, followed by each of the best that quantize, by measured divergence.

    A method that has the option `sparsity` prunes, one that has `format` but no sparsity quantizes, and what
    prunes comes first, since zeros survive rounding and a rounded matrix is no measure of worth.
    """
    ranked = sorted(
        (each.certificate.measured["kl"].value, place)
        for place, each in enumerate(tried)
        if each.certificate is not None and len(each.methods) == 1
    )
    best = [Choice.of(tried[place].methods[0]) for _, place in ranked]
    pruning = [each for each in best if stage(each) == "prune"][:1]
    rounding = [each for each in best if stage(each) == "quantize"][:_PAIRS]
    return list(itertools.product(pruning, rounding))


def stage(method: Choice) -> str:
    """What a method does, by its options."""
    options = options_of(registry.load("transform", method.name))
    return "prune" if "sparsity" in options else "quantize" if "format" in options else "other"


def _settings(method: Choice) -> Iterator[Choice]:
    """A method as it was chosen, or in the settings that are tried where nobody chose."""
    if method.options or stage(method) == "other":
        yield method
    elif stage(method) == "prune":
        yield from (Choice(name=method.name, options={"sparsity": share}) for share in SPARSITIES)
    else:
        formats = [each for each in ("Q8_0", "Q4_1", "Q4_0") if each in writable()]
        yield from (Choice(name=method.name, options={"format": each}) for each in formats)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One search.

    Args:
        text: what candidates are measured on; better not what they are calibrated on.
        most: candidates tried at most: `singles` in their order, and at the end `pairs` of the best.
    """

    store: ModelStore
    settings: Settings
    alone: Alone
    source: str
    out: str
    target: Target
    methods: Sequence[Choice]
    calibration: CalibrationText | None
    text: pathlib.Path
    most: int
    windows: int = 8
    window_tokens: int = 128

    def run(self, tell: Tell) -> tuple[StoredModel, Certificate, list[Tried]]:
        """Tries, and makes the best within the target, with its certificate.

        Equal cost: the first tried. Raises Infeasible, naming the nearest, where none is within it.
        """
        tried: list[Tried] = []
        alone = singles(self.methods, calibrated=self.calibration is not None)
        kinds = {stage(each) for each in alone}
        room = _PAIRS if {"prune", "quantize"} <= kinds and self.most > _PAIRS + 1 else 0
        alone = alone[: self.most - room]
        for each in alone:
            tell(str(each), len(tried), len(alone) + room)
            tried.append(self._try(len(tried), [each]))
        for pair in pairs(tried)[:room]:
            tell(" + ".join(map(str, pair)), len(tried), len(alone) + room)
            tried.append(self._try(len(tried), pair))
        within = [(self.target.cost(t.certificate), t) for t in tried if t.certificate and t.reached]
        if not within:
            raise Infeasible(
                self._nearest(tried), hint="set --target lower, or name other methods with --method"
            )
        best = min(within, key=lambda pair: pair[0])[1]
        assert best.certificate is not None
        made = self._compress(self.out, [Choice.of(each) for each in best.methods])
        command = self._request(self.out).command({})
        found = sealed(replace(best.certificate, model=made.name, command=command))
        write_certificate(self.store.folders, found)
        return made, found, tried

    def _try(self, place: int, methods: Sequence[Choice]) -> Tried:
        name, written = f"{self.out}-try-{place}", tuple(map(str, methods))
        try:
            self._compress(name, methods)
            found = measure(self.store, self.settings, self._request(name), self.alone)
        except Incompatible as error:
            return Tried(methods=written, certificate=None, about=error.message)
        finally:
            if any(each.name == name for each in self.store.list()):
                self.store.remove(name)
        return Tried(methods=written, certificate=found, reached=self.target.reached(found))

    def _compress(self, name: str, methods: Sequence[Choice]) -> StoredModel:
        made, _ = compress(
            self.store,
            self.source,
            name,
            methods,
            calibration=self.calibration,
            tell=lambda *_: None,
        )
        return made

    def _request(self, name: str) -> Request:
        return Request(
            model=name,
            text=self.text,
            windows=self.windows,
            window_tokens=self.window_tokens,
            metrics=self.target.metrics,
        )

    def _nearest(self, tried: Sequence[Tried]) -> str:
        told = [
            f"{' + '.join(t.methods)} has {t.certificate.measured['size'].value:.0f} bytes and KL "
            f"{t.certificate.measured['kl'].value:.4g}"
            for t in tried
            if t.certificate is not None
        ]
        reasons = "; ".join(told) or "; ".join(t.about for t in tried) or "no method could be tried"
        return f"nothing of what was tried is within {self.target.kind}={self.target.bound:g}: {reasons}"
