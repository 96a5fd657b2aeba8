"""Geometries that are more than equal layers: a query layer on top, branches above a trunk."""

from __future__ import annotations

from dataclasses import replace

from pentad.execution.mixers import Attention
from pentad.execution.spec import ModelSpec, Stack
from pentad.model.geometries.decoders import Build, gpt


def pangu(layers: int, width: int, heads: int) -> Build:
    """GPT layers; the last one asks by a table of positions what the layers below give, normed."""
    plain = gpt(layers, width, heads, vocab=40_000, context_length=1024)

    def build(name: str) -> ModelSpec:
        spec = plain(name)
        last = spec.blocks[-1]
        assert isinstance(last.mixer, Attention)
        asking = replace(last.mixer, position_queries=spec.context_length)
        query = replace(last, entry_norm=True, mixer=asking)
        stack = replace(spec.stack, blocks=(*spec.blocks[:-1], query), final_norm=None)
        return replace(spec, family="pangu-alpha", stack=stack)

    return build


def ernie3(name: str) -> ModelSpec:
    """A trunk of 48 layers; a branch that understands, reading both ways, and one that generates."""
    trunk = gpt(48, 4096, 64, vocab=40_000, context_length=512)(name)
    narrow = gpt(12, 768, 12, vocab=40_000, context_length=512)(name).stack

    def branch(causal: bool) -> Stack:
        return replace(narrow, positions=None, causal=causal, stem=((narrow.width, trunk.width),))

    branches = (("understanding", branch(False)), ("generation", branch(True)))
    return replace(trunk, family="ernie3", head=None, branches=branches)
