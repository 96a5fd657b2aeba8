"""Putting a model's files together anew: the source's layout and words, other tensors and sizes."""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from pentad.errors import BadModelFile, Incompatible
from pentad.execution.spec import ModelSpec
from pentad.execution.weights import StoredTensor, WeightSource
from pentad.model.families.mapped import MappedWeights, restored
from pentad.model.files.gguf import GgufFile
from pentad.model.files.gguf_writer import GgufWriter, TensorHead, encode_value
from pentad.model.files.safetensors_writer import write_safetensors
from pentad.model.loading import ModelFiles, open_model

SIZES: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "layers": ("block_count", "num_hidden_layers"),
        "width": ("embedding_length", "hidden_size"),
        "heads": ("attention.head_count", "num_attention_heads"),
        "kv_heads": ("attention.head_count_kv", "num_key_value_heads"),
        "head_dim": ("attention.key_length", "head_dim"),
        "ffn_width": ("feed_forward_length", "intermediate_size"),
    }
)
"""Size of a spec to its key in GGUF metadata (behind the architecture) and in config.json."""
_WEIGHT_SUFFIXES: Final = (".safetensors", ".safetensors.index.json")


def assemble(
    files: ModelFiles, target: ModelSpec, weights: WeightSource, work: pathlib.Path
) -> dict[str, pathlib.Path]:
    """The files of a model of spec `target` with these weights, in the source's format, in `work`.

    Tokenizer, template and all other words are the source's. The result is opened and its spec
    compared before it is returned.

    Raises:
        Incompatible: a format that the file format does not hold.
        BadModelFile: the result would not be read as `target`.
    """
    parts = _Parts(files, target, weights)
    if files.format == "gguf":
        found = _gguf(files, target, parts, work)
        path = next(iter(found.values()))
    else:
        found = _folder(files, target, parts, work)
        path = work
    _check(path, target)
    return found


@dataclass(frozen=True, slots=True)
class _Parts:
    """The tensors of the new file by their names in it, each put together of canonical ones."""

    files: ModelFiles
    target: ModelSpec
    weights: WeightSource

    def names(self) -> Iterator[str]:
        """Those of the source file, in its order, that belong to the new one."""
        yield from self.files.container.tensors

    def tensor(self, name: str) -> StoredTensor:
        """What stands there in the new file. A tensor that no weight lies in is copied."""
        mapped = self.files.weights
        assert isinstance(mapped, MappedWeights), "opened models bind their weights"
        inside = [
            (bound, self.weights.tensor(canonical))
            for canonical, bound in mapped.where.items()
            if name in bound.files
        ]
        if not inside:
            return self.files.container.tensor(name)
        return restored(name, self.target, inside, self.files.container.tensors[name].shape)

    def head(self, name: str) -> TensorHead:
        """What the table says of it."""
        tensor = self.tensor(name)
        return TensorHead(name=name, format=tensor.format, shape=tensor.shape)


def _changed(files: ModelFiles, target: ModelSpec) -> dict[str, int]:
    return {
        name: getattr(target, name) for name in SIZES if getattr(target, name) != getattr(files.spec, name)
    }


def _gguf(files: ModelFiles, target: ModelSpec, parts: _Parts, work: pathlib.Path) -> dict[str, pathlib.Path]:
    container = files.container
    assert isinstance(container, GgufFile)
    pairs = container.raw_pairs()
    architecture = container.metadata["general.architecture"]
    for name, size in _changed(files, target).items():
        pairs[f"{architecture}.{SIZES[name][0]}"] = encode_value(size)
    path = work / "model.gguf"
    with GgufWriter(path, pairs, [parts.head(name) for name in parts.names()]) as out:
        for name in parts.names():
            out.put(parts.tensor(name))
    return {path.name: path}


def _folder(
    files: ModelFiles, target: ModelSpec, parts: _Parts, work: pathlib.Path
) -> dict[str, pathlib.Path]:
    found: dict[str, pathlib.Path] = {}
    for source in sorted(files.path.iterdir()):
        if source.is_file() and not source.name.endswith(_WEIGHT_SUFFIXES):
            shutil.copyfile(source, work / source.name)
            found[source.name] = work / source.name
    config: dict[str, Any] = json.loads((work / "config.json").read_bytes())
    for name, size in _changed(files, target).items():
        config[SIZES[name][1]] = size
    config.pop("quantization_config", None)  # matrices are written whole
    (work / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    path = work / "model.safetensors"
    names = list(parts.names())
    write_safetensors(path, [parts.head(name) for name in names], (parts.tensor(name) for name in names))
    return {**found, path.name: path}


def _check(path: pathlib.Path, target: ModelSpec) -> None:
    try:
        made = open_model(path, name=target.name)
    except BadModelFile as error:
        raise Incompatible(f"the new model could not be read back: {error}") from error
    try:
        if made.spec != target:
            raise BadModelFile(f"the new model would be read as {made.spec}, not as {target}")
    finally:
        made.close()
