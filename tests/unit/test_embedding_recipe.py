"""How folders and files of embedding models say that they pool, prompt and may be cut."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch

from encoder_models import ENCODERS, write_tokenizer
from expert_models import TinyModel
from pentad.errors import BadModelFile, Incompatible, InvalidRequest
from pentad.execution.native.encoder import NativeEncoder
from pentad.execution.torch.encoder import TorchEncoder
from pentad.model.embedding import LocalEmbedder
from pentad.model.embedding_recipe import EmbeddingRecipe, from_gguf
from pentad.model.files.fields import Fields
from pentad.model.loading import open_model

TEXT = "what is pasta"
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, tokenizers.Tokenizer, pathlib.Path]:
    folder = tmp_path_factory.mktemp("bert")
    model = ENCODERS["bert"].build(initializer_range=0.1)  # whose tokens stay different
    model.save_pretrained(folder)
    return model, write_tokenizer(folder), folder


def folder_of(base: pathlib.Path, target: pathlib.Path, **files: Any) -> pathlib.Path:
    """The model in a folder of its own, beside these files; `__` in a name stands for a folder."""
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (target / name).symlink_to(base / name)
    for name, content in files.items():
        path = target / (name.replace("__", "/") + ".json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return target


def expected(model: Any, tokenizer: tokenizers.Tokenizer, text: str, pooling: str) -> np.ndarray:
    with torch.inference_mode():
        states = model(torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0]
    row = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling]
    return torch.nn.functional.normalize(row, dim=0).numpy()


@pytest.mark.parametrize(
    ("said", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, "last"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}, "mean"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
    ],
)
def test_a_folder_pools_as_it_says(bert: Any, tmp_path: pathlib.Path, said: Any, pooling: str) -> None:
    model, tokenizer, base = bert
    folder = folder_of(base, tmp_path, modules=MODULES, **{"1_Pooling__config": said})
    embedder = LocalEmbedder.open(folder)
    assert isinstance(embedder._encoder, NativeEncoder if pooling == "mean" else TorchEncoder)
    precise = LocalEmbedder.open(folder, kernels="torch")
    others = {"mean", "cls", "last"} - {pooling}
    found = np.array(precise.embed([TEXT])[0])
    np.testing.assert_allclose(found, expected(model, tokenizer, TEXT, pooling), atol=1e-4)
    assert all(np.abs(found - expected(model, tokenizer, TEXT, other)).max() > 0.01 for other in others)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"1_Pooling__config": {"pooling_mode_max_tokens": True}}, "pools its vectors in a way we lack: max"),
        (
            {"1_Pooling__config": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}},
            "a way we lack: cls_token and mean_tokens",
        ),
        ({"1_Pooling__config": {"include_prompt": False}}, "prompts are pooled with their texts"),
        (
            {"modules": [{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]},
            "a module 'Dense'",
        ),
        ({"modules": {}}, "is no JSON list"),
        ({"config_sentence_transformers": {"default_prompt_name": "q"}}, "'q', which is not among"),
    ],
)
def test_what_we_lack_is_refused_by_its_name(
    bert: Any, tmp_path: pathlib.Path, files: Any, message: str
) -> None:
    with pytest.raises(BadModelFile, match=message):
        open_model(folder_of(bert[2], tmp_path, **files))


def test_prompts_stand_in_front_of_texts() -> None:
    recipe = EmbeddingRecipe(prompts={"query": "query: ", "document": ""}, default_prompt="query")
    assert recipe.prompted(["a"], None) == ["query: a"]
    assert recipe.prompted(["a"], "document") == ["a"]
    with pytest.raises(InvalidRequest, match="no prompt 'other'") as raised:
        recipe.prompted(["a"], "other")
    assert raised.value.hint == "its prompts: 'query', 'document'"


def test_a_folder_names_its_prompts_and_the_sizes_that_its_vectors_may_be_cut_to(
    bert: Any, tmp_path: pathlib.Path
) -> None:
    said = {"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": "query"}
    folder = folder_of(bert[2], tmp_path, config_sentence_transformers=said)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**config, "matryoshka_dimensions": [32, 16]}))
    recipe = open_model(folder).recipe
    assert recipe.prompts == said["prompts"]
    assert recipe.default_prompt == "query"
    assert recipe.sizes == (16, 32)


def test_vectors_are_cut_where_files_say_so_and_keep_length_one() -> None:
    recipe = EmbeddingRecipe(sizes=(2,))
    recipe.check_size(2, model="m", width=4)
    np.testing.assert_allclose(recipe.cut([[3.0, 4.0, 1.0, 1.0]], 2), [[0.6, 0.8]])
    assert recipe.cut([[1.0, 0.0, 0.0, 0.0]], 4) == [[1.0, 0.0, 0.0, 0.0]]
    with pytest.raises(InvalidRequest, match="vectors of 4 numbers, not 3") as raised:
        recipe.check_size(3, model="m", width=4)
    assert raised.value.hint == "they can be cut to 2"
    with pytest.raises(InvalidRequest, match="vectors of 4 numbers, not 2"):
        EmbeddingRecipe().check_size(2, model="m", width=4)


@pytest.mark.parametrize(("kind", "pooling"), [(1, "mean"), (2, "cls"), (3, "last")])
def test_gguf_files_number_their_pooling(kind: int, pooling: str) -> None:
    found = from_gguf(Fields(source="f", values={"pooling_type": kind}))
    assert (found.pooling, found.stated) == (pooling, True)


def test_gguf_files_without_pooling_are_refused() -> None:
    with pytest.raises(BadModelFile, match=r"is 0; supported are mean \(1\)"):
        from_gguf(Fields(source="f", values={"pooling_type": 0}))


def test_a_decoder_whose_folder_says_so_embeds_by_its_last_token(tmp_path: pathlib.Path) -> None:
    tiny = TinyModel(config="Qwen3", sizes={"head_dim": 32}, arch="qwen3", metadata={})
    whole = tiny.build()
    whole.save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    with pytest.raises(Incompatible, match="generates text"):
        LocalEmbedder(open_model(tmp_path))
    folder, model = tmp_path / "embedding", whole.model
    (folder / "1_Pooling").mkdir(parents=True)
    model.save_pretrained(folder)  # without a head, and without a prefix in its names
    tokenizer = write_tokenizer(folder)
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_lasttoken": true}')
    found = LocalEmbedder.open(folder).embed([TEXT])[0]
    np.testing.assert_allclose(found, expected(model, tokenizer, TEXT, "last"), atol=1e-4)
