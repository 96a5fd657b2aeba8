"""Both models read windows of a text: likelihoods, divergence and agreement, a row a window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pentad.errors import InvalidRequest
from pentad.model.certification.base import Bench, Row
from pentad.model.certification.logits import log_softmax, logits_of


@dataclass(frozen=True, slots=True, kw_only=True)
class TextProbe:
    """Teacher-forced: each window begins with an empty context, and every token but its first is scored."""

    @property
    def key(self) -> str:
        return "text"

    def units(self, bench: Bench) -> int:
        if not bench.windows:
            raise InvalidRequest(
                "perplexity, divergence and agreement are measured on a text, and none is given",
                hint="set --text to a text file",
                param="text",
            )
        return len(bench.windows)

    def measure(self, bench: Bench, unit: int) -> Row:
        """Sums over the window's scored tokens, in nats. Cost: both models read it once."""
        tokens = bench.windows[unit]
        targets = np.array(tokens[1:])
        sums = dict.fromkeys(("nll", "source_nll", "kl", "agreed"), 0.0)
        at = 0
        readings = zip(
            logits_of(bench.source.runner(), tokens[:-1]),
            logits_of(bench.derived.runner(), tokens[:-1]),
            strict=True,
        )
        for source, derived in readings:
            wanted, given = log_softmax(source), log_softmax(derived)
            rows, chosen = np.arange(len(wanted)), targets[at : at + len(wanted)]
            sums["source_nll"] -= float(wanted[rows, chosen].sum(dtype=np.float64))
            sums["nll"] -= float(given[rows, chosen].sum(dtype=np.float64))
            sums["agreed"] += float((wanted.argmax(-1) == given.argmax(-1)).sum())
            sums["kl"] += float((np.exp(wanted) * (wanted - given)).sum(dtype=np.float64))
            at += len(wanted)
        return sums | {"tokens": float(at)}

    def data(self, bench: Bench) -> Mapping[str, str]:
        return {"text": bench.text_sha256}
