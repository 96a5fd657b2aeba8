"""CostBook: step costs and stage sizes of one planning problem, each computed once.

A search asks for the same few stages of the same few kinds of devices again and again. Devices that differ
in nothing but their name are one kind, and stages of equally many equal layers are one stage.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable
from typing import Protocol, TypeVar

from pentad.execution.device import DeviceProfile
from pentad.execution.form import ModelForm
from pentad.execution.spec import ModelSpec
from pentad.resource.cost import StepCost
from pentad.resource.step_shape import StepShape

T = TypeVar("T")


class LayerCost(Protocol):
    """Step times of a range of layers on one device: a StepCost, or one that remembers."""

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def num_layers(self) -> int: ...

    def seconds(self, shape: StepShape) -> float: ...

    def terms(self, shape: StepShape) -> tuple[float, float, float, float]: ...

    def binding(self, shape: StepShape) -> str: ...


class RememberedCost:
    """A StepCost without calibration whose answers are kept. For the few shapes of a planning problem."""

    __slots__ = ("_cost", "_seconds", "_terms", "num_layers", "spec")

    def __init__(self, cost: StepCost) -> None:
        self._cost = cost
        self._terms: dict[StepShape, tuple[float, float, float, float]] = {}
        self._seconds: dict[StepShape, float] = {}
        self.spec = cost.spec
        self.num_layers = cost.num_layers

    def seconds(self, shape: StepShape) -> float:
        """Predicted wall time of one step."""
        found = self._seconds.get(shape)
        if found is None:
            found = self._seconds[shape] = sum(self.terms(shape))
        return found

    def terms(self, shape: StepShape) -> tuple[float, float, float, float]:
        """Seconds of each of the terms."""
        found = self._terms.get(shape)
        if found is None:
            found = self._terms[shape] = self._cost.terms(shape)
        return found

    def binding(self, shape: StepShape) -> str:
        """The term that takes most of the step."""
        return self._cost.binding(shape)


class CostBook:
    """What a problem's stages take and hold. Travels with the problem through its changes."""

    def __init__(self) -> None:
        self._kinds: list[DeviceProfile] = []
        self._kind_of: dict[int, tuple[int, DeviceProfile]] = {}
        self._alike: dict[int, tuple[bool, ModelSpec]] = {}
        self._kept: dict[Hashable, object] = {}

    def kind(self, device: DeviceProfile) -> int:
        """A number that devices have in common which differ in their names alone."""
        known = self._kind_of.get(id(device))
        if known is None:
            bare = dataclasses.replace(device, name="")
            if bare not in self._kinds:
                self._kinds.append(bare)
            known = self._kind_of[id(device)] = self._kinds.index(bare), device
        return known[0]

    def layers_key(self, spec: ModelSpec, first_layer: int, end_layer: int) -> Hashable:
        """The same for ranges of layers that cost and hold the same."""
        known = self._alike.get(id(spec))
        if known is None:
            known = self._alike[id(spec)] = len(set(spec.blocks)) == 1, spec
        if not known[0]:
            return id(spec), first_layer, end_layer
        return id(spec), end_layer - first_layer, first_layer == 0, end_layer == spec.layers

    def cost(
        self, device: DeviceProfile, spec: ModelSpec, form: ModelForm, first_layer: int, end_layer: int
    ) -> RememberedCost:
        """The step times of a stage."""

        def made() -> RememberedCost:
            layers, head = range(first_layer, end_layer), end_layer == spec.layers
            return RememberedCost(StepCost(profile=device, spec=spec, form=form, layers=layers, head=head))

        key = ("cost", self.kind(device), form, self.layers_key(spec, first_layer, end_layer))
        return self.keep(key, made)

    def keep(self, key: Hashable, make: Callable[[], T]) -> T:
        """What was made under this key, or is made now."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]  # type: ignore[return-value]
