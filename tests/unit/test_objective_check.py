"""Before serving: whether promises can be kept on a machine, what binds, and what would have to change."""

from __future__ import annotations

import json
import pathlib
from dataclasses import replace

import pytest
from resource_samples import LLAMA_1B, LLAMA_SMALL, measured_device

from cli_support import Pentad
from pentad.application.objective_check import ClassVerdict, ModelFacts, check_objectives
from pentad.application.objective_file import read_objectives
from pentad.errors import InvalidRequest
from pentad.model.prices import Price
from pentad.resource.cost import StepCost
from pentad.resource.service_classes import ServiceClass
from pentad.resource.simulator.class_mix import ClassLoad

DEVICE = measured_device()
SMALL = ModelFacts(
    name="small",
    cost=StepCost(profile=DEVICE, spec=LLAMA_SMALL),
    quality=0.3,
    price=Price(prompt=1, completion=1),
)
LARGE = ModelFacts(
    name="large",
    cost=StepCost(profile=DEVICE, spec=LLAMA_1B),
    quality=0.8,
    price=Price(prompt=9, completion=9),
)
LOAD = ClassLoad(per_minute=2, prompt_tokens=64, answer_tokens=8)


def verdict(
    load: ClassLoad = LOAD, models: tuple[ModelFacts, ...] = (SMALL, LARGE), **promised: object
) -> ClassVerdict:
    one = ServiceClass(name="c", **promised)  # type: ignore[arg-type]
    (found,) = check_objectives([one], {"c": load}, models)
    return found


@pytest.mark.row("het-app-slo", "mechanism")
def test_what_can_be_kept_is_served_by_the_fastest_model_that_is_good_enough() -> None:
    quick = verdict(deadline_s=5)
    assert (quick.kept, quick.model, quick.binding, quick.changes) == (True, "small", "", ())
    good = verdict(deadline_s=30, quality=0.5)
    assert (good.kept, good.model, good.quality, good.basis) == (True, "large", 0.8, "stated")


@pytest.mark.row("het-app-slo", "mechanism")
def test_a_target_that_the_load_breaks_names_the_limit_and_each_remedy_holds() -> None:
    alone_s = LARGE.alone(LOAD).deadline_s
    crowd = replace(LOAD, per_minute=60)
    found = verdict(crowd, deadline_s=1.5 * alone_s, quality=0.2, models=(LARGE,))
    assert not found.kept
    assert found.binding == "deadline_s"
    longer, fewer = found.changes[:2]
    seconds = float(longer.split()[3])
    assert verdict(crowd, deadline_s=seconds, models=(LARGE,)).kept
    rate = float(fewer.split(": ")[1].split()[0])
    assert rate < 60
    assert verdict(replace(crowd, per_minute=rate), deadline_s=1.5 * alone_s, models=(LARGE,)).kept


def test_a_target_below_what_one_request_takes_names_the_smaller_model() -> None:
    small_s, large_s = SMALL.alone(LOAD).deadline_s, LARGE.alone(LOAD).deadline_s
    found = verdict(deadline_s=(small_s + large_s) / 2, quality=0.5)
    assert (found.kept, found.model) == (False, "large")
    assert any("alone on the machine" in one for one in found.changes)
    assert any(one.startswith("a quality of 0.3, stated: small is") for one in found.changes)


def test_quality_and_money_that_no_model_keeps_are_named() -> None:
    poor = verdict(quality=0.95)
    assert (poor.kept, poor.binding, poor.model, poor.attained) == (False, "quality", "", None)
    assert poor.changes[0] == "a quality of 0.8, by large"
    dear = verdict(max_cost=1e-6)
    assert dear.binding == "max_cost"
    assert verdict(max_cost=float(dear.changes[0].split()[3].rstrip(",")) * 1.01).kept
    assert verdict(max_energy_j=5.0).binding == "max_energy_j"


def test_measured_success_takes_the_place_of_what_is_stated() -> None:
    few = replace(SMALL, judged={"c": (5, 5)})
    assert verdict(models=(few,), quality=0.5).binding == "quality"
    many = replace(SMALL, judged={"c": (15, 20)})
    found = verdict(models=(many,), quality=0.5)
    assert (found.kept, found.quality, found.basis) == (True, 0.75, "measured")


def test_classes_are_served_at_once() -> None:
    """A class that keeps its target alone loses it beside a heavy one on the same machine."""
    light = ServiceClass(name="light", deadline_s=1.5 * LARGE.alone(LOAD).deadline_s)
    heavy = ServiceClass(name="heavy", deadline_s=1000)
    loads = {"light": LOAD, "heavy": ClassLoad(per_minute=60, prompt_tokens=256, answer_tokens=4)}
    assert check_objectives([light], loads, [LARGE])[0].kept
    beside, patient = check_objectives([light, heavy], loads, [LARGE])
    assert not beside.kept
    assert patient.kept


FILE = """\
service_classes:
  - {name: chat, routes: [/v1/chat/completions], ttft_s: 1, target: 0.9}
loads:
  chat: {per_minute: 12, prompt_tokens: 100, answer_tokens: 50}
"""


def test_files_are_read_as_settings_are(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "o.yaml"
    file.write_text(FILE, "utf-8")
    classes, loads = read_objectives(file)
    assert classes == (ServiceClass(name="chat", routes=("/v1/chat/completions",), ttft_s=1, target=0.9),)
    assert loads["chat"] == ClassLoad(per_minute=12, prompt_tokens=100, answer_tokens=50)
    file.write_text("server:\n  service_classes: [{name: a, deadline_s: 2}]\n", "utf-8")
    assert read_objectives(file)[0][0].name == "a"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "holds no mapping"),
        ("loads: {}", "has no service_classes"),
        (FILE.replace("chat: {per", "chut: {per"), "'chut', which is no class"),
        (FILE.replace("ttft_s: 1", "ttft: 1"), "ttft"),
        (FILE.replace("ttft_s: 1", "ttft_s: -1"), "above 0"),
        (FILE.replace("per_minute: 12", "per_minute: 0"), "per_minute"),
    ],
)
def test_a_wrong_file_says_what_to_write(tmp_path: pathlib.Path, text: str, told: str) -> None:
    file = tmp_path / "o.yaml"
    file.write_text(text, "utf-8")
    with pytest.raises(InvalidRequest, match=told) as refused:
        read_objectives(file)
    assert "service_classes" in str(refused.value.hint)


def test_the_verb_ends_with_one_where_a_promise_is_not_kept(pentad_: Pentad, tmp_path: pathlib.Path) -> None:
    (tmp_path / "o.yaml").write_text(FILE, "utf-8")
    base = ("objectives", "check", "o.yaml", "--models", "gpt3-2.7b", "--machine")
    fast = pentad_(*base, "a100-sxm-80gb", "--json")
    assert fast.status == 0, fast.err
    told = json.loads(fast.out)
    assert told["kept"]
    assert told["classes"][0]["model"] == "gpt3-2.7b"
    (tmp_path / "o.yaml").write_text(FILE.replace("ttft_s: 1", "ttft_s: 0.0001"), "utf-8")
    late = pentad_(*base, "a100-sxm-80gb")
    assert late.status == 1
    assert "it would take a ttft_s of" in late.out
    assert pentad_("objectives", "check", "no.yaml").status == 2
