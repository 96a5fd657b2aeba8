"""Putting a model's files together anew: the source's layout and words, other tensors and sizes."""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Self

from pentad.errors import BadModelFile, Incompatible
from pentad.execution.spec import ModelSpec
from pentad.execution.weights import StoredTensor, WeightSource
from pentad.model.artefact import Size
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


def sizes_of(spec: ModelSpec) -> dict[str, Size]:
    """What `SIZES` names; feed-forward widths by layer where they differ."""
    inner = [block.feed_forward for block in spec.blocks]
    found: dict[str, Size] = {name: getattr(spec, name) for name in SIZES if name != "ffn_width"}
    widths = tuple(0 if part is None else part.width for part in inner)
    return found | {"ffn_width": widths[0] if len(set(widths)) == 1 else widths}


def assemble(
    files: ModelFiles,
    target: ModelSpec,
    weights: WeightSource,
    work: pathlib.Path,
    *,
    sized: ModelSpec | None = None,
    kept: Sequence[int] | None = None,
) -> dict[str, pathlib.Path]:
    """The files of a model of spec `target` with these weights, in the source's format, in `work`.

    Args:
        weights: by canonical name, layers numbered as in the source.
        sized: the target with all of the source's layers; None: the target.
        kept: which of them stay; None: all.

    Tokenizer, template and all other words are the source's. The result is opened and its spec
    compared before it is returned.

    Raises:
        Incompatible: a format, or layers of unequal width, that the file format does not hold.
        BadModelFile: the result would not be read as `target`.
    """
    parts = _Parts.of(files, sized or target, weights, range(files.spec.layers) if kept is None else kept)
    if files.format == "gguf":
        found = _gguf(files, target, parts, work)
        path = next(iter(found.values()))
    else:
        found = _folder(files, target, parts, work)
        path = work
    _check(path, target)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """The tensors of the new file by their names in it, each put together of canonical ones."""

    files: ModelFiles
    sized: ModelSpec
    """The target with all of the source's layers."""
    weights: WeightSource
    sources: Mapping[str, str | None]
    """Name in the new file to that in the source; None of a bias that the source lacks."""
    inside: Mapping[str, tuple[str, ...]]
    """Name in the new file to the canonical names of what lies in it."""

    @classmethod
    def of(cls, files: ModelFiles, sized: ModelSpec, weights: WeightSource, kept: Sequence[int]) -> Self:
        """Those of the source in its order, as far as their layers stay, then biases that are new."""
        mapped = files.weights
        assert isinstance(mapped, MappedWeights), "opened models bind their weights"
        numbers = {old: new for new, old in enumerate(kept)}
        held: dict[str, list[str]] = {name: [] for name in files.container.tensors}
        added: dict[str, str] = {}
        for canonical in sized.tensors():
            bound = mapped.where.get(canonical)
            matrix = mapped.where.get(canonical.removesuffix(".bias"))
            for file in () if bound is None else bound.files:
                held[file].append(canonical)
            if bound is None and matrix is not None:
                added[matrix.files[0].removesuffix(".weight") + ".bias"] = canonical
        sources: dict[str, str | None] = {}
        inside = {}
        for file, canonicals in [*held.items(), *((name, [one]) for name, one in added.items())]:
            new = _renumbered(file, canonicals, numbers)
            if new is not None:
                sources[new] = None if file in added else file
                inside[new] = tuple(canonicals)
        return cls(files=files, sized=sized, weights=weights, sources=sources, inside=inside)

    def tensor(self, name: str) -> StoredTensor:
        """What stands there in the new file. A tensor that no weight lies in is copied."""
        source, canonicals = self.sources[name], self.inside[name]
        if source is None:
            return self.weights.tensor(canonicals[0]).held().renamed(name)
        if not canonicals:
            return self.files.container.tensor(source).renamed(name)
        mapped = self.files.weights
        assert isinstance(mapped, MappedWeights), "opened models bind their weights"
        parts = [(mapped.where[each], self.weights.tensor(each)) for each in canonicals]
        return restored(source, self.sized, parts, self.files.container.tensors[source].shape).renamed(name)

    def head(self, name: str) -> TensorHead:
        """What the table says of it."""
        tensor = self.tensor(name)
        return TensorHead(name=name, format=tensor.format, shape=tensor.shape)


def _renumbered(file: str, canonicals: Sequence[str], numbers: Mapping[int, int]) -> str | None:
    """The name of a tensor in the new file; None where its layer goes."""
    if not canonicals or not canonicals[0].startswith("layers."):
        return file
    old = int(canonicals[0].split(".")[1])
    return file.replace(f".{old}.", f".{numbers[old]}.", 1) if old in numbers else None


def _changed(files: ModelFiles, target: ModelSpec) -> dict[str, Size]:
    before, after = sizes_of(files.spec), sizes_of(target)
    found = {name: size for name, size in after.items() if size != before[name]}
    if "heads" in found:  # a file that does not name it means width / heads
        found["head_dim"] = after["head_dim"]
    return found


def _gguf(files: ModelFiles, target: ModelSpec, parts: _Parts, work: pathlib.Path) -> dict[str, pathlib.Path]:
    container = files.container
    assert isinstance(container, GgufFile)
    pairs = container.raw_pairs()
    architecture = container.metadata["general.architecture"]
    for name, size in _changed(files, target).items():
        pairs[f"{architecture}.{SIZES[name][0]}"] = encode_value(size)
        if name == "head_dim":
            pairs[f"{architecture}.attention.value_length"] = encode_value(size)
    path = work / "model.gguf"
    with GgufWriter(path, pairs, [parts.head(name) for name in parts.sources]) as out:
        for name in parts.sources:
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
        if not isinstance(size, int):
            raise Incompatible(
                f"model folders give all layers one {SIZES[name][1]}, not {len(set(size))}",
                hint="set the method's option even=true, or start from a GGUF file",
            )
        config[SIZES[name][1]] = size
    for key, part in (("attention_bias", "o"), ("mlp_bias", "down")):
        if (
            f"layers.0.{part}.bias" in target.tensors()
            and f"layers.0.{part}.bias" not in files.spec.tensors()
        ):
            config[key] = True
    config.pop("quantization_config", None)  # matrices are written whole
    (work / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    path = work / "model.safetensors"
    names = list(parts.sources)
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
