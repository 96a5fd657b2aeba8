"""What a network sees of each site: the estimate of the request there, and what all sites have in common."""

from __future__ import annotations

import numpy as np

from pentad.execution.value_learning import Array, Layers
from pentad.resource.offloading.base import OffloadInput, Site, estimate
from pentad.resource.offloading.scenarios import USUAL_DEADLINE_S

_MOST = 4.0
"""Times the deadline: what takes longer is as bad."""
_PLACES = 4
"""Edge machines that a placed network tells apart, by their order."""

OWN = (
    "completion",
    "sending",
    "waiting",
    "computing",
    "late",
    "slack",
    "energy",
    "money",
    "share",
    "layers here",
    "device",
    "edge",
    "remote",
)
"""Of one site; times are shares of the deadline."""
COMMON = ("deadline", "work", "shortest wait", "mean wait", "least completion", "battery")
"""Of the request and of all sites together."""
PLAIN = (*OWN, *COMMON)
PLACED = (*PLAIN, *(f"machine {place}" for place in range(_PLACES)))


def features(state: OffloadInput, sites: tuple[Site, ...], *, placed: bool = False) -> Array:
    """Numbers about -1 to 4, [sites, PLAIN] or, where `placed`, [sites, PLACED].

    Plain features say nothing of which machine a site is, so what was learnt holds for other clusters. Placed
    ones do, so that a network can learn what a machine does not say of itself.
    """
    deadline_s = state.task.context.objective.deadline_s or USUAL_DEADLINE_S
    found = [estimate(state.task, site) for site in sites]
    times = np.array(
        [(e.completion_s, e.send_s, e.wait_s, e.prompt_s + e.answer_s) for e in found], dtype=np.float32
    )
    times = np.minimum(times / deadline_s, _MOST)
    completion, waiting, computing = times[:, 0], times[:, 2], times[:, 3]
    table = np.empty((len(sites), len(PLACED) if placed else len(PLAIN)), dtype=np.float32)
    table[:, :4] = times
    table[:, 4] = completion > 1
    table[:, 5] = np.clip(1 - completion, -1, 1)
    table[:, 6] = [np.log1p(e.energy_j) / 3 for e in found]
    table[:, 7] = [np.log1p(4 * e.cost) for e in found]
    table[:, 8] = [site.share for site in sites]
    table[:, 9] = [site.layers_here for site in sites]
    for column, kind in enumerate(("device", "edge", "remote"), 10):
        table[:, column] = [site.kind == kind for site in sites]
    table[:, 13] = np.log(deadline_s) / 3
    table[:, 14] = computing.max()
    table[:, 15] = waiting.min()
    table[:, 16] = waiting.mean()
    table[:, 17] = completion.min()
    table[:, 18] = 1.0 if state.battery_j is None else np.log1p(state.battery_j) / 5
    if placed:
        machines = sorted({site.machine or site.name for site in state.sites if site.kind == "edge"})
        places = {machine: place for place, machine in enumerate(machines[:_PLACES])}
        table[:, len(PLAIN) :] = 0
        for row, site in enumerate(sites):
            if (place := places.get(site.machine or site.name)) is not None:
                table[row, len(PLAIN) + place] = 1
    return table


def scores(layers: Layers, table: Array) -> Array:
    """What a network says of each row, [sites]."""
    *inner, (matrix, bias) = layers
    for weight, shift in inner:
        table = np.maximum(table @ weight + shift, 0)
    found: Array = (table @ matrix + bias)[:, 0]
    return found
