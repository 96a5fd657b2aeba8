"""Row prof-cpu: a profile of this machine predicts steps of models that it never ran."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from resource_live import open_runner, this_machine

from evidence.plugin import Measure
from pentad.execution.device import DeviceProfile
from pentad.resource.cost import StepCost
from pentad.resource.profile.synthetic import SequenceShape, time_step
from pentad.resource.step_shape import StepShape

pytestmark = pytest.mark.slow

STEPS: dict[str, list[SequenceShape]] = {
    "decode 1 at 128": [(1, 128)],
    "decode 1 at 1024": [(1, 1024)],
    "decode 4 at 256": [(1, 256)] * 4,
    "decode 8 at 256": [(1, 256)] * 8,
    "prefill 128": [(128, 128)],
    "prefill 512": [(512, 512)],
    "prefill 256 behind 768": [(256, 1024)],
    "8 decodes and 120 of a prompt": [(1, 256)] * 8 + [(120, 120)],
}


@pytest.fixture(scope="module")
def device() -> DeviceProfile:
    return this_machine()


@pytest.fixture(scope="module", params=["smollm2_path", "qwen_path"])
def runner(request: pytest.FixtureRequest) -> Iterator[Any]:
    path: pathlib.Path = request.getfixturevalue(request.param)
    opened = open_runner(path, num_blocks=600)
    yield opened
    opened.close()


@pytest.mark.row("prof-cpu", "effect", claims=(1,))
def test_decode_and_prefill_are_predicted_within_15_percent(
    device: DeviceProfile, runner: Any, measured: Measure
) -> None:
    cost = StepCost(profile=device, spec=runner.spec, form=runner.form)
    # As the profile does it: what disturbs one pass seldom disturbs the other, and the faster counts.
    times: dict[str, float] = {}
    shapes: dict[str, StepShape] = {}
    for _ in range(2):
        for name, sequences in STEPS.items():
            shapes[name], seconds = time_step(runner, sequences, repeats=11)
            times[name] = min(seconds, times.get(name, seconds))
    errors = {}
    print(f"\n{runner.spec.name}: step, measured ms, predicted ms, error")
    for name, shape in shapes.items():
        predicted = cost.seconds(shape)
        errors[name] = predicted / times[name] - 1
        print(f"  {name:32} {times[name] * 1e3:8.2f} {predicted * 1e3:8.2f} {errors[name]:+7.1%}")
    for name, error in errors.items():
        measured(f"{runner.spec.name}, {name}", abs(error), at_most=0.15)
