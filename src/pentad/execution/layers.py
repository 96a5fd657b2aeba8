"""What a layer is, as data: a mixer, a feed-forward, their norms and how they meet the residual stream.

A new kind of layer is a record (here or in mixers.py), an op in PyTorch (torch/program.py) and, where it
must be fast, an op of the native kernels. Parameters and products are counted from the records' tensors,
so that they can't differ from what is loaded.

Axis letters: E model width, F feed-forward width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pentad.execution.mixers import Attention, CacheRow, Mixer, Norm, Shapes, at_least_one

Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu_squared"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedForward:
    """A dense feed-forward: down(activation(gate(x)) * up(x)), or down(activation(up(x))) if not gated."""

    width: int
    activation: Activation = "silu"
    gated: bool = True
    bias: bool = False
    clamped: bool = False
    """gate * sigmoid(1.702 gate) * (up + 1) of values that are cut at 7 (gpt-oss)."""

    def __post_init__(self) -> None:
        at_least_one("ffn_width", self.width)

    def shapes(self, width: int) -> Shapes:
        found: Shapes = {"gate": (self.width, width)} if self.gated else {}
        found |= {"up": (self.width, width), "down": (width, self.width)}
        return found | ({f"{name}.bias": shape[:1] for name, shape in found.items()} if self.bias else {})

    def active(self) -> Mapping[str, float]:
        """Tensor to the share of it that one token goes through, where that is not all."""
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """Routed experts: each token goes through `per_token` of `count`, and through the shared ones."""

    count: int
    per_token: int
    expert: FeedForward
    shared: FeedForward | None = None
    """All shared experts as one, their widths added up."""
    shared_gate: bool = False
    """The shared part is weighed by sigmoid(w x) (Qwen2-MoE)."""
    scores: Literal["softmax", "sigmoid", "softmax_chosen", "one_by_one"] = "softmax"
    """How router scores become weights; `softmax_chosen`: over the chosen ones alone. `one_by_one`: the best
    one's weight is its share in a softmax over those that nearly equal it, then the same without it
    (Phi-3.5-MoE; Liu et al. 2024)."""
    rivals_within: float = 0.0
    """Of `one_by_one`: how much of the larger of both scores' sizes a rival's may lack."""
    normalised: bool = False
    """Whether the weights of the chosen ones are brought to a sum of 1."""
    router_bias: Literal["scores", "choice"] | None = None
    """A bias of the scores (gpt-oss), or one that bears on the choice alone (DeepSeek-V3)."""
    weight_scale: float = 1.0
    groups: int = 1
    """Experts stand in so many groups, of which `chosen_groups` are looked at: those with the best expert
    (DeepSeek-V2), or with sigmoid those whose two best are best together (DeepSeek-V3)."""
    chosen_groups: int = 1
    weigh_inputs: bool = False
    """Weights are factors of what the chosen ones read, not of what they give (Llama 4)."""

    def __post_init__(self) -> None:
        if not 1 <= self.per_token <= self.count:
            raise ValueError(f"{self.per_token} of {self.count} experts for each token cannot be")
        if self.count % self.groups or not 1 <= self.chosen_groups <= self.groups:
            raise ValueError(
                f"{self.chosen_groups} of {self.groups} groups of {self.count} experts cannot be"
            )
        if self.per_token > self.chosen_groups * (self.count // self.groups):
            raise ValueError(f"{self.chosen_groups} groups have no {self.per_token} experts to choose")
        if self.shared_gate and self.shared is None:
            raise ValueError("a gate of shared experts needs shared experts")

    @property
    def width(self) -> int:
        """Feed-forward columns that one token goes through."""
        return self.per_token * self.expert.width + (self.shared.width if self.shared else 0)

    @property
    def gated(self) -> bool:
        return self.expert.gated

    def shapes(self, width: int) -> Shapes:
        found: Shapes = {"router": (self.count, width)}
        if self.router_bias is not None:
            found["router.bias"] = (self.count,)
        found |= {f"experts.{n}": (self.count, *shape) for n, shape in self.expert.shapes(width).items()}
        if self.shared is not None:
            found |= {f"shared.{n}": shape for n, shape in self.shared.shapes(width).items()}
        return found | ({"shared_gate": (1, width)} if self.shared_gate else {})

    def active(self) -> Mapping[str, float]:
        return {f"experts.{name}": self.per_token / self.count for name in self.expert.shapes(1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One layer: a mixer, cross-attention where it reads an encoder, a feed-forward, each with its norm."""

    mixer: Mixer | None
    feed_forward: FeedForward | Experts | None
    norm: Norm = field(default_factory=Norm)
    placement: Literal["pre", "post", "both", "output"] = "pre"
    """Where norms stand: on what a part reads; behind the residual sum (BERT); on what a part reads and on
    what it gives (Gemma 2); on what it gives alone (OLMo 2)."""
    mixer_norm: bool = True
    """Whether the mixer has a norm; the first layer of ModernBERT reads the embeddings as they are."""
    entry_norm: bool = False
    """Whether the stream itself is normed in front of the layer (PanGu-alpha's query layer)."""
    parallel: bool = False
    """Mixer and feed-forward read the same hidden state and are added together (GPT-J, Falcon)."""
    shared_norm: bool = False
    """... and one norm serves both."""
    residual_scale: float = 1.0
    """Factor of what each part adds to the stream (Granite)."""
    cross: Attention | None = None
    cross_width: int | None = None
    """Width of what cross-attention reads; None: the stack's."""

    def __post_init__(self) -> None:
        if self.mixer is None and self.feed_forward is None:
            raise ValueError("a layer needs a mixer or a feed-forward")
        if not self.mixer_norm and (self.placement != "pre" or self.shared_norm):
            raise ValueError("only layers whose parts norm what they read may leave out a norm")
        if self.shared_norm and not self.parallel:
            raise ValueError("one norm serves both parts of parallel layers only")

    def shapes(self, width: int) -> Shapes:
        """Every tensor of the layer, in a stack of that width."""
        parts: list[tuple[str, Shapes]] = []
        if self.mixer is not None:
            parts.append(("attn", self.mixer.shapes(width)))
        if self.cross is not None:
            shapes = self.cross.shapes(width, self.cross_width)
            parts.append(("cross", {f"cross.{name}": shape for name, shape in shapes.items()}))
        if self.feed_forward is not None:
            parts.append(("ffn", self.feed_forward.shapes(width)))
        found: Shapes = self.norm.shapes("entry_norm", width) if self.entry_norm else {}
        for name, shapes in parts:
            if not (name == "ffn" and self.shared_norm) and (name != "attn" or self.mixer_norm):
                found |= self._norms(name, width)
            found |= shapes
        return found

    def _norms(self, name: str, width: int) -> Shapes:
        """`pre` and `post` stand under `attn_norm`, what stands on an output under `attn_out_norm`."""
        read = {} if self.placement == "output" else self.norm.shapes(f"{name}_norm", width)
        given = self.norm.shapes(f"{name}_out_norm", width) if self.placement in ("both", "output") else {}
        return read | given

    def parameters(self, width: int) -> int:
        """Numbers in all its tensors."""
        return sum(math.prod(shape) for shape in self.shapes(width).values())

    def active_products(self, width: int) -> float:
        """Multiply-adds of one token in its matrices: of routed experts, the chosen ones."""
        active = {} if self.feed_forward is None else self.feed_forward.active()
        return sum(math.prod(shape) * active.get(name, 1.0) for name, shape in self.matrices(width).items())

    def matrices(self, width: int) -> Shapes:
        """Those tensors that tokens are multiplied with."""
        tables = self.mixer.tables if isinstance(self.mixer, Attention) else frozenset()
        found = {name: shape for name, shape in self.shapes(width).items() if len(shape) > 1}
        return {n: shape for n, shape in found.items() if not n.endswith(".bias") and n not in tables}

    @property
    def kv_elements(self) -> int:
        """Numbers that a token adds to the cache in this layer."""
        return 0 if self.mixer is None else self.mixer.kv_elements

    @property
    def cache_row(self) -> CacheRow | None:
        """What it keeps of a token; None: nothing."""
        return None if self.mixer is None else self.mixer.cache_row

    @property
    def window(self) -> int | None:
        """How many tokens its attention sees at most; None: all."""
        chunk = self.mixer.chunk if isinstance(self.mixer, Attention) else None
        return None if self.mixer is None else self.mixer.window or chunk
