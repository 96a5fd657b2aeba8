"""The router agent-centric: content, reasoning and device choose the tier."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_model_routing import candidate, state

from pentad.content import media
from pentad.errors import InvalidRequest, UnknownName
from pentad.model.prices import Price
from pentad.model.routing.agent_centric import AgentCentric
from pentad.types import Message

CAN = candidate().can
MODELS = {
    "tiny": candidate(quality=0.3),
    "giant": candidate(can=replace(CAN, remote=True), price=Price(prompt=20, completion=20), quality=0.9),
    "seer": candidate(can=replace(CAN, media=frozenset({"image"})), price=Price(prompt=5, completion=5)),
    "thinker": candidate(price=Price(prompt=3, completion=3), quality=0.7),
}
TIERS = {"thinker": "reasoner"}
PART = media("image", "image/png", b"\x89PNG\r\n\x1a\n" + bytes(16))
IMAGE = Message(role="user", content="look", media=(PART,))


@pytest.mark.row("mod-agent-centric", "mechanism", claims=(1,))
@pytest.mark.parametrize(
    ("asked", "model", "tier"),
    [
        ({}, "tiny", "edge"),
        ({"messages": None, "text": "word " * 4000}, "giant", "cloud"),
        ({"messages": (IMAGE,)}, "seer", "vision"),
        ({"reasoning_tokens": 500}, "thinker", "reasoner"),
    ],
)
def test_a_request_finds_its_tier(asked: dict[str, object], model: str, tier: str) -> None:
    chosen, decision = AgentCentric(tiers=TIERS).route(state(MODELS, **asked))  # type: ignore[arg-type]
    assert (chosen, dict(decision.parts)["tier"]) == (model, tier)
    assert decision.constraint


@pytest.mark.row("mod-agent-centric", "mechanism", claims=(2,))
def test_another_device_gets_another_model() -> None:
    chosen = {
        name: AgentCentric(device=name, edge_bytes=8 << 30).route(state(MODELS))[0]
        for name in ("phone-4gb", "pc-core-ultra-7-155h")
    }
    assert chosen == {"phone-4gb": "giant", "pc-core-ultra-7-155h": "tiny"}


def test_a_tier_without_a_model_gives_way() -> None:
    only = {"tiny": MODELS["tiny"]}
    chosen, decision = AgentCentric().route(state(only, reasoning_tokens=100))
    assert (chosen, dict(decision.parts)) == ("tiny", {"wanted": "reasoner", "tier": "edge"})


def test_options_are_checked() -> None:
    with pytest.raises(InvalidRequest, match="unknown tier 'huge'; choose one of: edge"):
        AgentCentric(tiers={"x": "huge"})  # type: ignore[dict-item]
    with pytest.raises(UnknownName, match="unknown device"):
        AgentCentric(device="no such thing")
