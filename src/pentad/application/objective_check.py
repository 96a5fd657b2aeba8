"""Whether a machine and its models can keep what classes are promised, and what would have to change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from pentad.execution.scheduling import EngineLimits
from pentad.model.prices import FREE, Price
from pentad.resource.service_classes import ServiceClass
from pentad.resource.simulator.class_mix import TIMES, ClassLoad, ClassMix, Served
from pentad.resource.simulator.runner import StepTimes
from pentad.resource.step_shape import StepShape

_JUDGED: Final = 20
"""Runs after which a measured share of right ones takes the place of what is stated."""
_HALVINGS: Final = 3
Basis = Literal["measured", "stated", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What is known of a model on the machine."""

    name: str
    cost: StepTimes
    quality: float | None = None
    """As the catalogue or a certificate says."""
    price: Price = FREE
    judged: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """By class: runs that were right, and all."""

    def quality_for(self, of: ServiceClass) -> tuple[float | None, Basis]:
        """Its quality for a class, and on whose word."""
        right, runs = self.judged.get(of.name, (0, 0))
        if runs >= _JUDGED:
            return right / runs, "measured"
        return self.quality, "unknown" if self.quality is None else "stated"

    def alone(self, load: ClassLoad) -> Served:
        """A request of the load with nobody else there."""
        first_s = self.cost.seconds(StepShape.prefill(load.prompt_tokens))
        token_s = self.cost.seconds(StepShape.decode(1, load.prompt_tokens + load.answer_tokens // 2))
        total_s = first_s + token_s * (load.answer_tokens - 1)
        return Served(ttft_s=first_s, inter_token_s=token_s, deadline_s=total_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassVerdict:
    """What was found of one class."""

    name: str
    kept: bool
    model: str
    """That would serve it; empty where none can."""
    quality: float | None
    basis: Basis
    attained: float | None
    """Share of its requests that keep all times; None where it was not simulated."""
    target: float
    binding: str
    """The limit that breaks first, or empty."""
    changes: tuple[str, ...]
    """Each would do by itself."""


def check_objectives(
    classes: Sequence[ServiceClass],
    loads: Mapping[str, ClassLoad],
    models: Sequence[ModelFacts],
    *,
    limits: EngineLimits | None = None,
    scheduler: str = "sarathi",
    seed: int = 0,
) -> list[ClassVerdict]:
    """A verdict for each class, all of them served at once: by the fastest model that is good enough for it.

    Every model's engine takes turns on the machine; requests arrive at random at the loads' rates. Cost: a
    simulation, and some more for classes that are not kept.
    """
    loads = {one.name: loads.get(one.name, ClassLoad()) for one in classes}
    chosen: dict[str, ModelFacts] = {}
    for one in classes:
        able = [model for model in models if not _unfit(model, one, loads[one.name])]
        if able:
            chosen[one.name] = min(able, key=lambda model: model.alone(loads[one.name]).deadline_s)
    mix = ClassMix(
        classes=classes,
        loads=loads,
        models={name: model.name for name, model in chosen.items()},
        costs={model.name: model.cost for model in models},
        limits=limits or EngineLimits(),
        scheduler=scheduler,
        seed=seed,
    )
    served = mix.simulate() if chosen else {}
    short = [one for one in classes if one.name in chosen and not _attained(one, served[one.name])]
    # Fewer requests do not help a class that misses its target alone.
    hopeful = [one for one in short if chosen[one.name].alone(loads[one.name]).keeps(one)]
    share = _bearable(mix, hopeful) if hopeful else 0.0
    return [
        _verdict(one, loads[one.name], models, chosen.get(one.name), served.get(one.name), share)
        for one in classes
    ]


def _unfit(model: ModelFacts, of: ServiceClass, load: ClassLoad) -> str:
    """The promise, times apart, that the model cannot keep for the class; empty: none."""
    quality, _ = model.quality_for(of)
    if of.quality is not None and (quality is None or quality < of.quality):
        return "quality"
    if of.max_cost is not None and model.price.at_most(load.prompt_tokens, load.answer_tokens) > of.max_cost:
        return "max_cost"
    # Nothing says before the first answers what energy a token takes, and nothing is given up unsaid.
    return "max_energy_j" if of.max_energy_j is not None else ""


def _attained(of: ServiceClass, served: Sequence[Served]) -> bool:
    return _share(of, served) >= of.target


def _share(of: ServiceClass, served: Sequence[Served]) -> float:
    return sum(one.keeps(of) for one in served) / len(served) if served else 1.0


def _bearable(mix: ClassMix, short: Sequence[ServiceClass]) -> float:
    """The share of all loads at which these classes are kept; 0 where not even an eighth is."""
    low, high = 0.0, 1.0
    share = 0.5
    for _ in range(_HALVINGS):
        served = mix.simulate(share)
        if all(_attained(one, served[one.name]) for one in short):
            low = share
        else:
            high = share
        share = (low + high) / 2
    return low


def _verdict(
    of: ServiceClass,
    load: ClassLoad,
    models: Sequence[ModelFacts],
    model: ModelFacts | None,
    served: Sequence[Served] | None,
    share: float,
) -> ClassVerdict:
    if model is None or served is None:
        return _unserved(of, load, models)
    quality, basis = model.quality_for(of)
    attained = _share(of, served)
    kept = attained >= of.target
    binding = "" if kept else _binding(of, served)
    return ClassVerdict(
        name=of.name,
        kept=kept,
        model=model.name,
        quality=quality,
        basis=basis,
        attained=round(attained, 4),
        target=of.target,
        binding=binding,
        changes=() if kept else _changes(of, load, models, model, served, binding, share),
    )


def _binding(of: ServiceClass, served: Sequence[Served]) -> str:
    """The time that most requests miss."""
    missed = {
        name: sum(getattr(one, name) > getattr(of, name) for one in served)
        for name in TIMES
        if getattr(of, name) is not None
    }
    return max(missed, key=lambda name: missed[name])


def _changes(
    of: ServiceClass,
    load: ClassLoad,
    models: Sequence[ModelFacts],
    model: ModelFacts,
    served: Sequence[Served],
    binding: str,
    share: float,
) -> tuple[str, ...]:
    """What would have to change, each by itself."""
    found = []
    needed = float(np.quantile([getattr(one, binding) for one in served], of.target, method="higher"))
    if np.isfinite(needed):
        found.append(f"a {binding} of {_up(needed)} instead of {getattr(of, binding):g}")
    if share > 0 and model.alone(load).keeps(of):
        found.append(f"{share:.0%} of all loads: {share * load.per_minute:.3g} a minute of this class")
    elif getattr(model.alone(load), binding) > getattr(of, binding):
        found.append(f"a shorter answer or prompt: alone on the machine it misses {binding} already")
    own_s = model.alone(load).deadline_s
    for other in models:
        alone = other.alone(load)
        if other is model or alone.deadline_s >= own_s or not alone.keeps(of):
            continue
        quality, basis = other.quality_for(of)
        if _unfit(other, of, load) == "quality" and quality is not None:
            times = own_s / alone.deadline_s
            found.append(f"a quality of {quality:.2g}, {basis}: {other.name} is {times:.1f} times as fast")
    return tuple(found)


def _unserved(of: ServiceClass, load: ClassLoad, models: Sequence[ModelFacts]) -> ClassVerdict:
    """No model keeps what is promised besides time."""
    reasons = [_unfit(model, of, load) for model in models]
    binding = max(dict.fromkeys(reasons), key=reasons.count) if reasons else "models"
    known = [(quality, model.name) for model in models if (quality := model.quality_for(of)[0]) is not None]
    changes = []
    if binding == "quality":
        best = max(known, default=None)
        changes.append("a better model" if best is None else f"a quality of {best[0]:.2g}, by {best[1]}")
        changes.append("runs that were judged: pentad bench elastic --out FILE, and then --measured FILE")
    elif binding == "max_cost":
        least = min(model.price.at_most(load.prompt_tokens, load.answer_tokens) for model in models)
        changes.append(f"a max_cost of {least:.3g}, or shorter answers")
    else:
        changes.append("no max_energy_j: nothing says before serving what energy a token takes")
    return ClassVerdict(
        name=of.name,
        kept=False,
        model="",
        quality=max(known)[0] if known else None,
        basis="unknown",
        attained=None,
        target=of.target,
        binding=binding,
        changes=tuple(changes),
    )


def _up(seconds: float) -> str:
    """Seconds, rounded up to three digits: what is promised must hold."""
    digits = 2 - int(np.floor(np.log10(max(seconds, 1e-9))))
    return f"{np.ceil(seconds * 10.0**digits) / 10.0**digits:.6g}"


def judged_of(lines: Sequence[Any]) -> dict[str, dict[str, tuple[int, int]]]:
    """By model and class, how many runs of a benchmark were right, of how many; ways together."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for one in lines:
        if not one.model or not one.judges:
            continue
        by_class = found.setdefault(one.model, {})
        right, runs = by_class.get(one.slo_class, (0, 0))
        by_class[one.slo_class] = (right + one.right, runs + 1)
    return found
