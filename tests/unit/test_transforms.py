"""Pooling key/value heads: the means are right, the rest is untouched, the impossible refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pentad import registry
from pentad.errors import Incompatible
from pentad.execution.quant import dequantize
from pentad.execution.spec import ModelSpec, Rope
from pentad.execution.uniform import uniform_spec
from pentad.execution.weights import StoredTensor
from pentad.model.transforms.base import apply
from pentad.model.transforms.kv_pooling import KVPooling


def spec(heads: int = 12, kv_heads: int = 6) -> ModelSpec:
    return uniform_spec(
        name="m",
        family="llama",
        vocab_size=8,
        layers=1,
        width=5,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=4,
        ffn_width=8,
        context_length=8,
        positions=Rope(dim=4),
    )


@dataclass(frozen=True)
class Arrays:
    arrays: Mapping[str, np.ndarray]

    def names(self) -> Iterable[str]:
        return self.arrays.keys()

    def tensor(self, name: str) -> StoredTensor:
        array = self.arrays[name].astype(np.float32)
        return StoredTensor(name=name, format="F32", shape=array.shape, data=array.reshape(-1).view(np.uint8))


def weights(kv_heads: int) -> Arrays:
    rng = np.random.default_rng(0)
    shapes = {"layers.0.q": (48, 5), "embed": (8, 5)}
    shapes |= {f"layers.0.{n}": (kv_heads * 4, 5) for n in "kv"}
    shapes |= {f"layers.0.{n}.bias": (kv_heads * 4,) for n in "kv"}  # type: ignore[misc]
    return Arrays({name: rng.normal(size=shape) for name, shape in shapes.items()})


@pytest.mark.row("mem-gqa", "mechanism")
@given(pooled=st.sampled_from([1, 2, 3, 6]), name=st.sampled_from(["k", "v", "k.bias", "v.bias"]))
def test_each_new_head_is_the_mean_of_its_neighbours(pooled: int, name: str) -> None:
    source = weights(6)
    _, pooled_weights = apply(KVPooling(kv_heads=pooled), spec(), source)
    got = dequantize(pooled_weights.tensor(f"layers.0.{name}"))
    old = source.arrays[f"layers.0.{name}"]
    share = 6 // pooled
    for head in range(pooled):
        members = [old[(head * share + i) * 4 : (head * share + i + 1) * 4] for i in range(share)]
        np.testing.assert_allclose(got[head * 4 : head * 4 + 4], np.mean(members, axis=0), rtol=1e-5)
    assert got.shape == (pooled * 4, *old.shape[1:])


@pytest.mark.row("mem-gqa", "mechanism", claims=(1,))
def test_kv_bytes_fall_in_the_ratio_of_the_heads() -> None:
    for pooled in (1, 2, 3, 6):
        target = KVPooling(kv_heads=pooled).target(spec())
        assert target.kv_bytes_per_token() * 6 == spec().kv_bytes_per_token() * pooled
        assert (target.heads, target.kv_heads) == (12, pooled)


def test_queries_and_everything_else_pass_through_unchanged() -> None:
    source = weights(6)
    _, found = apply(KVPooling(kv_heads=1), spec(), source)
    assert set(found.names()) == set(source.names())
    for name in ("layers.0.q", "embed"):
        np.testing.assert_array_equal(dequantize(found.tensor(name)), source.arrays[name].astype("f4"))


def test_pooling_into_as_many_heads_changes_nothing() -> None:
    source = weights(6)
    target, found = apply(KVPooling(kv_heads=6), spec(), source)
    assert target == spec()
    np.testing.assert_array_equal(
        dequantize(found.tensor("layers.0.k")), source.arrays["layers.0.k"].astype("f4")
    )


@pytest.mark.parametrize("pooled", [0, 4, 5, 12])
def test_heads_that_do_not_divide_evenly_are_refused_with_those_that_do(pooled: int) -> None:
    with pytest.raises(Incompatible, match=r"do not pool into .*; set kv_heads to one of 1, 2, 3, 6"):
        KVPooling(kv_heads=pooled).target(spec())


def test_the_transform_is_registered() -> None:
    assert registry.load("transform", "kv-pooling") is KVPooling
