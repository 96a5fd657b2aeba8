"""Low-rank adapters: as the merged model, two in one batch as alone, and no prefix shared between them."""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model_fixtures import (
    F32,
    STR,
    VOCAB,
    f32_gguf,
    f32_safetensors,
    pair,
    tiny_llama_gguf,
    tokenizer_json,
)

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from evidence.plugin import Measure  # noqa: E402
from pentad.application.config import EngineSettings  # noqa: E402
from pentad.application.runners import load_engine  # noqa: E402
from pentad.errors import BadModelFile, ModelNotFound  # noqa: E402
from pentad.execution.adapters import adapters_of  # noqa: E402
from pentad.execution.engine import Engine  # noqa: E402
from pentad.model.adapters import adapter_key, open_adapter  # noqa: E402
from pentad.model.loading import open_model  # noqa: E402
from pentad.testing.engines import run, token_request  # noqa: E402

PROMPT = tuple(range(5, 45))
RANK, ALPHA = 4, 8.0
HF = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj"} | {
    name: f"mlp.{name}_proj" for name in ("gate", "up", "down")
}
GGUF = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output"} | {
    name: f"ffn_{name}" for name in ("gate", "up", "down")
}
Pairs = Mapping[str, tuple[Any, Any]]
"""`0.q` to down [r, in] and up [out, r], unscaled, in PEFT's order."""


def random_pairs(seed: int, layers: int = 2, width: int = 32, keys: int = 16, inner: int = 64) -> Pairs:
    """An adapter of every matrix that is large enough to change what a tiny model says."""
    dice = np.random.default_rng(seed)
    sizes = {"q": (width, width), "k": (keys, width), "v": (keys, width), "o": (width, width)}
    sizes |= {"gate": (inner, width), "up": (inner, width), "down": (width, inner)}
    return {
        f"{layer}.{name}": (
            dice.standard_normal((RANK, columns), np.float32) * 0.3,
            dice.standard_normal((rows, RANK), np.float32) * 0.3,
        )
        for layer in range(layers)
        for name, (rows, columns) in sizes.items()
    }


def write_peft(folder: pathlib.Path, pairs: Pairs, **config: Any) -> pathlib.Path:
    folder.mkdir()
    arrays = {}
    for at, (down, up) in pairs.items():
        layer, name = at.split(".")
        stem = f"base_model.model.model.layers.{layer}.{HF[name]}.lora_"
        arrays[stem + "A.weight"], arrays[stem + "B.weight"] = down, up
    (folder / "adapter_model.safetensors").write_bytes(f32_safetensors(arrays))
    known = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none", **config}
    (folder / "adapter_config.json").write_text(json.dumps(known))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A tiny random Llama as a folder of safetensors."""
    folder = tmp_path_factory.mktemp("models") / "base"
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            initializer_range=0.3,
        )
    )
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer_json())
    return folder


def merged(base: pathlib.Path, pairs: Pairs, folder: pathlib.Path) -> pathlib.Path:
    """The base with the adapter added into its matrices."""
    model = transformers.LlamaForCausalLM.from_pretrained(base)
    with torch.no_grad():
        for at, (down, up) in pairs.items():
            layer, name = at.split(".")
            weight = model.get_parameter(f"model.layers.{layer}.{HF[name]}.weight")
            weight += torch.from_numpy(up @ down) * (ALPHA / RANK)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer_json())
    return folder


def engine_of(path: pathlib.Path, *, kernels: str = "torch", **adapters: pathlib.Path) -> Engine:
    settings = EngineSettings(
        kernels=kernels,
        weight_dtype="float32",
        kv_bytes=1 << 22,
        threads=1,
        check_invariants=True,
        adapters={f"base:{name}": str(folder) for name, folder in adapters.items()},
    )
    files = open_model(path, name="base")
    try:
        return load_engine(files, settings)
    finally:
        files.close()


def tokens(engine: Engine, **keys: str) -> dict[str, list[int]]:
    """What each request draws, all in one batch; request id to the key of its adapter."""
    asked = [
        replace(token_request(id, PROMPT, max_tokens=12), adapter=key, cache_salt=f"\0{key}" if key else "")
        for id, key in keys.items()
    ]
    return {id: answer.tokens for id, answer in run(engine, *asked).items()}


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return {name: write_peft(folder / name, random_pairs(seed)) for name, seed in (("a", 1), ("b", 2))}


@pytest.fixture
def engine(base: pathlib.Path, adapters: dict[str, pathlib.Path]) -> Iterator[Engine]:
    made = engine_of(base, **adapters)
    yield made
    made.close()


def keys_of(adapters: Mapping[str, pathlib.Path]) -> dict[str, str]:
    return {name: adapter_key(path, f"base:{name}") for name, path in adapters.items()}


@pytest.mark.row("het-adapter", "mechanism", claims=(1,))
def test_two_adapters_and_none_in_one_batch_are_as_their_merged_models_alone(
    base: pathlib.Path, adapters: dict[str, pathlib.Path], engine: Engine, tmp_path: pathlib.Path
) -> None:
    together = tokens(engine, plain="", **keys_of(adapters))
    assert len({tuple(found) for found in together.values()}) == 3, "each says something else"
    for name, seed in (("a", 1), ("b", 2)):
        alone = engine_of(merged(base, random_pairs(seed), tmp_path / name))
        assert tokens(alone, one="")["one"] == together[name]
        alone.close()
    alone = engine_of(base)
    assert tokens(alone, one="")["one"] == together["plain"]
    alone.close()


def test_what_one_adapter_has_computed_is_no_prefix_of_another(
    adapters: dict[str, pathlib.Path], engine: Engine
) -> None:
    keys = keys_of(adapters)
    first = {name: tokens(engine, one=key)["one"] for name, key in (("plain", ""), *keys.items())}
    again = {name: tokens(engine, two=key)["two"] for name, key in (("plain", ""), *keys.items())}
    assert first == again, "with the cache warm, too"


@pytest.mark.row("het-adapter", "mechanism")
def test_an_adapter_is_swapped_within_50_ms(
    base: pathlib.Path, adapters: dict[str, pathlib.Path], engine: Engine, tmp_path: pathlib.Path
) -> None:
    files = open_model(base, name="base")
    room = adapters_of(engine.runner)
    assert room is not None
    third = write_peft(tmp_path / "c", random_pairs(3))
    old = keys_of(adapters)["a"]
    seconds = []
    for _ in range(5):
        begun_s = time.perf_counter()
        made = open_adapter(third, name="base:c", base=files)
        room.put(made)
        room.drop(old)
        seconds.append(time.perf_counter() - begun_s)
    files.close()
    assert min(seconds) < 0.05
    found = tokens(engine, c=made.key)["c"]
    alone = engine_of(merged(base, random_pairs(3), tmp_path / "merged"))
    assert tokens(alone, one="")["one"] == found
    alone.close()
    with pytest.raises(ModelNotFound, match="no adapter 'base:a'"):
        tokens(engine, gone=old)


@pytest.mark.slow
@pytest.mark.row("het-adapter", "effect", claims=(2,))
def test_an_adapter_of_a_real_model_is_swapped_within_50_ms(
    smollm2_path: pathlib.Path, tmp_path: pathlib.Path, measured: Measure
) -> None:
    """From its files: what is read, checked, put and dropped, beside the model in use."""
    sizes = {"layers": 30, "width": 576, "keys": 192, "inner": 1536}
    paths = [write_peft(tmp_path / str(seed), random_pairs(seed, **sizes)) for seed in (1, 2)]
    files = open_model(smollm2_path, name="base")
    settings = EngineSettings(adapters={"base:a": str(paths[0])})
    engine = load_engine(files, settings)
    room = adapters_of(engine.runner)
    assert room is not None
    keys = [adapter_key(path, "base:a") for path in paths]
    seconds = []
    for i in range(6):
        begun_s = time.perf_counter()
        made = open_adapter(paths[1 - i % 2], name="base:a", base=files)
        room.put(made)
        room.drop(keys[i % 2])
        seconds.append(time.perf_counter() - begun_s)
        assert made.key == keys[1 - i % 2]
    assert tokens(engine, one=keys[0])["one"] != tokens(engine, two="")["two"]
    engine.close()
    files.close()
    measured("swap of an adapter of all matrices of SmolLM2-135M", min(seconds) * 1e3, at_most=50, unit="ms")


def gguf_order(rows: Any, heads: int) -> Any:
    """Rows of a query or key matrix as llama.cpp's converter puts them for this family."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def write_gguf(path: pathlib.Path, pairs: Pairs) -> pathlib.Path:
    arrays = {}
    for at, (down, up) in pairs.items():
        layer, name = at.split(".")
        turned = gguf_order(up, {"q": 4, "k": 2}[name]) if name in "qk" else up
        stem = f"blk.{layer}.{GGUF[name]}.weight.lora_"
        arrays[stem + "a"], arrays[stem + "b"] = down, turned
    head = [
        pair("general.type", STR, "adapter"),
        pair("general.architecture", STR, "llama"),
        pair("adapter.type", STR, "lora"),
        pair("adapter.lora.alpha", F32, ALPHA),
    ]
    path.write_bytes(f32_gguf(head, arrays))
    return path


def test_both_formats_of_one_adapter_do_the_same_to_a_gguf_base(
    adapters: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "base.gguf"
    path.write_bytes(tiny_llama_gguf())
    other = write_gguf(tmp_path / "a.gguf", random_pairs(1))
    engine = engine_of(path, peft=adapters["a"], gguf=other)
    found = tokens(
        engine, plain="", peft=adapter_key(adapters["a"], "base:peft"), gguf=adapter_key(other, "base:gguf")
    )
    engine.close()
    assert found["peft"] == found["gguf"]
    assert found["peft"] != found["plain"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"peft_type": "IA3"}, "of peft_type 'IA3'"),
        ({"bias": "all"}, "trains biases"),
        ({"modules_to_save": ["lm_head"]}, "whole matrices are replaced"),
    ],
)
def test_kinds_that_are_not_read_are_refused(
    base: pathlib.Path, tmp_path: pathlib.Path, config: dict[str, Any], message: str
) -> None:
    folder = write_peft(tmp_path / "a", random_pairs(1), **config)
    files = open_model(base, name="base")
    with pytest.raises(BadModelFile, match=message):
        open_adapter(folder, name="x", base=files)
    files.close()


def test_an_adapter_of_another_model_is_refused(base: pathlib.Path, tmp_path: pathlib.Path) -> None:
    wrong = {"0.q": (np.zeros((4, 48), np.float32), np.zeros((48, 4), np.float32))}
    folder = write_peft(tmp_path / "a", wrong)
    files = open_model(base, name="base")
    with pytest.raises(BadModelFile, match=r"adds \(48, 48\) to 'layers.0.q', which is \(32, 32\) in 'base'"):
        open_adapter(folder, name="x", base=files)
    files.close()
