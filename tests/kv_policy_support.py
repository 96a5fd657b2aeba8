"""What an engine with a KV policy must answer, computed without blocks, pages or batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pentad.execution.kv.policy import OBSERVED_TOKENS, KVNotes, KVPolicy, KVView
from pentad.testing.runners import ToyRunner, attention, entry, joined, row_logits, toy_spec

HEADS = 3
"""KV heads of the toy model."""
_WORD = 0xFFFF_FFFF_FFFF_FFFF


def runner(policy: KVPolicy, **options: int) -> ToyRunner:
    """A toy model of several heads that counts attention where the policy needs it."""
    return ToyRunner(heads=HEADS, keeps_scores="attention-scores" in policy.needs, **options)


def greedy(policy: KVPolicy, prompt: Sequence[int], max_tokens: int) -> tuple[list[int], list[int]]:
    """The answer, and how many entries each head has at its end: lists per head, one token at a time."""
    spec = toy_spec(heads=HEADS)
    run = policy.start(spec)
    tokens = list(prompt)
    heads: list[dict[int, list[int]]] = [{} for _ in range(HEADS)]  # position to entry and score
    total = 0
    notes = KVNotes()
    for position in range(len(prompt) + max_tokens - 1):
        totals = []
        for held in heads:
            before = sum(value for value, _, _ in held.values()) & _WORD
            new = entry(tokens[position], position, before)
            held[position] = [new, 0, 0]
            for own in held.values():
                own[1] += attention(new, own[0])
                own[2] += attention(new, own[0]) * (position >= len(prompt) - OBSERVED_TOKENS)
            totals.append((before + new) & _WORD)
        total = joined(totals)
        if run is not None and position + 1 >= len(prompt):
            slots = max(map(len, heads))
            positions = np.full((HEADS, slots), -1, np.int32)
            scores, observed = np.zeros((2, HEADS, slots))
            for head, held in enumerate(heads):
                positions[head, : len(held)] = list(held)
                scores[head, : len(held)] = [score / 2.0**32 for _, score, _ in held.values()]
                observed[head, : len(held)] = [score / 2.0**32 for _, _, score in held.values()]
            view = KVView(
                spec=spec,
                tokens=tokens,
                prompt_tokens=len(prompt),
                computed=position + 1,
                lens=np.array([len(held) for held in heads], np.int32),
                positions=positions,
                scores=lambda scores=scores: scores,
                observed=lambda observed=observed: observed,
                notes=notes,
            )
            keep = (run.after_prefill if position + 1 == len(prompt) else run.after_step)(view)
            if keep is not None:
                for head, held in enumerate(heads):
                    kept = {int(p) for p, stays in zip(positions[head], keep[head], strict=True) if stays}
                    heads[head] = {p: value for p, value in held.items() if p in kept}
        if position + 1 >= len(prompt):
            tokens.append(int(row_logits(total, spec.vocab_size).argmax()))
    return tokens[len(prompt) :], [len(held) for held in heads]
