"""Formats whose reasoning stands between two marks."""

from __future__ import annotations

from pentad.model.reasoning.base import ReasoningFormat
from pentad.model.reasoning.splitter import BlockSplitter


def _block(name: str, opening: str, closing: str, *marks: str, after: str = "\n\n") -> ReasoningFormat:
    return ReasoningFormat(
        name=name,
        opening=opening,
        closing=closing,
        marks=marks or (closing,),
        splitter=BlockSplitter,
        after=after,
    )


THINK = _block("think", "<think>", "</think>")
"""Qwen3, QwQ, DeepSeek R1 and V3.1, GLM-4.5, SmolLM 3, Phi-4-reasoning, Nemotron and most others."""
MISTRAL = _block("mistral", "[THINK]", "[/THINK]", after="")
"""Magistral since 2507 and Ministral 3."""
SEED = _block("seed", "<seed:think>", "</seed:think>", after="\n")
"""Seed-OSS."""
COMMAND_R = _block("command_r", "<|START_THINKING|>", "<|END_THINKING|>", after="")
"""Command A Reasoning and North."""
GEMMA = _block("gemma", "<|channel>thought\n", "<channel|>", "<|channel>", "<channel|>", after="")
"""Gemma 4."""
GRANITE = _block("granite", "Here is my thought process:", "Here is my response:", after="\n\n")
"""Granite 3.2 and 3.3, which write words in the place of marks."""
