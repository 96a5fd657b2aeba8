"""How an embedding model wants to be used, as its files say: pooling, prompts, lengths, shorter vectors."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol, runtime_checkable

from pentad.errors import BadModelFile, InvalidRequest
from pentad.execution.classifier import Pooling
from pentad.model.files.fields import Fields

_GGUF_POOLING: Final[Mapping[int, Pooling]] = MappingProxyType({1: "mean", 2: "cls", 3: "last"})
GGUF_RANK: Final = 4
"""`pooling_type` of files that score pairs of texts."""
_FOLDER_POOLING: Final[Mapping[str, Pooling]] = MappingProxyType(
    {
        "mean_tokens": "mean",
        "mean_sqrt_len_tokens": "mean",  # another length of the same direction
        "cls_token": "cls",
        "lasttoken": "last",
    }
)
"""`pooling_mode_...` of a folder to ours."""
_MODULES: Final = frozenset({"Transformer", "Pooling", "Normalize"})


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRecipe:
    """What turns texts into a model's vectors. Vectors have length 1 whether or not the files ask for it."""

    pooling: Pooling = "mean"
    stated: bool = False
    """Whether the files say that the model embeds; else it is taken from its kind."""
    max_tokens: int | None = None
    """The longest text that it was made for."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """What stands in front of a text, by name: `query`, `document` ..."""
    default_prompt: str | None = None
    """The name of the one that texts get where nobody names one."""
    sizes: Sequence[int] = ()
    """Numbers that vectors may be cut to, beside all (Matryoshka)."""

    def prompted(self, texts: Sequence[str], name: str | None) -> list[str]:
        """The texts behind the prompt of that name. Raises InvalidRequest for an unknown one."""
        name = self.default_prompt if name is None else name
        if name is None:
            return list(texts)
        if name not in self.prompts:
            known = ", ".join(map(repr, self.prompts)) or "none"
            raise InvalidRequest(
                f"the model has no prompt {name!r}", hint=f"its prompts: {known}", param="prompt_name"
            )
        return [self.prompts[name] + text for text in texts]

    def check_size(self, size: int | None, *, model: str, width: int) -> None:
        """Raises InvalidRequest for a size that the files don't say vectors of `width` may be cut to."""
        if size is None or size == width or size in self.sizes:
            return
        possible = f"they can be cut to {_listed(self.sizes)}" if self.sizes else "leave dimensions out"
        raise InvalidRequest(
            f"model {model!r} makes vectors of {width} numbers, not {size}", hint=possible, param="dimensions"
        )

    def cut(self, vectors: list[list[float]], size: int | None) -> list[list[float]]:
        """The vectors' first `size` numbers, of length 1 again; see `check_size`."""
        if size is None:
            return vectors
        return [vector if size == len(vector) else _unit(vector[:size]) for vector in vectors]


@runtime_checkable
class HasRecipe(Protocol):
    """An embedder whose files say more than its size."""

    recipe: EmbeddingRecipe


def recipe_of(embedder: object) -> EmbeddingRecipe:
    """The embedder's recipe; a plain one where it has none."""
    return embedder.recipe if isinstance(embedder, HasRecipe) else EmbeddingRecipe()


def from_gguf(own: Fields) -> EmbeddingRecipe:
    """The recipe of a GGUF file's metadata, the architecture's prefix taken off. Raises BadModelFile."""
    if not own.has("pooling_type") or (kind := own.integer("pooling_type")) == GGUF_RANK:
        return EmbeddingRecipe()
    if kind not in _GGUF_POOLING:
        known = ", ".join(f"{name} ({number})" for number, name in _GGUF_POOLING.items())
        own.fail("pooling_type", f"is {kind}; supported are {known}")
    return EmbeddingRecipe(pooling=_GGUF_POOLING[kind], stated=True)


def from_folder(folder: pathlib.Path, config: Fields, modules: Sequence[Any], read: Any) -> EmbeddingRecipe:
    """The recipe of a folder of sentence embeddings; a plain one for other folders.

    Args:
        config: its `config.json`.
        modules: what `modules.json` lists; empty where there is none.
        read: reads one JSON object of the folder, empty where it is absent.

    Raises:
        BadModelFile: it pools in a way that we lack, or has layers behind its pooling.
    """
    pooling = read(folder / _pooling_folder(folder, modules) / "config.json")
    settings = read(folder / "sentence_bert_config.json")
    said = read(folder / "config_sentence_transformers.json")
    prompts = said.table("prompts")
    default = said.text("default_prompt_name", "") or None
    if default is not None and default not in prompts.values:
        said.fail("default_prompt_name", f"is {default!r}, which is not among the prompts")
    return EmbeddingRecipe(
        pooling=_pooling(pooling),
        stated=bool(pooling.values or modules),
        max_tokens=settings.integer("max_seq_length", low=1) if settings.has("max_seq_length") else None,
        prompts={name: prompts.text(name) for name in prompts.values},
        default_prompt=default,
        sizes=_sizes(config),
    )


def _pooling_folder(folder: pathlib.Path, modules: Sequence[Any]) -> str:
    """Where the pooling is described, by `modules.json`. Raises BadModelFile for modules that we lack."""
    found = "1_Pooling"
    for module in modules:
        kind = str(module.get("type", "") if isinstance(module, dict) else module).rpartition(".")[2]
        if kind not in _MODULES:
            raise BadModelFile(
                f"{str(folder)!r} makes its vectors with a module {kind!r}",
                hint=f"supported modules: {', '.join(sorted(_MODULES))}",
            )
        path = module.get("path")
        if kind == "Pooling" and isinstance(path, str) and pathlib.PurePath(path).name == path:
            found = path
    return found


def _pooling(said: Fields) -> Pooling:
    """Mean where nothing is said, as sentence embeddings have it. Raises BadModelFile."""
    if said.has("pooling_mode"):
        names = [said.text("pooling_mode")]
        known = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken"}
        names = [known.get(name, name) for name in names]
    else:
        flags = [key for key, value in said.values.items() if key.startswith("pooling_mode_") and value]
        names = [key.removeprefix("pooling_mode_") for key in flags] or ["mean_tokens"]
    if said.values and not said.flag("include_prompt", True):
        said.fail("include_prompt", "is false; prompts are pooled with their texts here")
    if len(names) != 1 or names[0] not in _FOLDER_POOLING:
        raise BadModelFile(
            f"{said.source!r} pools its vectors in a way we lack: {' and '.join(names)}",
            hint=f"supported is one of: {', '.join(_FOLDER_POOLING)}",
        )
    return _FOLDER_POOLING[names[0]]


def _sizes(config: Fields) -> Sequence[int]:
    """What `matryoshka_dimensions` lists; all sizes where only `is_matryoshka` is said."""
    listed = config.value("matryoshka_dimensions", None)
    if listed is not None:
        if not isinstance(listed, list) or not all(type(size) is int and size > 0 for size in listed):
            config.fail("matryoshka_dimensions", "must be a list of numbers of dimensions")
        return tuple(sorted(listed))
    return range(1, config.integer("hidden_size", low=1)) if config.flag("is_matryoshka", False) else ()


def _listed(sizes: Sequence[int]) -> str:
    return f"{sizes[0]} to {sizes[-1]}" if isinstance(sizes, range) else ", ".join(map(str, sizes))


def _unit(vector: list[float]) -> list[float]:
    length = math.sqrt(math.fsum(number * number for number in vector)) or 1.0
    return [number / length for number in vector]
