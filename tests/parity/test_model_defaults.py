"""The default model, asked by a client that knows nothing of sampling, answers to the point."""

from __future__ import annotations

import asyncio
import pathlib
import re

from pentad.application import wiring
from pentad.application.config import Settings
from pentad.model.catalogue import DEFAULT_MODEL
from pentad.model.sampling_defaults import OPEN
from pentad.types import Message, Request, Sampling

COLOURS = re.compile(r"\b(red|orange|yellow|green|blue|purple|violet|white|black|brown|pink|gr[ae]y)\b")
SEEDS = range(8)


def test_three_colours_are_named_where_nothing_is_said_of_sampling(
    smollm2_path: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(smollm2_path.parents[2])  # of models/views/NAME/FILE
    settings = Settings(models=(DEFAULT_MODEL,), embedding_model=None, home=home, data_home=tmp_path / "data")

    def ask(seed: int) -> Request:
        return Request(
            id=f"colours-{seed}",
            model="",
            messages=(Message(role="user", content="Name three colours."),),
            sampling=Sampling(seed=seed, max_tokens=64, left_open=OPEN),
        )

    async def answers() -> list[str]:
        async with wiring.build(settings) as services:
            done = await asyncio.gather(*(services.models.complete(ask(seed)) for seed in SEEDS))
            return [completion.message.content for completion in done]

    texts = asyncio.run(answers())
    named = [len(set(COLOURS.findall(text.lower()))) for text in texts]
    assert sum(count >= 2 for count in named) >= 6, texts
