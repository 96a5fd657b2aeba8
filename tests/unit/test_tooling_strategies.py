"""Strategies: every registered one can be built, told and chosen; wrong choices name the remedy."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import json
import pathlib
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from pentad import registry
from pentad.agent.spec import strategy_fields
from pentad.application.cli.app import build as build_cli
from pentad.application.cli.strategies import describe, describe_family
from pentad.application.config import leaves
from pentad.application.config_loading import resolve
from pentad.choice import Choice, build, check, options_of
from pentad.errors import InvalidRequest, UnknownName
from pentad.resource.scheduling.sarathi import Sarathi

EVERY = [(family, name) for family in registry.FAMILIES for name in registry.TABLE[family]]


@pytest.mark.parametrize(("family", "name"), EVERY)
class TestEveryStrategy:
    def test_is_built_by_its_name_with_its_defaults(self, family: str, name: str) -> None:
        strategy = build(family, Choice(name=name))
        assert strategy.name == name
        assert strategy == build(family, Choice(name=name)), "equal choices make equal strategies"

    def test_is_a_frozen_dataclass_whose_options_are_explained(self, family: str, name: str) -> None:
        kind = registry.load(family, name)
        assert dataclasses.is_dataclass(kind)
        assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
        for option in describe(family, name)["options"]:
            assert option["about"], f"option {option['name']} says nothing about itself"

    def test_has_what_its_interface_asks_for(self, family: str, name: str) -> None:
        path, _, protocol = registry.FAMILIES[family].interface.partition(":")
        asked = {
            each
            for each in vars(getattr(importlib.import_module(path), protocol))
            if not each.startswith("_")
        }
        assert asked <= set(dir(build(family, Choice(name=name))))

    def test_says_in_one_sentence_what_it_does_and_where_it_is_from(self, family: str, name: str) -> None:
        found = describe(family, name)
        assert found["about"].endswith(".")
        assert len(found["about"]) <= 120
        json.dumps(found)

    def test_an_option_that_it_lacks_is_refused_with_what_it_has(self, family: str, name: str) -> None:
        with pytest.raises(InvalidRequest, match=f"{family} '{name}' has no option 'no_such'"):
            build(family, Choice(name=name, options={"no_such": 1}))


@pytest.mark.parametrize("family", registry.FAMILIES)
def test_every_family_can_be_chosen_where_it_says(family: str) -> None:
    paths = {".".join(path) for path in leaves()}
    verbs = typer.main.get_command(build_cli()).commands  # type: ignore[attr-defined]
    for surface in registry.FAMILIES[family].chosen_by:
        if surface.startswith("agent: "):
            assert strategy_fields()[surface.removeprefix("agent: ")] == family
        elif " " in surface:
            verb, word = surface.split(" ")
            taken = {opt for parameter in verbs[verb].params for opt in parameter.opts}
            taken |= {str(p.metavar).strip("[]") for p in verbs[verb].params if p.metavar}
            assert word in taken
        else:
            assert surface in paths


@pytest.mark.parametrize("family", registry.FAMILIES)
def test_the_baseline_is_listed_first_or_is_none(family: str) -> None:
    listed = [item["name"] for item in describe_family(family)["strategies"]]
    baseline = registry.FAMILIES[family].baseline
    assert baseline in listed
    assert baseline in registry.known(family) or baseline == "none"


def test_a_choice_is_read_from_text_mapping_and_itself() -> None:
    wanted = Choice(name="sarathi", options={"token_budget": 64, "aging_s": None})
    assert Choice.of("sarathi:token_budget=64,aging_s=null") == wanted
    assert Choice.of({"name": "sarathi", "options": {"token_budget": 64, "aging_s": None}}) == wanted
    assert Choice.of(wanted) is wanted
    assert Choice.of({"name": "sarathi"}) == Choice.of(" sarathi ") == Choice(name="sarathi")


plain = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers(), max_size=3)


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), plain, max_size=3))
def test_a_choice_is_written_as_it_is_read(options: dict[str, Any]) -> None:
    # Text that itself looks like a further option cannot be told from one.
    options = {k: v for k, v in options.items() if "=" not in json.dumps(v)}
    choice = Choice(name="x", options=options)
    assert Choice.of(str(choice)) == choice


@pytest.mark.parametrize("value", ["", ":a=1", "x:a", 7, {"options": {}}, {"name": "x", "option": {}}, None])
def test_what_is_no_choice_is_refused_with_how_to_write_one(value: object) -> None:
    with pytest.raises(InvalidRequest, match="NAME:OPTION=VALUE"):
        Choice.of(value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token_budgt": 5}, r"no option 'token_budgt'; did you mean 'token_budget'\?"),
        ({"token_budget": "x"}, r"option 'token_budget' of scheduler 'sarathi': expected `int \| null`"),
        ({"token_budget": 0}, "token_budget is 0, must be at least 1"),
    ],
)
def test_an_option_is_checked_by_name_type_and_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        build("scheduler", Choice(name="sarathi", options=options))


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"unknown scheduler 'sarathy'; did you mean 'sarathi'\?"):
        check("scheduler", Choice(name="sarathy"))


def test_settings_take_a_strategy_with_options_from_file_variable_and_flag(tmp_path: pathlib.Path) -> None:
    wanted = Choice(name="sarathi", options={"token_budget": 64})
    file = tmp_path / "pentad.yaml"
    file.write_text("engine: {scheduler: {name: sarathi, options: {token_budget: 64}}}")
    text = "sarathi:token_budget=64"
    for found in (
        resolve(env={}, file=file),
        resolve({"scheduler": text}, env={}),
        resolve(env={"PENTAD_SCHEDULER": text}, folder=tmp_path / "none"),
    ):
        assert found.settings.engine.scheduler == wanted
        assert found.settings.shown()["engine.scheduler"] == text
        assert build("scheduler", found.settings.engine.scheduler) == Sarathi(token_budget=64)


@pytest.mark.parametrize("leaf", ["scheduler", "speculation", "router"])
def test_a_wrong_choice_in_settings_names_its_source(leaf: str) -> None:
    with pytest.raises(InvalidRequest, match=f"'nobody'.*known: .*change it in --{leaf}"):
        resolve({leaf: "nobody"}, env={})


class TestOtherPackages:
    @pytest.fixture(autouse=True)
    def installed(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        points = [
            importlib.metadata.EntryPoint(
                name=name, value="pentad.resource.scheduling.fcfs:Fcfs", group=registry.ENTRY_POINTS
            )
            for name in ("scheduler.theirs", "scheduler.sarathi", "scheduler", "nowhere.x")
        ]
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
        registry._added.cache_clear()
        yield
        registry._added.cache_clear()

    def test_add_strategies_that_are_listed_and_chosen_like_ours(self) -> None:
        assert registry.known("scheduler")[-1] == "theirs"
        check("scheduler", Choice(name="theirs"))
        assert type(build("scheduler", Choice(name="theirs"))).__name__ == "Fcfs"
        assert describe("scheduler", "theirs")["origin"] == "pentad.resource.scheduling.fcfs:Fcfs"

    def test_never_replace_one_of_ours(self) -> None:
        assert registry.load("scheduler", "sarathi") is Sarathi
        assert registry.known("scheduler").count("sarathi") == 1


def test_what_is_no_dataclass_has_no_options() -> None:
    assert options_of(object) == {}
