"""SHEPHERD: groups that fit into memory, batches that make others give way, and bursts that find room."""

from __future__ import annotations

import numpy as np
import pytest

from evidence.plugin import Measure
from pentad.errors import Infeasible, InvalidRequest
from pentad.resource.scaling.base import Member, Place, Pool, ScalerInput
from pentad.resource.scaling.sessions import Session
from pentad.resource.scaling.shepherd import Shepherd
from pentad.resource.scaling.stream_groups import grouped, kept_devices
from pentad.resource.simulator.streams import goodput


def stream(name: str, rate: float = 10.0, memory: float = 0.25, deadline_s: float = 0.2) -> Session:
    return Session(
        model=name, rate_per_s=rate, deadline_s=deadline_s, fixed_s=0.02, item_s=0.01, most=16, memory=memory
    )


class TestGroups:
    @pytest.mark.row("ra-shepherd", "mechanism")
    def test_as_few_groups_as_memory_allows_and_devices_by_load(self) -> None:
        # Four models of 0.5 need two devices' memory; a device answers 80 a second of one.
        heavy, light = [stream(n, 120.0, 0.5) for n in "ab"], [stream(n, 40.0, 0.5) for n in "cd"]
        found = grouped([*heavy, *light], 6)
        assert [sorted(s.model for s in each.streams) for each in found] == [["a", "c"], ["b", "d"]]
        assert [each.devices for each in found] == [3, 3]
        assert found[0].work == pytest.approx(2.0)
        assert found[0].burst_tolerance == pytest.approx(1.5)

    def test_small_models_are_all_in_one_group(self) -> None:
        (only,) = grouped([stream(n, memory=0.1) for n in "abcdef"], 3)
        assert (len(only.streams), only.devices) == (6, 3)
        assert grouped([stream("a", rate=0.0)], 3) == ()

    def test_models_for_which_there_is_no_memory_are_refused(self) -> None:
        with pytest.raises(Infeasible, match="3 streams fill the memory of 3 devices, there are 2"):
            grouped([stream(n, memory=0.9) for n in "abc"], 2)

    @pytest.mark.row("ra-shepherd", "mechanism")
    def test_a_group_takes_the_devices_that_have_its_models(self) -> None:
        groups = grouped([stream(n, memory=0.5) for n in "abcd"], 2)
        now = {"x": {"b", "d"}, "y": {"a", "c"}}
        found = kept_devices(groups, now, ["x", "y"])
        assert {tuple(sorted(models)) for models in found.values()} == {
            tuple(sorted(s.model for s in each.streams)) for each in groups
        }

    @pytest.mark.row("ra-shepherd", "mechanism")
    def test_every_model_of_a_group_is_up_on_every_device_of_it(self) -> None:
        scaling = Shepherd(model_memory=0.5).start()
        pools = {
            m: Pool(
                members=(Member(name=f"{m}@{m}", state="ready", devices=(m,), slots=8, running=1),),
                places=(Place(name=f"{m}@{o}", devices=(o,), slots=8),),
                arrived=1,
                recent=((10, 2),),
            )
            for m, o in ("ab", "ba")
        }
        made = scaling.decide(ScalerInput(pools=pools, now_s=0.0))
        assert (set(made.start), made.stop) == ({"a@b", "b@a"}, ())

    @pytest.mark.parametrize("options", [{"deadline_s": 0}, {"model_memory": 0}, {"calm_s": -1}], ids=str)
    def test_impossible_options_are_refused(self, options: dict[str, float]) -> None:
        with pytest.raises(InvalidRequest, match=f"{next(iter(options))} is "):
            Shepherd(**options)  # type: ignore[arg-type]


class TestOnlineScheduler:
    @pytest.mark.row("ra-shepherd", "mechanism")
    def test_by_hand_a_much_larger_batch_takes_the_place_of_a_small_one(self) -> None:
        slow = Session(model="slow", rate_per_s=1.0, deadline_s=2.0, fixed_s=0.9, item_s=0.1)
        quick = Session(model="quick", rate_per_s=1.0, deadline_s=0.3, fixed_s=0.1, item_s=0.01)
        arrivals = {"slow": [0.0], "quick": [0.5] * 8}
        # At 0.5 s eight quick ones (0.18 s) stop the slow one, which is computed anew from 0.68 to 1.68 s.
        assert goodput([slow, quick], 1, arrivals) == 9
        assert goodput([slow, quick], 1, arrivals, preempt=None) == 1
        assert goodput([slow, quick], 1, {"slow": [0.0], "quick": [0.5] * 3}) == 1, (
            "3 is less than 3.03 times 1"
        )

    def test_what_is_too_late_is_dropped_and_does_not_hold_others_up(self) -> None:
        one = stream("a", deadline_s=0.1)
        assert goodput([one], 1, {"a": [0.0] * 100}) == 8
        assert goodput([one], 1, {"a": [0.0] * 100 + [0.2]}) == 9


def bursts(streams: list[Session], seed: int, seconds: float = 60.0) -> dict[str, list[float]]:
    """Each stream is silent nine tenths of its time and then asks at ten times its mean rate, for about 2
    s."""
    draw = np.random.default_rng(seed)
    made: dict[str, list[float]] = {}
    for each in streams:
        now_s, arrivals = float(draw.exponential(18.0)), []
        while now_s < seconds:
            length_s = float(draw.exponential(2.0))
            count = draw.poisson(10 * each.rate_per_s * length_s)
            arrivals += (now_s + length_s * draw.random(count)).tolist()
            now_s += length_s + float(draw.exponential(18.0))
        made[each.model] = sorted(at for at in arrivals if at < seconds)
    return made


@pytest.mark.thorough
@pytest.mark.row("ra-shepherd", "effect", claims=(1,))
@pytest.mark.parametrize("seed", [41, 42, 43])
def test_bursts_of_each_stream_find_room_in_its_group(seed: int, measured: Measure) -> None:
    # 24 streams on 24 devices, four models in a memory, 30% of the capacity asked for on the mean.
    # Developed on seeds 1 and 2.
    streams = [stream(f"m{i}", rate=24.0) for i in range(24)]
    arrivals = bursts(streams, seed)
    alone = sum(goodput([each], 1, arrivals) for each in streams)
    groups = grouped(streams, 24)
    ours = sum(goodput(each.streams, each.devices, arrivals) for each in groups)
    asked = sum(len(each) for each in arrivals.values())
    print(f"\nseed {seed}: of {asked} each alone {alone}, {len(groups)} groups {ours}, {ours / alone:.2f}x")
    measured(f"goodput over a device for each stream, seed {seed}", ours / alone, at_least=2.0, unit="x")
