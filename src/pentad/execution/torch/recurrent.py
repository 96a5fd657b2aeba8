"""Linear recurrences and short convolutions over the tokens of a step, whatever sequences they are of.

Both rules keep a matrix S [key, value] per head, which decays, takes what a token writes, and is read:

    S <- exp(g) S + k u^T        o = q S          mamba2: u = dt x       gated_delta: u = beta (v - k S')

where S' is what has decayed already. A text is computed in chunks of 64 tokens, within which all tokens are
computed at once (Dao and Gu 2024, section 6; Yang et al. 2024, section 3.3), a decoding sequence by the rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

import torch
import torch.nn.functional as F  # noqa: N812

from pentad.execution.recurrences import Recurrent, ShortConvolution
from pentad.execution.torch.linear import Linear
from pentad.execution.torch.states import LayerState, StateStep

_CHUNK: Final = 64
"""Tokens that are computed at once; work within grows with its square."""
_NORM_EPS: Final = 1e-6
"""Of the lengths of queries and keys under the delta rule."""


@runtime_checkable
class StateAttend(Protocol):
    """Knows the sequences of a step and their states."""

    @property
    def states(self) -> StateStep: ...


def with_states(attend: object) -> StateStep:
    """The states of this step."""
    assert isinstance(attend, StateAttend), "this step has no states"
    return attend.states


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """A causal convolution of each channel by itself over its last K tokens."""

    weight: torch.Tensor
    """[C, K]"""
    bias: torch.Tensor | None

    def __call__(self, x: torch.Tensor, step: StateStep, state: LayerState) -> torch.Tensor:
        """[N, C] of inputs [N, C], which states take; saves nothing."""
        given = torch.empty_like(x)
        if len(step.singles):
            rows = step.single_rows
            seen = torch.cat((state.conv[rows], x[step.singles].float().unsqueeze(2)), 2)  # [B, C, K]
            found = (seen * self.weight.float()).sum(2)
            given[step.singles] = (found if self.bias is None else found + self.bias.float()).to(x.dtype)
            state.conv[rows] = seen[..., 1:]
        for piece in step.pieces:
            seen = torch.cat((state.conv[piece.row], x[piece.tokens].float().t()), 1)  # [C, K - 1 + T]
            bias = None if self.bias is None else self.bias.float()
            weight = self.weight.float().unsqueeze(1)
            found = F.conv1d(seen.unsqueeze(0), weight, bias, groups=len(weight))
            given[piece.tokens] = found[0].t().to(x.dtype)
            state.conv[piece.row] = seen[:, seen.shape[1] - state.conv.shape[2] :]
            if piece.saved is not None:
                state.conv[piece.saved] = state.conv[piece.row]
        return given


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortConvolutionWeights:
    """The matrices of one layer's short convolution."""

    record: ShortConvolution
    enter: Linear
    conv: Convolution
    o: Linear

    def context(self, x: torch.Tensor, layer: int, step: StateStep) -> torch.Tensor:
        """[N, channels] of hidden states [N, E]."""
        state = step.layer(layer)
        before, behind, values = self.enter(x).chunk(3, dim=-1)
        given = behind * self.conv(before * values, step, state)
        step.save_singles(state)
        return given


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What tokens write to a state and read of it, in float32; the first axis is that of heads."""

    queries: torch.Tensor
    """[..., H, T, key]"""
    keys: torch.Tensor
    values: torch.Tensor
    """[..., H, T, value]"""
    decay: torch.Tensor
    """[..., H, T] logarithms, at most 0."""
    rate: torch.Tensor | None
    """[..., H, T] of the delta rule; None: values are written as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrentWeights:
    """The matrices of one layer's linear recurrence."""

    record: Recurrent
    enter: Linear
    """[inner + convolved, E]: the gate of what is given, then what is convolved."""
    conv: Convolution
    step: Linear
    """[H, E] with a bias."""
    rate: Linear | None
    decay: torch.Tensor
    """[H] logarithms of positive numbers, in float32 as the next two."""
    skip: torch.Tensor | None
    inner_norm: torch.Tensor
    o: Linear

    def context(self, x: torch.Tensor, layer: int, step: StateStep) -> torch.Tensor:
        """[N, H value] of hidden states [N, E]; states advance."""
        record, state = self.record, step.layer(layer)
        gate, mixed = self.enter(x).split((record.inner, record.convolved), dim=-1)
        mixed = F.silu(self.conv(mixed, step, state))
        delta = record.rule == "gated_delta"
        sizes = (
            (record.keys, record.keys, record.inner) if delta else (record.inner, record.keys, record.keys)
        )
        first, keys, last = (part.float() for part in mixed.split(sizes, dim=-1))
        values = (last if delta else first).unflatten(-1, (record.heads, -1))  # [N, H, value]
        queries, keys = (
            part.unflatten(-1, (record.groups, -1)).repeat_interleave(record.heads // record.groups, dim=1)
            for part in ((first if delta else last), keys)
        )  # [N, H, key]
        steps = F.softplus(self.step(x).float())
        if record.step_limits is not None:
            steps = steps.clamp(*record.step_limits)
        decay = -self.decay.exp() * steps  # [N, H]
        if delta:
            assert self.rate is not None
            written = Written(
                queries=_unit(queries) * record.key_dim**-0.5,
                keys=_unit(keys),
                values=values,
                decay=decay,
                rate=torch.sigmoid(self.rate(x).float()),
            )
            given = self._advanced(written, step, state)
            normed = F.rms_norm(given, (record.value_dim,), self.inner_norm, record.norm_eps).flatten(1)
            return (normed * F.silu(gate.float())).to(x.dtype)
        written = Written(
            queries=queries, keys=keys, values=values * steps.unsqueeze(-1), decay=decay, rate=None
        )
        assert self.skip is not None
        given = self._advanced(written, step, state) + self.skip.unsqueeze(-1) * values
        gated = (given.flatten(1) * F.silu(gate.float())).unflatten(-1, (record.norm_groups, -1))
        normed = F.rms_norm(gated, gated.shape[-1:], None, record.norm_eps).flatten(1)
        return (normed * self.inner_norm).to(x.dtype)

    def _advanced(self, written: Written, step: StateStep, state: LayerState) -> torch.Tensor:
        """What is read [N, H, value] while states advance; `written` has tokens in front of heads."""
        given = torch.empty_like(written.values)
        if len(step.singles):
            rows = step.single_rows
            one = _taken(written, step.singles)
            given[step.singles], state.matrix[rows] = advance(one, state.matrix[rows])
        for piece in step.pieces:
            matrix = state.matrix[piece.row]
            for begin in range(piece.tokens.start, piece.tokens.stop, _CHUNK):
                which = slice(begin, min(begin + _CHUNK, piece.tokens.stop))
                read, matrix = advance_chunk(_by_head(written, which), matrix)
                given[which] = read.transpose(0, 1)
            state.matrix[piece.row] = matrix
            if piece.saved is not None:
                state.matrix[piece.saved] = matrix
        step.save_singles(state)
        return given


def advance(one: Written, matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One token of each of B texts: what it reads [B, H, value], and the states [B, H, key, value] behind it.

    Args:
        one: without an axis of tokens.
        matrix: the states in front of it.
    """
    matrix = matrix * one.decay.exp()[..., None, None]
    values = one.values
    if one.rate is not None:
        known = (one.keys.unsqueeze(-2) @ matrix).squeeze(-2)
        values = (values - known) * one.rate.unsqueeze(-1)
    matrix = matrix + one.keys.unsqueeze(-1) * values.unsqueeze(-2)
    return (one.queries.unsqueeze(-2) @ matrix).squeeze(-2), matrix


def advance_chunk(chunk: Written, matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """T tokens of a text: what they read [H, T, value], and the state [H, key, value] behind them."""
    total = chunk.decay.cumsum(-1)  # [H, T]
    ahead = torch.ones(total.shape[-1], total.shape[-1], dtype=torch.bool, device=total.device).triu(1)
    between = (total.unsqueeze(-1) - total.unsqueeze(-2)).masked_fill(ahead, -torch.inf).exp()  # [H, T, T]
    passed = total.exp().unsqueeze(-1)
    values = chunk.values
    if chunk.rate is not None:
        keys = chunk.keys * chunk.rate.unsqueeze(-1)
        # Each token corrects what those in front of it wrote: a triangular system, its diagonal of ones.
        system = (keys @ chunk.keys.transpose(-1, -2)) * between
        told = torch.cat((values * chunk.rate.unsqueeze(-1), keys * passed), dim=-1)
        solved = torch.linalg.solve_triangular(system, told, upper=False, unitriangular=True)
        values, read = solved.split((values.shape[-1], keys.shape[-1]), dim=-1)
        values = values - read @ matrix
    near = ((chunk.queries @ chunk.keys.transpose(-1, -2)) * between) @ values
    given = near + (chunk.queries * passed) @ matrix
    left = (total[..., -1:] - total).exp().unsqueeze(-1)
    after = matrix * passed[..., -1:, :] + (chunk.keys * left).transpose(-1, -2) @ values
    return given, after


def _taken(written: Written, which: torch.Tensor) -> Written:
    return Written(
        queries=written.queries[which],
        keys=written.keys[which],
        values=written.values[which],
        decay=written.decay[which],
        rate=None if written.rate is None else written.rate[which],
    )


def _by_head(written: Written, which: slice) -> Written:
    """Some tokens, heads in front of them."""
    return Written(
        queries=written.queries[which].transpose(0, 1),
        keys=written.keys[which].transpose(0, 1),
        values=written.values[which].transpose(0, 1),
        decay=written.decay[which].t(),
        rate=None if written.rate is None else written.rate[which].t(),
    )


def _unit(x: torch.Tensor) -> torch.Tensor:
    """Vectors of length 1."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + _NORM_EPS)
