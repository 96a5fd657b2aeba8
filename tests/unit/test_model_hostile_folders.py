"""Model folders that try to run code, leave their folder or lie: refused, with nothing executed."""

from __future__ import annotations

import json
import pathlib
import pickle
import re
import sys
from typing import Any

import pytest

import model_fixtures as make
from pentad.errors import BadModelFile
from pentad.model.loading import open_model


class Bomb:
    """Unpickling this writes the canary."""

    def __init__(self, canary: pathlib.Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return pathlib.Path.write_text, (self.canary, "written")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth", "x.ckpt", "y.pkl"])
def test_pickled_weights_are_refused_unopened(name: str, tmp_path: pathlib.Path) -> None:
    canary = tmp_path / "canary"
    folder = make.write_llama_folder(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb(canary)))
    for path in (folder, folder / name):
        with pytest.raises(BadModelFile, match=rf"{name}.*is a pickle.*safetensors or GGUF"):
            open_model(path)
    assert not canary.exists()
    pickle.loads((folder / name).read_bytes())  # noqa: S301  the bomb itself works
    assert canary.exists()


def test_pickle_under_a_trusted_name_is_refused_unopened(tmp_path: pathlib.Path) -> None:
    canary = tmp_path / "canary"
    bomb = pickle.dumps(Bomb(canary))
    folder = make.write_llama_folder(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(bomb)
    (tmp_path / "model.gguf").write_bytes(bomb)
    for path in (folder, tmp_path / "model.gguf"):
        with pytest.raises(BadModelFile):
            open_model(path)
    assert not canary.exists()


def test_auto_map_runs_nothing(tmp_path: pathlib.Path) -> None:
    canary = tmp_path / "canary"
    folder = make.write_llama_folder(
        tmp_path / "model",
        auto_map={"AutoConfig": "modeling_evil.EvilConfig", "AutoModelForCausalLM": "modeling_evil.Evil"},
        trust_remote_code=True,
    )
    for module in ("modeling_evil", "configuration_evil", "tokenization_evil", "__init__"):
        (folder / f"{module}.py").write_text(f"open({str(canary)!r}, 'w').write('written')\n")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["auto_map"] = {"AutoTokenizer": ["tokenization_evil.Evil", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    before = set(sys.modules)
    files = open_model(folder)
    assert files.spec.width == 32
    files.close()
    assert not canary.exists()
    assert not [name for name in set(sys.modules) - before if "evil" in name]


def test_sound_folder_opens_whole(tmp_path: pathlib.Path) -> None:
    files = open_model(make.write_llama_folder(tmp_path / "tiny"))
    assert (files.name, files.format) == ("tiny", "safetensors")
    assert files.spec.parameters == make.count(make.llama_folder_shapes())
    assert files.end_tokens == {0, 2}
    assert (files.bos_token, files.add_bos, files.eos_token) == (None, False, 2)
    assert files.chat_template == "{{ 1 }}"
    assert files.tokenizer.decode(files.tokenizer.encode("hello wörld", special=False)) == "hello wörld"
    files.close()


def test_end_tokens_come_from_the_generation_config_first(tmp_path: pathlib.Path) -> None:
    folder = make.write_llama_folder(tmp_path / "tiny")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 7]}))
    assert open_model(folder).end_tokens == {0, 2, 7}


def test_template_file_goes_before_the_config_entry(tmp_path: pathlib.Path) -> None:
    folder = make.write_llama_folder(tmp_path / "tiny")
    settings = {"chat_template": [{"name": "rag", "template": "R"}, {"name": "default", "template": "D"}]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert open_model(folder).chat_template == "D"
    (folder / "chat_template.jinja").write_text("J")
    assert open_model(folder).chat_template == "J"


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("config.json", None, "is not a file"),
        ("config.json", b"{", "not valid JSON"),
        ("config.json", b"[" * 100_000, "not valid JSON"),
        ("config.json", b"[]", "no JSON object"),
        ("config.json", b"\xff\xfe{}", "cannot read"),
        ("config.json", b'{"model_type": "unheard_of"}', "known architectures: llama, mistral, .*qwen2"),
        ("config.json", b'{"model_type": ["llama"]}', "must be text"),
        ("tokenizer.json", None, "holds no tokenizer that is read"),
        ("tokenizer.json", b"{}", "not a readable tokenizer"),
        ("tokenizer_config.json", b"[1]", "no JSON object"),
        ("generation_config.json", b'{"eos_token_id": "two"}', "must be a token id"),
        ("model.safetensors", None, "neither model.safetensors nor"),
    ],
)
def test_broken_part_of_a_folder_is_named(
    file: str, content: bytes | None, reason: str, tmp_path: pathlib.Path
) -> None:
    folder = make.write_llama_folder(tmp_path / "tiny")
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    with pytest.raises(BadModelFile, match=reason):
        open_model(folder)


@pytest.mark.parametrize(
    "config",
    [
        {"hidden_size": 1 << 40},
        {"num_hidden_layers": -1},
        {"num_hidden_layers": (1 << 31) - 1},
        {"max_position_embeddings": (1 << 31) - 1},
        {"num_attention_heads": 0},
        {"num_key_value_heads": 3},
        {"vocab_size": 1},
        {"intermediate_size": 63},
        {"rms_norm_eps": "small"},
        {"rope_scaling": {"rope_type": "spiral", "factor": 4.0}},
        {"rope_scaling": {"rope_type": "llama3"}},
        {"rope_scaling": "x"},
        {"attention_bias": True},
    ],
)
def test_config_unlike_its_tensors_is_refused(config: dict[str, Any], tmp_path: pathlib.Path) -> None:
    folder = make.write_llama_folder(tmp_path / "tiny", **config)
    with pytest.raises(BadModelFile, match=re.escape(str(folder))):
        open_model(folder)


def test_embedding_table_smaller_than_the_vocabulary_is_refused(tmp_path: pathlib.Path) -> None:
    folder = make.write_llama_folder(tmp_path / "tiny", vocab_size=make.VOCAB - 1)
    shapes = make.llama_folder_shapes() | {"model.embed_tokens.weight": (make.VOCAB - 1, 32)}
    (folder / "model.safetensors").write_bytes(make.f32_safetensors(make.tensors(shapes)))
    with pytest.raises(BadModelFile, match="the embedding table has"):
        open_model(folder)
