"""Every model on every device: one plan or one reason for each pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pentad.application.cli.output import duration, print_json, print_table
from pentad.application.config import Settings
from pentad.errors import Infeasible, InvalidRequest
from pentad.resource import profile as profiles
from pentad.resource.placement.plan import Plan

ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A model on a device."""

    model: str
    device: str
    plan: Plan | None = None
    refusal: Infeasible | None = None

    def cell(self) -> str:
        """Its speed, or the limit that forbids it."""
        if self.plan is not None:
            return f"{self.plan.throughput_tokens_per_s:.1f} tok/s, first in {duration(self.plan.ttft_s)}"
        assert self.refusal is not None
        return f"no: {self.refusal.param or 'infeasible'}"

    def to_dict(self) -> dict[str, Any]:
        """The pair as plain data for JSON."""
        told: dict[str, Any] = {"model": self.model, "device": self.device}
        if self.plan is not None:
            return told | {"plan": self.plan.to_dict()}
        assert self.refusal is not None
        return told | {
            "error": self.refusal.message,
            "hint": self.refusal.hint,
            "binding": self.refusal.param,
        }


def models_named(text: str, settings: Settings) -> list[str]:
    """The models in a list with commas; `all` stands for every chat model of the store."""
    if text != ALL:
        return _names(text, "--models")
    from pentad.model.store import ModelStore

    found = [model.name for model in ModelStore(settings.root).list() if model.kind == "chat"]
    if not found:
        raise InvalidRequest("the store has no models", hint="bring one: pentad pull smollm2-135m")
    return found


def devices_named(text: str, settings: Settings) -> list[str]:
    """The devices in a list with commas; `all` stands for this machine, once measured, and the catalogue."""
    if text != ALL:
        return _names(text, "--devices")
    own = ["local"] if settings.profile_path.exists() else []
    return own + [device.name for device in profiles.published()]


def fill(models: Sequence[str], devices: Sequence[str], plan: Callable[[str, str], Plan]) -> list[Pair]:
    """A pair for each model and device, by models first."""
    pairs = []
    for model in models:
        for device in devices:
            try:
                pairs.append(Pair(model=model, device=device, plan=plan(model, device)))
            except Infeasible as refusal:
                pairs.append(Pair(model=model, device=device, refusal=refusal))
    return pairs


def show(pairs: Sequence[Pair], *, as_json: bool) -> int:
    """Prints the matrix, devices down and models across; the exit status: 3 where nothing fits."""
    if as_json:
        print_json([pair.to_dict() for pair in pairs])
    else:
        models = list(dict.fromkeys(pair.model for pair in pairs))
        devices = list(dict.fromkeys(pair.device for pair in pairs))
        cells = {(pair.device, pair.model): pair.cell() for pair in pairs}
        rows = [(device, *(cells[device, model] for model in models)) for device in devices]
        print_table(("device", *models), rows, empty="no pairs")
    return 0 if any(pair.plan for pair in pairs) else Infeasible.exit_code


def _names(text: str, flag: str) -> list[str]:
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise InvalidRequest(f"{flag} is {text!r}", hint=f"give names with commas, or {flag} {ALL}")
    return names
