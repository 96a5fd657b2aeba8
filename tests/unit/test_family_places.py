"""Places: what stands in a file in another order, shape or number becomes the canonical tensor, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pytest

from native_support import stored, tiny_spec
from pentad.errors import BadModelFile
from pentad.execution.quant import dequantize
from pentad.execution.spec import ModelSpec
from pentad.execution.weights import MadeTensor, StoredTensor
from pentad.model.families import family_of
from pentad.model.families.base import bind
from pentad.model.families.mapped import MappedWeights, restored
from pentad.model.families.places import (
    Constant,
    Name,
    Place,
    Reshaped,
    Rows,
    Transposed,
    fused_qkv,
    halves,
    headwise_qkv,
    plus_one,
)
from pentad.model.files.formats import TensorInfo

SPEC = tiny_spec(layers=1, heads=4, kv_heads=2, head_dim=64, width=256, ffn_width=512)
RNG = np.random.default_rng(5)


@dataclasses.dataclass(frozen=True)
class Held:
    """A container of tensors in memory."""

    held: Mapping[str, StoredTensor]
    size_bytes: int = 0

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return MappingProxyType(
            {
                name: TensorInfo(name=name, format=t.format, shape=t.shape, offset=0, size_bytes=t.data.size)
                for name, t in self.held.items()
            }
        )

    def tensor(self, name: str) -> StoredTensor:
        return self.held[name]

    def close(self) -> None:
        """Nothing is mapped."""


def random(name: str, *shape: int, format: str = "F32") -> StoredTensor:
    return stored(name, format, shape, RNG)  # type: ignore[arg-type]


def canonical(spec: ModelSpec = SPEC, **changed: StoredTensor) -> dict[str, StoredTensor]:
    """A file whose names are the canonical ones with `.weight` behind them."""
    return {f"{name}.weight": random(name, *shape) for name, shape in spec.tensors().items()} | changed


def mapped(names: Mapping[str, Name], *tensors: StoredTensor, spec: ModelSpec = SPEC) -> MappedWeights:
    """A file with some tensors elsewhere."""
    parts = canonical(spec) | {t.name: t for t in tensors}
    keys = {key.replace(".0.", ".{i}.").removesuffix(".bias") for key in spec.tensors()}
    return bind(
        family_of("llama", "a"), {key: key for key in keys} | dict(names), spec, Held(parts), "a file"
    )


def values(weights: MappedWeights, name: str) -> np.ndarray:
    tensor = weights.tensor(name)
    found: np.ndarray = dequantize(tensor)
    assert found.shape == SPEC.tensors()[name] if name in SPEC.tensors() else True
    return found


@pytest.mark.parametrize("format", ["F32", "BF16", "Q4_K", "Q8_0"])
def test_fused_rows_are_views_whatever_the_format(format: str) -> None:
    fused = random("layers.0.qkv.weight", 512, 256, format=format)
    weights = mapped(fused_qkv("layers.{i}.qkv"), fused)
    whole = dequantize(fused)
    for name, rows in (("q", slice(0, 256)), ("k", slice(256, 384)), ("v", slice(384, 512))):
        part = weights.tensor(f"layers.0.{name}")
        assert part.format == format
        assert np.shares_memory(part.data, fused.data)
        np.testing.assert_array_equal(dequantize(part), whole[rows])


@pytest.mark.parametrize("format", ["F32", "BF16", "Q4_K"])
def test_rows_of_each_head_are_brought_together_without_leaving_their_format(format: str) -> None:
    """[group 0: q q k v][group 1: q q k v], 64 rows each."""
    fused = random("layers.0.qkv.weight", 512, 256, format=format)
    weights = mapped(headwise_qkv("layers.{i}.qkv"), fused)
    groups = dequantize(fused).reshape(2, 4, 64, 256)
    expected = {"q": groups[:, :2], "k": groups[:, 2], "v": groups[:, 3]}
    for name, part in expected.items():
        found = weights.tensor(f"layers.0.{name}")
        assert found.format == format
        np.testing.assert_array_equal(dequantize(found), part.reshape(-1, 256))


def test_biases_are_cut_as_their_matrices_are() -> None:
    spec = SPEC.with_attention(qkv_bias=True)
    bias = random("layers.0.qkv.bias", 512)
    weights = mapped(headwise_qkv("layers.{i}.qkv"), random("layers.0.qkv.weight", 512, 256), bias, spec=spec)
    groups = dequantize(bias).reshape(2, 4, 64)
    np.testing.assert_array_equal(dequantize(weights.tensor("layers.0.k.bias")), groups[:, 2].reshape(-1))


@pytest.mark.parametrize("format", ["F32", "F16", "Q8_0"])
def test_transposed_matrices_are_turned_when_they_are_read(format: str) -> None:
    fused = random("layers.0.qkv.weight", 256, 512, format=format)
    weights = mapped(fused_qkv("layers.{i}.qkv", Transposed()), fused)
    found = weights.tensor("layers.0.k")
    assert isinstance(found, MadeTensor)
    assert found.format == ("F32" if format == "Q8_0" else format)
    assert all(np.shares_memory(origin, fused.data) for origin in found.origins)
    np.testing.assert_array_equal(dequantize(found), dequantize(fused).T[256:384])


def test_interleaved_rows_are_taken_apart() -> None:
    """gate, up, gate, up ..."""
    pair = random("layers.0.pair.weight", 1024, 256, format="Q4_K")
    names: dict[str, Name] = {
        f"layers.{{i}}.{name}": Place(
            name="layers.{i}.pair",
            steps=(Rows(start=lambda _, at=at: at, count=lambda _: 1, period=lambda _: 2),),  # type: ignore[misc]
        )
        for at, name in enumerate(("gate", "up"))
    }
    weights = mapped(names, pair)
    np.testing.assert_array_equal(values(weights, "layers.0.up"), dequantize(pair)[1::2])


def test_halves_lie_one_above_the_other() -> None:
    pair = random("layers.0.pair.weight", 1024, 256, format="Q4_K")
    weights = mapped(halves("layers.{i}.pair", "layers.{i}.gate", "layers.{i}.up"), pair)
    assert np.shares_memory(weights.tensor("layers.0.up").data, pair.data)
    np.testing.assert_array_equal(values(weights, "layers.0.up"), dequantize(pair)[512:])


@pytest.mark.parametrize("format", ["F32", "Q4_K"])
def test_a_stack_is_put_together_of_its_members(format: str) -> None:
    """Here heads of keys stand in the place of experts: [2, 64, 256] is reshaped to [128, 256]."""
    members = [random(f"layers.0.k.{e}.weight", 64, 256, format=format) for e in range(2)]
    bound = mapped(
        {"layers.{i}.k": Place(name="layers.{i}.k.{e}", members=lambda site: site.attention.kv_heads)},
        *members,
        spec=_Stacked(SPEC),  # type: ignore[arg-type]
    )
    found = bound.tensor("layers.0.k")
    assert (found.format, found.shape) == (format, (2, 64, 256))
    np.testing.assert_array_equal(dequantize(found), np.stack([dequantize(m) for m in members]))


class _Stacked:
    """A spec whose keys are wanted as a stack."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec

    def __getattr__(self, name: str) -> object:
        return getattr(self._spec, name)

    def tensors(self) -> dict[str, tuple[int, ...]]:
        return {**self._spec.tensors(), "layers.0.k": (2, 64, 256)}


def test_members_of_different_formats_meet_in_float32() -> None:
    members = [random(f"layers.0.k.{e}.weight", 64, 256, format=f) for e, f in enumerate(("Q8_0", "Q4_K"))]
    place = Place(name="layers.{i}.k.{e}", members=lambda _: 2)
    found = mapped({"layers.{i}.k": place}, *members, spec=_Stacked(SPEC)).tensor("layers.0.k")  # type: ignore[arg-type]
    assert found.format == "F32"
    np.testing.assert_array_equal(dequantize(found), np.stack([dequantize(m) for m in members]))


def test_a_scale_less_one_is_made_whole_in_float32() -> None:
    scale = random("final.weight", 256, format="BF16")
    found = mapped({"final_norm": plus_one("final")}, scale).tensor("final_norm")
    assert found.format == "F32"
    np.testing.assert_array_equal(dequantize(found), dequantize(scale) + 1)


def test_what_a_file_lacks_has_its_meaning() -> None:
    names: dict[str, Name] = {
        "final_norm": Constant(value=1.0),
        "layers.{i}.attn_norm": Place(name="layers.{i}.elsewhere", absent=2.0),
    }
    weights = mapped(names)
    assert set(values(weights, "final_norm")) == {1.0}
    assert set(values(weights, "layers.0.attn_norm")) == {2.0}
    with pytest.raises(BadModelFile, match=r"lacks the tensor 'elsewhere\.weight'"):
        mapped({"final_norm": "elsewhere"})


def test_a_tensor_may_stand_in_another_shape_and_under_a_bare_name() -> None:
    flat = random("layers.0.flat", 256 * 256)
    place = Place(name="layers.{i}.flat", suffix="", steps=(Reshaped(to=lambda _: (256, 256)),))
    found = mapped({"layers.{i}.q": place}, flat)
    np.testing.assert_array_equal(values(found, "layers.0.q").reshape(-1), dequantize(flat))


def test_layers_may_differ_in_where_their_tensors_stand() -> None:
    spec = tiny_spec(layers=2)
    tensors = canonical(spec)
    tensors["odd.weight"] = random("odd.weight", 256)
    table: dict[str, object] = {
        f"layers.{{i}}.{key[9:]}": f"layers.{{i}}.{key[9:]}" for key in spec.tensors()
    }
    table |= {key: key for key in ("embed", "final_norm", "head")}
    table["layers.{i}.attn_norm"] = lambda site: "odd" if site.layer == 1 else "layers.{i}.attn_norm"
    weights = bind(family_of("llama", "a"), table, spec, Held(tensors), "a file")  # type: ignore[arg-type]
    assert weights.where["layers.1.attn_norm"].files == ("odd.weight",)
    assert weights.where["layers.0.attn_norm"].files == ("layers.0.attn_norm.weight",)


@pytest.mark.parametrize("shape", [(511, 256), (512, 255), (512,)])
def test_a_fused_tensor_of_another_shape_is_refused_by_its_name(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadModelFile, match=r"layers\.0\.qkv\.weight' has shape"):
        mapped(headwise_qkv("layers.{i}.qkv"), random("layers.0.qkv.weight", *shape))


RESTORED = {
    "rows": (fused_qkv("layers.{i}.qkv"), ("q", "k", "v"), (512, 256), "Q4_K"),
    "heads": (headwise_qkv("layers.{i}.qkv"), ("q", "k", "v"), (512, 256), "Q4_K"),
    "turned": (fused_qkv("layers.{i}.qkv", Transposed()), ("q", "k", "v"), (256, 512), "F16"),
    "scale": ({"layers.{i}.attn_norm": plus_one("layers.{i}.qkv")}, ("attn_norm",), (256,), "F32"),
}


@pytest.mark.parametrize("kind", RESTORED)
def test_the_way_back_gives_the_file_s_tensor(kind: str) -> None:
    names, parts, shape, format = RESTORED[kind]
    source = random("layers.0.qkv.weight", *shape, format=format)
    weights = mapped(names, source)
    inside = [(weights.where[f"layers.0.{part}"], weights.tensor(f"layers.0.{part}")) for part in parts]
    back = restored(source.name, SPEC, inside, source.shape)
    assert (back.format, back.shape) == (format, shape)
    np.testing.assert_allclose(dequantize(back), dequantize(source), atol=1e-6)
    if kind != "scale":
        np.testing.assert_array_equal(back.data, source.data)
