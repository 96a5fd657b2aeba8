"""Energy: counters in the kernel's form, the model of power where there are none, and requests' shares."""

from __future__ import annotations

import asyncio
import itertools
import pathlib
import random
from collections.abc import AsyncGenerator

import msgspec
import pytest

from gateway_app import CHAT, call, chat, scripted_app
from pentad.agent.totals import Totals
from pentad.application.gateway.metering import Attainment
from pentad.errors import InvalidRequest
from pentad.execution.backend import Delta, StreamDone, TextDelta
from pentad.model.energy import metered_energy
from pentad.resource import profile
from pentad.resource.energy import ModelledEnergy, PackageEnergy, machine_busy_s, machine_meter
from pentad.resource.power import ASSUMED_CORE_W, ASSUMED_IDLE_FRACTION, PowerModel
from pentad.resource.request_energy import RequestEnergy
from pentad.types import Energy, EnergySource, Objective, Usage, together


def powercap(folder: pathlib.Path, *microjoules: int, wraps_at: int = 10**9) -> pathlib.Path:
    """Counters as Linux shows them: a folder for each package, and one below it for its cores."""
    for i, value in enumerate(microjoules):
        for name in (f"intel-rapl:{i}", f"intel-rapl:{i}:0"):
            package = folder / name
            package.mkdir(parents=True, exist_ok=True)
            (package / "name").write_text(f"package-{i}\n")
            (package / "energy_uj").write_text(f"{value}\n")
            (package / "max_energy_range_uj").write_text(f"{wraps_at}\n")
    return folder


class TestCounters:
    def test_packages_add_up_and_their_parts_are_not_counted_twice(self, tmp_path: pathlib.Path) -> None:
        meter = PackageEnergy(powercap(tmp_path, 1_000_000, 5_000_000))
        powercap(tmp_path, 3_000_000, 5_500_000)
        assert meter.joules() == pytest.approx(2.5)
        assert meter.refusal is None

    def test_a_counter_that_wraps_goes_on(self, tmp_path: pathlib.Path) -> None:
        meter = PackageEnergy(powercap(tmp_path, 999_000_000))
        powercap(tmp_path, 1_000_000)
        assert meter.joules() == pytest.approx(2.0)

    def test_a_counter_that_only_root_may_read_names_the_remedy(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        powercap(tmp_path, 1)

        def denied(self: pathlib.Path, *args: object, **kwargs: object) -> str:
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(pathlib.Path, "read_text", denied)
        meter = PackageEnergy(tmp_path)
        assert meter.joules() is None
        assert meter.refusal is not None
        why, remedy = meter.refusal
        assert "by root alone" in why
        assert remedy == f"sudo chmod a+r {tmp_path}/intel-rapl:*/energy_uj"
        assert machine_meter(folder=tmp_path).source == "modelled"

    def test_this_machine_measures_or_says_why_not(self) -> None:
        meter = PackageEnergy()
        if meter.refusal is None:
            assert meter.joules() is not None
            assert machine_meter().source == "measured"
        else:
            assert meter.joules() is None
            assert machine_meter().source == "modelled"


class TestModel:
    @pytest.mark.row("ch-energy", "mechanism")
    def test_power_is_a_line_between_idle_and_full(self) -> None:
        model = PowerModel(idle_w=20, full_w=100, basis="x")
        assert [model.watts(u) for u in (0, 0.5, 1, 2)] == [20, 60, 100, 100]

    def test_a_profile_with_its_power_is_taken_at_its_word(self) -> None:
        gpu = profile.find("a100-sxm-80gb")
        assert PowerModel.of(gpu).full_w == 400
        assert "assumed" in PowerModel.of(gpu).basis, "its idle power is not published"

    def test_an_unknown_machine_is_charged_by_its_cores(self) -> None:
        model = PowerModel.of(None, cores=4)
        assert (model.full_w, model.idle_w) == (
            4 * ASSUMED_CORE_W,
            4 * ASSUMED_CORE_W * ASSUMED_IDLE_FRACTION,
        )
        assert "assumed" in model.basis

    def test_calibration_finds_the_line_again(self) -> None:
        draw = random.Random(3)
        samples = [(u, 31 + 60 * u + draw.uniform(-0.5, 0.5)) for u in (0.0, 0.2, 0.5, 0.8, 1.0)]
        model = PowerModel.calibrated(samples)
        assert model.idle_w == pytest.approx(31, abs=1)
        assert model.full_w == pytest.approx(91, abs=1)

    @pytest.mark.parametrize(
        ("samples", "words"), [([(0.5, 10), (0.5, 11)], "one utilisation"), ([(0, 9), (1, 5)], "falls")]
    )
    def test_samples_that_make_no_model_are_refused(
        self, samples: list[tuple[float, float]], words: str
    ) -> None:
        with pytest.raises(InvalidRequest, match=words):
            PowerModel.calibrated(samples)

    def test_idle_power_above_full_power_is_refused(self) -> None:
        with pytest.raises(InvalidRequest, match="idle_w of 9 exceeds"):
            PowerModel(idle_w=9, full_w=5, basis="x")

    def test_modelled_energy_follows_time_and_load(self) -> None:
        now, spent = [0.0], [0.0]
        meter = ModelledEnergy(
            PowerModel(idle_w=10, full_w=50, basis="x"),
            clock=lambda: now[0],
            busy=lambda: (spent[0], now[0] * 4),
        )
        now[0], spent[0] = 2.0, 4.0  # half of four processors over two seconds
        assert meter.joules() == pytest.approx(2 * 30)
        now[0] = 3.0
        assert meter.joules() == pytest.approx(60 + 10)

    def test_the_machine_tells_how_busy_it_was(self) -> None:
        busy, able = machine_busy_s()
        assert 0 <= busy <= able


class Counter:
    """A meter that is set by hand."""

    source: EnergySource = "measured"
    basis = "a counter"

    def __init__(self) -> None:
        self.now: float | None = 0.0

    def joules(self) -> float | None:
        return self.now


class TestShares:
    def test_requests_under_way_share_alike_and_idle_belongs_to_nobody(self) -> None:
        counter = Counter()
        shares = RequestEnergy(counter)
        counter.now = 5.0
        shares.begin("a")
        counter.now = 15.0
        shares.begin("b")
        counter.now = 25.0
        a = shares.end("a")
        counter.now = 32.0
        b = shares.end("b")
        assert (a, b) == (
            Energy(joules=15.0, source="measured", basis="a counter"),
            Energy(joules=12.0, source="measured", basis="a counter"),
        )
        assert shares.idle_j == 5.0

    def test_who_computes_more_tokens_gets_more_of_it_and_who_computed_none_nothing(self) -> None:
        counter = Counter()
        counter.now = 0.0
        shares = RequestEnergy(counter)
        for key in ("long", "short", "waiting"):
            shares.begin(key)
        shares.computed("long", 90)
        shares.computed("short", 6)
        shares.computed("short", 4)
        shares.computed("unknown", 1000)
        counter.now = 20.0
        long, short = shares.end("long"), shares.end("short")
        assert long is not None
        assert short is not None
        assert (long.joules, short.joules) == (18.0, 2.0)
        counter.now = 25.0  # nobody says what was computed since
        waiting = shares.end("waiting")
        assert waiting is not None
        assert waiting.joules == 5.0

    def test_nothing_is_lost_or_counted_twice(self) -> None:
        draw, counter = random.Random(11), Counter()
        shares, open_, told = RequestEnergy(counter), [], 0.0
        for number in itertools.count():
            assert counter.now is not None
            counter.now += draw.random()
            if number < 200 and (not open_ or draw.random() < 0.5):
                shares.begin(number)
                open_.append(number)
            elif open_:
                energy = shares.end(open_.pop(draw.randrange(len(open_))))
                told += energy.joules if energy else 0.0
            else:
                break
        assert told + shares.idle_j == pytest.approx(counter.now, rel=0.01)

    def test_without_a_reading_nothing_is_told(self) -> None:
        counter = Counter()
        counter.now = None
        shares = RequestEnergy(counter)
        shares.begin("a")
        assert shares.end("a") is None
        assert shares.end("never begun") is None

    def test_sums_are_modelled_where_a_part_is(self) -> None:
        parts = [Energy(joules=1, source="measured"), None, Energy(joules=2, source="modelled", basis="m")]
        assert together(parts) == Energy(joules=3, source="modelled", basis="m")
        assert together([None]) is None
        assert Energy(joules=6, source="measured").per_token(3) == 2
        assert Energy(joules=6, source="measured").per_token(0) is None


async def answer(counter: Counter) -> AsyncGenerator[Delta, None]:
    for word in ("one", "two"):
        assert counter.now is not None
        counter.now += 4.0
        yield TextDelta(choice=0, text=word)
    yield StreamDone(usage=Usage(completion_tokens=2))


class TestAnswers:
    def test_the_usage_of_an_answer_tells_its_energy(self) -> None:
        counter = Counter()
        energy = RequestEnergy(counter)

        async def collected() -> list[Delta]:
            return [delta async for delta in metered_energy(answer(counter), energy)]

        end = asyncio.run(collected())[-1]
        assert isinstance(end, StreamDone)
        assert end.usage.energy == Energy(joules=8.0, source="measured", basis="a counter")
        assert end.usage.energy.per_token(end.usage.completion_tokens) == 4.0

    def test_a_cancelled_answer_stops_counting(self) -> None:
        counter = Counter()
        energy = RequestEnergy(counter)

        async def cancelled() -> None:
            stream = metered_energy(answer(counter), energy)
            await anext(stream)
            await stream.aclose()

        asyncio.run(cancelled())
        counter.now = 100.0
        energy.begin("next")
        assert energy.idle_j == 96.0


USED = Usage(completion_tokens=4, energy=Energy(joules=6.0, source="modelled", basis="a model"))
TOLD = {"joules": 6.0, "joules_per_token": 1.5, "source": "modelled", "basis": "a model"}


class TestGateway:
    def test_an_answer_tells_its_joules_where_that_is_asked(self) -> None:
        app, _ = scripted_app([["a", USED]])
        assert chat(app, pentad={"energy": True}).json()["usage"]["energy"] == TOLD
        assert "energy" not in chat(app).json()["usage"]

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/v1/completions", {"model": "scripted", "prompt": "Say"}),
            ("/v1/responses", {"model": "scripted", "input": "Say"}),
            ("/v1/messages", {**CHAT, "max_tokens": 9}),
        ],
    )
    def test_every_dialect_has_it_in_its_usage(self, path: str, body: dict[str, object]) -> None:
        app, _ = scripted_app([["a", USED]])
        answer = call(app, "POST", path, body=body, headers={"x-pentad-energy": "true"}).json()
        assert answer["usage"]["energy"] == TOLD

    def test_metrics_count_joules_by_their_source(self) -> None:
        app, _ = scripted_app([["a", USED]])
        chat(app)
        chat(app)
        text = call(app, "GET", "/metrics").text
        assert 'pentad_energy_joules_total{model_name="scripted",source="modelled"} 12.0' in text

    def test_an_energy_objective_is_met_or_missed(self) -> None:
        told = attainment(Objective(max_energy_j=5.0), USED), attainment(Objective(max_energy_j=7.0), USED)
        assert told == ({"energy": False}, {"energy": True})


def attainment(objective: Objective, usage: Usage) -> dict[str, bool]:
    found = Attainment(objective)
    found.ended(usage, 1.0)
    return found.met()


def test_a_run_adds_up_the_energy_of_its_calls() -> None:
    totals = Totals().plus(USED).plus(USED).plus(Usage(completion_tokens=1))
    assert totals.energy == Energy(joules=12.0, source="modelled", basis="a model")
    assert msgspec.json.decode(msgspec.json.encode(USED), type=Usage) == USED, "as a journal keeps it"
