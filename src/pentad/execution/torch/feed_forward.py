"""What stands behind a layer's mixer: a dense feed-forward, or experts of which each token gets a few."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812

from pentad.execution.layers import Experts, FeedForward
from pentad.execution.torch.linear import Linear

_CUT = 7.0
_SLOPE = 1.702


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseWeights:
    """One feed-forward."""

    record: FeedForward
    gate: Linear | None
    up: Linear
    down: Linear

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """What it gives [N, E] for hidden states [N, E]."""
        return self.down(self._inner(x))

    def plus(self, x: torch.Tensor, term: torch.Tensor) -> torch.Tensor:
        """The same, added to `term` [N, E]."""
        return self.down.plus(self._inner(x), term)

    def _inner(self, x: torch.Tensor) -> torch.Tensor:
        """The inner activations [N, F]."""
        if self.gate is None:
            return self.up.activated(x, self.record.activation)
        if self.record.clamped:
            gate, up = self.gate(x).clamp(max=_CUT), self.up(x).clamp(-_CUT, _CUT)
            return gate * torch.sigmoid(_SLOPE * gate) * (up + 1)
        return self.up.times(x, self.gate.activated(x, self.record.activation))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertWeights:
    """Routed experts and the shared ones beside them."""

    record: Experts
    router: torch.Tensor
    """[X, E] in float32, whatever the rest is computed in: the choice hangs on small differences."""
    router_bias: torch.Tensor | None
    experts: tuple[DenseWeights, ...]
    shared: DenseWeights | None
    shared_gate: torch.Tensor | None
    """[1, E] in float32."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """What they give [N, E] for hidden states [N, E]; experts that no row goes to are not read."""
        chosen, weights = self.route(x)
        given = self._routed(x, chosen, weights).to(x.dtype)
        if self.shared is None:
            return given
        if self.shared_gate is None:
            return self.shared.plus(x, given)
        share = torch.sigmoid(F.linear(x.float(), self.shared_gate))
        return given + share.to(x.dtype) * self.shared(x)

    def plus(self, x: torch.Tensor, term: torch.Tensor) -> torch.Tensor:
        """The same, added to `term` [N, E]."""
        return self(x) + term

    def route(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The experts of each row [N, k], and their weights [N, k] in float32."""
        on_scores = self.router_bias if self.record.router_bias == "scores" else None
        scores = F.linear(x.float(), self.router, on_scores)
        return route(self.record, scores, self.router_bias if on_scores is None else None)

    def _routed(self, x: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The weighted sum over each row's experts [N, E] in float32, expert by expert."""
        k = chosen.shape[1]
        order = chosen.flatten().argsort(stable=True)
        counts = torch.bincount(chosen.flatten(), minlength=self.record.count).tolist()
        given = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
        start = 0
        for expert, count in zip(self.experts, counts, strict=True):
            if count == 0:
                continue
            places = order[start : start + count]
            rows, factors = places // k, weights.flatten()[places, None]
            start += count
            if self.record.weigh_inputs:
                given = given.index_add(0, rows, expert(x[rows] * factors.to(x.dtype)).float())
            else:
                given = given.index_add(0, rows, expert(x[rows]).float() * factors)
        return given


def route(
    record: Experts, scores: torch.Tensor, choice_bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which experts each row goes to [N, k], and with what weights [N, k].

    Args:
        scores: of the router, [N, X] in float32.
        choice_bias: [X], added for the choice alone.
    """
    match record.scores:
        case "one_by_one":
            return _one_by_one(record, scores)
        case "softmax":
            given = torch.softmax(scores, -1)
        case "sigmoid":
            given = torch.sigmoid(scores)
        case "softmax_chosen":
            given = scores
    ranked = given if choice_bias is None else given + choice_bias
    if record.groups > 1:
        ranked = _in_chosen_groups(record, ranked)
    chosen = ranked.topk(record.per_token, -1).indices
    weights = given.gather(1, chosen)
    if record.scores == "softmax_chosen":
        weights = torch.softmax(weights, -1)
    if record.normalised:
        weights = weights / weights.sum(-1, keepdim=True)
    return chosen, weights * record.weight_scale


def _one_by_one(record: Experts, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The experts of each row [N, k] and their weights, the best first."""
    left, chosen, weights = scores, [], []
    for _ in range(record.per_token):
        best, index = left.max(-1, keepdim=True)
        far = (best - scores) / torch.maximum(scores.abs(), best) > record.rivals_within
        weights.append(left.masked_fill(far, -torch.inf).softmax(-1).gather(-1, index))
        chosen.append(index)
        left = left.scatter(-1, index, -torch.inf)
    return torch.cat(chosen, -1), torch.cat(weights, -1) * record.weight_scale


def _in_chosen_groups(record: Experts, ranked: torch.Tensor) -> torch.Tensor:
    """The same [N, X] with minus infinity for experts of other groups."""
    grouped = ranked.view(len(ranked), record.groups, -1)
    best = grouped.topk(2 if record.scores == "sigmoid" else 1, -1).values.sum(-1)
    others = torch.ones_like(best, dtype=torch.bool)
    others.scatter_(1, best.topk(record.chosen_groups, -1).indices, value=False)
    return grouped.masked_fill(others.unsqueeze(-1), float("-inf")).view_as(ranked)
