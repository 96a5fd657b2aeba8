"""KV policies from the setting to the answer with SmolLM2: company, preemption, sharing change no token."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import numpy as np
import pytest

from native_support import HERE
from pentad import registry
from pentad.application.config import EngineSettings
from pentad.application.runners import kv_element_bytes, load_engine, load_runner
from pentad.choice import Choice, build
from pentad.errors import Incompatible
from pentad.execution.kv.policy import KVPolicy
from pentad.execution.kv.policy_cache import PolicyCache
from pentad.execution.scheduling import EngineLimits
from pentad.model.loading import ModelFiles, open_model
from torch_generation import engine, generate, prompts

SMALL = {"sinks": {"first": 4, "last": 20}, "accumulated-attention": {"heavy": 12, "recent": 12}}
NAMES = [name for name in registry.known("kv_policy") if name in SMALL]
ROW_BY_ROW = [name for name in HERE if name != "amx"][:1]


@pytest.fixture(scope="module")
def files(smollm2_path: pathlib.Path) -> Iterator[ModelFiles]:
    opened = open_model(smollm2_path)
    yield opened
    opened.close()


def settings(name: str, kernels: str, kv_bytes: int = 64 << 20) -> EngineSettings:
    choice = Choice(name=name, options=SMALL[name])
    return EngineSettings(
        kv_policy=choice,
        kernels=kernels,
        kv_bytes=kv_bytes,
        threads=1,
        check_invariants=True,
    )


@pytest.mark.parametrize("kernels", ROW_BY_ROW)
@pytest.mark.parametrize("name", NAMES)
def test_company_preemption_and_sharing_change_no_token(files: ModelFiles, name: str, kernels: str) -> None:
    asked, chosen = prompts(files, 30)[:3], settings(name, kernels)
    policy: KVPolicy = build("kv_policy", chosen.kv_policy)
    outcomes = []
    for sequences, preempt_after in ((8, None), (1, None), (8, 6)):
        runner = load_runner(files, chosen, EngineLimits())
        made = engine(runner, max_sequences=sequences, preempt_after_tokens=preempt_after, kv_policy=policy)
        outcomes.append(generate(made, asked, 20))
        assert made.stats()["kv_entries_dropped_total"] > 0
        made.close()
    assert outcomes[0].tokens == outcomes[1].tokens == outcomes[2].tokens
    assert outcomes[2].preemptions > 0


@pytest.mark.parametrize("kernels", ROW_BY_ROW)
@pytest.mark.parametrize("name", NAMES)
def test_the_setting_reaches_the_engine_and_its_bytes(files: ModelFiles, name: str, kernels: str) -> None:
    chosen = settings(name, kernels)
    made = load_engine(files, chosen)
    assert isinstance(made._kv, PolicyCache)
    policy: KVPolicy = build("kv_policy", chosen.kv_policy)
    scored = "attention-scores" in policy.needs
    plain = kv_element_bytes(files, chosen.model_copy(update={"kv_policy": Choice(name="keep-all")}))
    heads = files.spec.layers * files.spec.kv_heads
    assert made.runner.block_bytes == pytest.approx(
        files.spec.kv_bytes_per_token(plain) * 16 + scored * 8 * 16 * heads
    )
    text = tuple(np.arange(100, 260).tolist())
    (tokens,) = generate(made, [text], 8).tokens
    assert len(tokens) == 8
    made.close()


def test_what_cannot_be_combined_is_told_before_the_model_is_loaded(files: ModelFiles) -> None:
    for name in NAMES:
        chosen = settings(name, "auto").model_copy(update={"speculation": Choice(name="ngram")})
        with pytest.raises(Incompatible, match="set --speculation none or --kv-policy keep-all"):
            load_engine(files, chosen)


def test_keep_all_is_an_engine_without_a_policy(files: ModelFiles) -> None:
    chosen = EngineSettings(kv_bytes=64 << 20, threads=1)
    made = load_engine(files, chosen)
    assert not isinstance(made._kv, PolicyCache)
    made.close()
