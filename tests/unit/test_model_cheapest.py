"""The cheapest router: price decides among models that are good enough, for this request."""

from __future__ import annotations

import pytest
from test_model_routing import candidate, state

from pentad.errors import Infeasible, InvalidRequest
from pentad.model.prices import Price
from pentad.model.routing.cheapest import Cheapest
from pentad.types import Objective, RunContext, Sampling

MODELS = {
    "small": candidate(price=Price(prompt=1, completion=1), quality=0.2),
    "middle": candidate(price=Price(prompt=2, completion=20), quality=0.5),
    "large": candidate(price=Price(prompt=10, completion=10), quality=0.9),
    "unknown": candidate(price=Price()),
}


def wanting(quality: float) -> RunContext:
    return RunContext(objective=Objective(min_quality=quality))


@pytest.mark.parametrize(
    ("floor", "quality", "chosen"),
    [(0.0, None, "unknown"), (0.1, None, "small"), (0.1, 0.4, "large"), (0.6, 0.4, "large")],
)
def test_the_cheapest_that_is_good_enough_serves(floor: float, quality: float | None, chosen: str) -> None:
    context = RunContext() if quality is None else wanting(quality)
    found, decision = Cheapest(floor=floor).route(state(MODELS, context=context, model="auto"))
    assert found == chosen
    assert dict(decision.candidates).keys() == MODELS.keys()
    if chosen != "unknown":
        assert decision.constraint == f"quality of at least {max(floor, quality or 0):g}"


def test_the_length_of_the_answer_decides_between_cheap_prompts_and_cheap_answers() -> None:
    router = Cheapest(floor=0.4)
    text = "word " * 400  # some 500 tokens of prompt
    short = state(MODELS, messages=None, text=text, sampling=Sampling(max_tokens=10))
    long = state(MODELS, messages=None, text=text, sampling=Sampling(max_tokens=2000))
    assert router.route(short)[0] == "middle"
    assert router.route(long)[0] == "large"


def test_what_is_good_enough_nowhere_is_refused_with_the_best_there_is() -> None:
    with pytest.raises(Infeasible, match=r"quality of 0.95; the best of .* has 0.9; lower `quality`"):
        Cheapest().route(state(MODELS, context=wanting(0.95)))
    with pytest.raises(Infeasible, match="the best of small has"):
        Cheapest().route(state(MODELS, model="small", context=wanting(0.5)))
    with pytest.raises(Infeasible, match="has none stated"):
        Cheapest(floor=0.1).route(state({"x": candidate()}))


@pytest.mark.parametrize("options", [{"floor": 1.1}, {"floor": float("nan")}, {"answer_tokens": 0}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest):
        Cheapest(**options)  # type: ignore[arg-type]
