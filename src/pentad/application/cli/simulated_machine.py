"""The machine of a simulation of several models, from settings and the name of a device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pentad.application.bench.elastic.simulated import SimulatedMachine
    from pentad.application.config import Settings


Models = Annotated[
    str | None, typer.Option("--models", metavar="NAME,...", help="Models; absent: those of the settings.")
]


def serving(settings: Settings, models: str | None) -> Settings:
    """The settings with these models, written with commas, in the place of their own."""
    if models is None:
        return settings
    named = tuple(dict.fromkeys(part.strip() for part in models.split(",") if part.strip()))
    return settings.model_copy(update={"models": named})


def machine_of(settings: Settings, device: str) -> SimulatedMachine:
    """The local models of the settings on a device, with what is said of their quality and price.

    Raises NotFound, InvalidRequest: no such model, or no profile (`pentad profile` makes one).
    """
    from pentad.application.bench.elastic.simulated import SimulatedMachine
    from pentad.application.cli.planning import describe, device_of, form_for
    from pentad.execution.scheduling import EngineLimits
    from pentad.model.prices import Price
    from pentad.resource.cost import StepCost

    profile = device_of(device, settings)
    found = {name: describe(name, settings) for name in settings.models}
    engine = settings.engine
    return SimulatedMachine(
        costs={
            name: StepCost(profile=profile, spec=one.spec, form=form_for(one, profile, None, None))
            for name, one in found.items()
        },
        qualities={name: one.quality for name, one in found.items() if one.quality is not None},
        prices={
            one.model: Price(prompt=one.prompt, completion=one.completion, cached=one.cached)
            for one in settings.prices
        },
        limits=EngineLimits(
            max_batch_tokens=engine.max_batch_tokens,
            max_sequences=engine.max_sequences,
            max_waiting=engine.max_waiting,
        ),
        scheduler=str(engine.scheduler),
    )
