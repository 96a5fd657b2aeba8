"""Matrix products with what follows them fused in: a bias, an activation, a product or a sum.

`Dense` is plain PyTorch and the reference. `Packed` keeps a bfloat16 matrix in the layout of
oneDNN's kernels; PyTorch would otherwise reorder the whole matrix at every call, which at few
tokens costs more than the product itself (1.5 to 2 times at 1 to 32 tokens). Its fused epilogues
round once where the plain path rounds twice.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812

from pentad.execution.layers import Activation


class Linear(Protocol):
    """y = x W^T + b on rows: x [N, in], y [N, out]."""

    nbytes: int

    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...

    def activated(self, x: torch.Tensor, activation: Activation) -> torch.Tensor:
        """activation(y)"""
        ...

    def times(self, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """y * factor"""
        ...

    def plus(self, x: torch.Tensor, term: torch.Tensor) -> torch.Tensor:
        """y + term"""
        ...


def activate(y: torch.Tensor, activation: Activation) -> torch.Tensor:
    """The activation of that name, element by element."""
    match activation:
        case "silu":
            return F.silu(y)
        case "gelu":
            return F.gelu(y)
        case "gelu_tanh":
            return F.gelu(y, approximate="tanh")
        case "relu":
            return F.relu(y)
        case "relu_squared":
            return F.relu(y).square()


class Dense:
    """The plain path: any device, any precision, differentiable."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self.weight = weight
        self.bias = bias
        self.nbytes = weight.nbytes + (bias.nbytes if bias is not None else 0)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight, self.bias)

    def activated(self, x: torch.Tensor, activation: Activation) -> torch.Tensor:
        return activate(self(x), activation)

    def times(self, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        return self(x) * factor

    def plus(self, x: torch.Tensor, term: torch.Tensor) -> torch.Tensor:
        if self.bias is None:
            return torch.addmm(term, x, self.weight.t())
        return self(x) + term


_POST_OPS: dict[Activation, tuple[str, str]] = {
    "silu": ("swish", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
}


class Packed:
    """The oneDNN path for bfloat16 on a CPU. `weight` may be freed by the caller afterwards."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.bias = bias
        self.nbytes = weight.nbytes + (bias.nbytes if bias is not None else 0)
        self._product = torch.ops.mkldnn._linear_pointwise.default
        self._with_tensor = torch.ops.mkldnn._linear_pointwise.binary

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._product(x, self.weight, self.bias, "none", [], "")

    def activated(self, x: torch.Tensor, activation: Activation) -> torch.Tensor:
        if activation not in _POST_OPS:
            return activate(self(x), activation)
        name, algorithm = _POST_OPS[activation]
        return self._product(x, self.weight, self.bias, name, [], algorithm)

    def times(self, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        return self._with_tensor(x, factor, self.weight, self.bias, "mul")

    def plus(self, x: torch.Tensor, term: torch.Tensor) -> torch.Tensor:
        return self._with_tensor(x, term, self.weight, self.bias, "add")


def packing_available() -> bool:
    """Whether this build of PyTorch has the packed operators and this CPU gains from them."""
    names = ("_reorder_linear_weight", "_linear_pointwise")
    found = torch.cpu.get_capabilities()
    x86 = bool(found.get("amx_bf16") or found.get("avx512_bf16"))
    return x86 and all(hasattr(torch.ops.mkldnn, name) for name in names)


def bfloat16_in_hardware() -> bool:
    """Whether the CPU multiplies bfloat16 natively: AMX, AVX512-BF16 or the Arm extension."""
    found = torch.cpu.get_capabilities()
    return any(found.get(flag) for flag in ("amx_bf16", "avx512_bf16", "bf16"))


def linear(weight: torch.Tensor, bias: torch.Tensor | None, *, pack: bool) -> Linear:
    """The fast form of a matrix where `pack` is true, else the plain one."""
    return Packed(weight, bias) if pack else Dense(weight, bias)
