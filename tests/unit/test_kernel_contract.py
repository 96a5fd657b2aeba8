"""Every kernel of the registry: it tells what it lacks, costs what it says, and is equal to the plain one."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from native_support import divergence, random_weights, tiny_spec
from pentad import registry
from pentad.application.config_loading import resolve
from pentad.choice import Choice, build
from pentad.errors import PentadError
from pentad.execution.kernels.base import Kernel
from pentad.execution.native.choice import CHOICES
from pentad.execution.native.library import NEEDS, built, cpu_flags
from pentad.execution.positions import ProjectedDistances
from pentad.execution.spec import ModelSpec, Rope
from ragged_batches import ragged

EVERY = registry.known("kernel")
SPECS = {
    "grouped heads": tiny_spec(),
    "norms of heads, windows": tiny_spec(qk_norm=True, window=19, window_layers=(1,), tied_head=True),
    "biases, interleaved": tiny_spec(
        positions=Rope(dim=64, pairing="interleaved"), biases=frozenset({"qkv"})
    ),
}
TOKENS = np.random.default_rng(5).integers(0, 203, 44).tolist()


def kernel(name: str) -> Kernel:
    found: Kernel = build("kernel", Choice(name=name))
    return found


def present(name: str) -> Kernel:
    """Skips aloud where this machine lacks it."""
    found = kernel(name)
    if (why := found.absent()) is not None:
        pytest.skip(f"{name}: {why}")
    return found


def logits(kernel: Kernel, spec: ModelSpec) -> list[np.ndarray]:
    """Of a prompt, of one token behind it, and of a chunk."""
    exact = {"dtype": "float32"} if kernel.name == "torch" else {}
    runner = kernel.load(spec, random_weights(spec, "Q8_0"), num_blocks=8, **exact)
    parts = [(TOKENS[:30], 0), (TOKENS[30:31], 30), (TOKENS[31:], 31)]
    found = [runner.logits(ragged([(tokens, start, [5, 2, 7])])) for tokens, start in parts]
    runner.close()
    return found


def test_the_family_is_the_setting() -> None:
    assert set(EVERY) | {"auto"} == set(CHOICES)
    assert {name for name in EVERY if kernel(name).absent() is None} >= {"torch"}


@pytest.mark.parametrize("name", EVERY)
def test_what_is_lacking_is_told(name: str) -> None:
    absent = kernel(name).absent()
    if name in NEEDS:
        here = name in built() and NEEDS[name] <= cpu_flags()
        assert (absent is None) == here
        assert kernel(name).needs == NEEDS[name]
    if absent is not None:
        with pytest.raises(PentadError) as caught:
            kernel(name).load(tiny_spec(), random_weights(tiny_spec(), "Q8_0"), num_blocks=1)
        assert caught.value.hint


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("name", EVERY)
def test_it_is_equal_to_the_plain_one_within_its_bound(name: str, spec: str) -> None:
    found = present(name)
    for expected, own in zip(logits(kernel("torch"), SPECS[spec]), logits(found, SPECS[spec]), strict=True):
        assert expected.std() > 0.5, "the distributions say something"
        assert divergence(expected, own).mean() <= found.bound_nats


@pytest.mark.parametrize("name", EVERY)
def test_equal_input_gives_equal_bits(name: str) -> None:
    found = present(name)
    for one, other in zip(
        logits(found, SPECS["grouped heads"]), logits(found, SPECS["grouped heads"]), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", EVERY)
def test_the_cost_is_what_a_runner_takes(name: str) -> None:
    found, spec = present(name), tiny_spec(vocab_size=208)
    weights = random_weights(spec, "Q4_0")
    runner = found.load(spec, weights, num_blocks=4)
    cost = found.cost(spec, weights)
    assert cost.weight_bytes == pytest.approx(runner.weight_bytes, rel=0.1)  # type: ignore[attr-defined]
    assert cost.kv_bytes_per_token == runner.block_bytes / runner.block_size
    runner.close()


@pytest.mark.parametrize("name", EVERY)
def test_a_part_that_it_has_no_op_for_is_named(name: str) -> None:
    spec = tiny_spec().with_attention(positions=ProjectedDistances())
    weights = random_weights(tiny_spec(), "Q8_0")
    expected = None if name == "torch" else "layer 0 projects distances"
    assert kernel(name).unsupported(spec, weights) == expected


def test_the_settings_choose_it(tmp_path: pathlib.Path) -> None:
    for name in EVERY:
        (tmp_path / "pentad.yaml").write_text(f"engine:\n  kernels: {name}\n")
        assert resolve(env={}, file=tmp_path / "pentad.yaml").settings.engine.kernels == name
