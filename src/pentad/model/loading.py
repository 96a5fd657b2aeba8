"""Opening a model: one GGUF file or one Hugging Face folder becomes spec, weights and tokenizer."""

from __future__ import annotations

import dataclasses
import logging
import pathlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pentad.errors import BadModelFile
from pentad.execution.spec import ModelSpec
from pentad.execution.weights import WeightSource
from pentad.model import embedding_recipe, source_form
from pentad.model.embedding_recipe import EmbeddingRecipe
from pentad.model.families import family_of
from pentad.model.families.base import Family, bind, places, spec_of_config, spec_of_gguf
from pentad.model.families.nearest import unlike_config, unlike_gguf
from pentad.model.families.nested import language_part, tied_as_stored
from pentad.model.files.fields import MAX_LAYERS, Fields
from pentad.model.files.folder_files import read_json, read_text, read_value
from pentad.model.files.formats import Container
from pentad.model.files.gguf import GgufArray, GgufFile
from pentad.model.files.gguf_parts import open_gguf
from pentad.model.files.quantized.container import opened
from pentad.model.files.safetensors import INDEX_NAME, SafetensorsFolder
from pentad.model.images.input import ImageInput
from pentad.model.sampling_defaults import from_generation_config
from pentad.model.sampling_defaults import from_gguf as sampling_of_gguf
from pentad.model.source_form import SourceForm
from pentad.model.tokenizer import Tokenizer
from pentad.model.tokenizer_files import tokenizer_of
from pentad.model.tokenizer_gguf import from_gguf, named_token

_log = logging.getLogger(__name__)

END_TEXTS: Final = frozenset(
    {
        "<|im_end|>",
        "<|endoftext|>",
        "<|eot_id|>",
        "<|eot|>",
        "<|eom|>",
        "<|eom_id|>",
        "<|end_of_text|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|observation|>",
        "<|END_OF_TURN_TOKEN|>",
        "<｜end▁of▁sentence｜>",
        "<end_of_turn>",
        "<turn|>",
        "<end_of_utterance>",
        "</s>",
    }
)
"""Control tokens that end a turn in every family that has them. GGUF files name only one end
token, so a chat model would talk on after the other."""

_NAMED_TOKENS: Final = ("bos", "eos", "eot", "eom")
_PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """Everything that a model's files hold, opened and checked. Close it to unmap the weights."""

    name: str
    path: pathlib.Path
    format: Literal["gguf", "safetensors"]
    size_bytes: int
    """Bytes of the weight files."""
    spec: ModelSpec
    weights: WeightSource
    tokenizer: Tokenizer
    chat_template: str | None
    end_tokens: frozenset[int]
    """Any of these ends an answer."""
    bos_token: int | None
    add_bos: bool
    """Whether a plain text prompt starts with `bos_token`. Chat templates write it themselves."""
    eos_token: int | None
    container: Container
    sampling: Mapping[str, float] = field(default_factory=dict)
    """Field of Sampling to the value that the model's makers advise, as far as they do."""
    recipe: EmbeddingRecipe = field(default_factory=EmbeddingRecipe)
    """How it embeds, where it does."""
    source_form: SourceForm | None = None
    """How its encoder is given a text; None where it has none beside a decoder."""
    images: ImageInput | None = None
    """What it makes of images, where it takes them."""
    family: str = ""
    """As its file names it: the architecture or `model_type`."""
    unread_media: tuple[str, ...] = ()
    """What the model could read beside text, by parts of its files that are left out: images, sound."""

    def close(self) -> None:
        """Unmaps the weights; views still held keep their mapping until they are dropped."""
        self.container.close()


def open_model(path: str | pathlib.Path, *, name: str | None = None) -> ModelFiles:
    """Opens a GGUF file, with all its parts, or a Hugging Face folder. Nothing is copied, no code is run.

    Cost: the header, the vocabulary and the tokenizer; weights are mapped, not read.

    Args:
        path: the file or folder.
        name: what to call the model; None takes the file's stem or the folder's name.

    Raises:
        BadModelFile: it is damaged, hostile, of an unknown architecture or a pickle.
    """
    path = pathlib.Path(path)
    name = name or (path.name if path.is_dir() else path.stem)
    if path.is_dir():
        return _open_folder(path, name)
    if path.suffix.lower() in _PICKLES:
        raise _pickle(path)
    return _open_gguf(path, name)


def _pickle(path: pathlib.Path) -> BadModelFile:
    return BadModelFile(
        f"{str(path)!r} is a pickle, which can run code when it is read",
        hint="convert the model to safetensors or GGUF",
    )


def _open_gguf(path: pathlib.Path, name: str) -> ModelFiles:
    file = open_gguf(path)
    try:
        fields = Fields(source=str(path), values=file.metadata)
        architecture = fields.text("general.architecture")
        own = _by_layer(file, fields.under(architecture + "."))
        family = family_of(architecture, fields.source, lambda: unlike_gguf(own, file))
        recipe = embedding_recipe.from_gguf(own)
        spec = _as_used(spec_of_gguf(family, own, file), recipe)
        weights = bind(family, places(family.gguf_names, spec, own), spec, file, fields.source)
        tokenizer = from_gguf(file, spec.vocab_size)
        named = {key: named_token(fields, f"{key}_token_id", spec.vocab_size) for key in _NAMED_TOKENS}
        return ModelFiles(
            name=name,
            path=path,
            format="gguf",
            size_bytes=file.size_bytes,
            spec=dataclasses.replace(spec, name=name),
            weights=weights,
            tokenizer=tokenizer,
            chat_template=fields.text("tokenizer.chat_template", "") or None,
            end_tokens=_end_tokens(tokenizer, (named["eos"], named["eot"], named["eom"])),
            bos_token=named["bos"],
            add_bos=named["bos"] is not None and tokenizer.prefix == (named["bos"],),
            eos_token=named["eos"],
            container=file,
            sampling=sampling_of_gguf(fields),
            recipe=recipe,
            family=architecture,
            source_form=source_form.from_gguf(spec, own),
        )
    except BaseException:
        file.close()
        raise


def _by_layer(file: GgufFile, fields: Fields) -> Fields:
    """The fields with arrays that tell one number for each layer decoded."""
    values = {
        key: file.values(value) if isinstance(value, GgufArray) and value.count <= MAX_LAYERS else value
        for key, value in fields.values.items()
    }
    return Fields(source=fields.source, values=values)


def _end_tokens(tokenizer: Tokenizer, named: Iterable[int | None]) -> frozenset[int]:
    texts = set(END_TEXTS)
    if "<|return|>" in tokenizer.special_tokens:  # Harmony: a turn is several messages, each with an end
        texts.remove("<|end|>")
    by_text = {id for text, id in tokenizer.special_tokens.items() if text in texts}
    return frozenset(by_text | {id for id in named if id is not None})


def _open_folder(folder: pathlib.Path, name: str) -> ModelFiles:
    whole = read_json(folder / "config.json", required=True)
    config, media = language_part(whole)
    family = family_of(
        config.text("model_type"), config.source, lambda: unlike_config(config, lambda: _weights_of(folder))
    )
    recipe = embedding_recipe.from_folder(folder, config, _modules(folder), read_json)
    spec = _as_used(spec_of_config(family, config), recipe)
    files = _weights_of(folder)
    if files is None:
        raise _no_weights(folder)
    try:
        container = opened(files, whole)
        if media:
            spec = tied_as_stored(spec, container)
            _log.warning("model %r: %s cannot be sent to it, text can", name, " and ".join(media))
        weights = bind(family, places(family.config_names, spec, config), spec, container, str(folder))
        settings = read_json(folder / "tokenizer_config.json")
        tokenizer = tokenizer_of(
            folder,
            family=config.text("model_type"),
            settings=settings.values,
            size=spec.vocab_size,
        )
        generation = read_json(folder / "generation_config.json")
        bos = _special(settings, "bos_token", tokenizer)
        eos = _special(settings, "eos_token", tokenizer)
        size = tokenizer.vocab_size
        said = (generation, config, whole)
        ends = next((ids for one in said if (ids := _ids(one, "eos_token_id", size))), ())
        return ModelFiles(
            name=name,
            path=folder,
            format="safetensors",
            size_bytes=container.size_bytes,
            spec=dataclasses.replace(spec, name=name),
            weights=weights,
            tokenizer=tokenizer,
            chat_template=_chat_template(folder, settings),
            end_tokens=_end_tokens(tokenizer, (*ends, eos)),
            bos_token=bos,
            add_bos=bos is not None and tokenizer.prefix[:1] == (bos,),
            eos_token=eos,
            container=container,
            sampling=from_generation_config(generation),
            recipe=recipe,
            source_form=source_form.from_folder(spec, config, generation),
            images=_images(folder, family, config, container),
            family=whole.text("model_type"),
            unread_media=media,
        )
    except BaseException:
        files.close()
        raise


def _images(folder: pathlib.Path, family: Family, config: Fields, container: Container) -> ImageInput | None:
    """Of a family that takes images, where the folder says how they are read."""
    if family.images is None:
        return None
    processor = read_json(folder / "processor_config.json")
    settings = processor.table("image_processor")
    if not settings.values:
        settings = read_json(folder / "preprocessor_config.json")
    if not settings.values:
        _log.warning("%s takes no images: it has no preprocessor_config.json", folder)
        return None
    return family.images(config, settings, container)


def _weights_of(folder: pathlib.Path) -> SafetensorsFolder | None:
    """The folder's tensors; None where it has no safetensors."""
    there = any((folder / file).exists() for file in ("model.safetensors", INDEX_NAME))
    return SafetensorsFolder(folder) if there else None


def _as_used(spec: ModelSpec, recipe: EmbeddingRecipe) -> ModelSpec:
    """A decoder that embeds has no use for its head, which its files may lack."""
    return dataclasses.replace(spec, head=None) if recipe.stated else spec


def _modules(folder: pathlib.Path) -> list[Any]:
    """What `modules.json` lists of a folder of sentence embeddings; empty where there is none."""
    if not (path := folder / "modules.json").exists():
        return []
    listed = read_value(path)
    if not isinstance(listed, list):
        raise BadModelFile(f"{str(path)!r} is no JSON list")
    return listed


def _no_weights(folder: pathlib.Path) -> BadModelFile:
    for file in sorted(folder.iterdir()):
        if file.suffix in _PICKLES:
            return _pickle(file)
    return BadModelFile(f"{str(folder)!r} holds neither model.safetensors nor {INDEX_NAME}")


def _special(settings: Fields, key: str, tokenizer: Tokenizer) -> int | None:
    """The id of a token that `tokenizer_config.json` names, as text or as an object with `content`."""
    value = settings.values.get(key)
    text = value.get("content") if isinstance(value, dict) else value
    if not isinstance(text, str):
        return None
    id: int | None = tokenizer.backend.token_to_id(text)
    return id


def _ids(fields: Fields, key: str, size: int) -> tuple[int, ...]:
    value: Any = fields.values.get(key)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(id) is int and 0 <= id < size for id in ids):
        fields.fail(key, f"must be a token id from 0 to {size - 1} or a list of them")
    return tuple(ids)


def _chat_template(folder: pathlib.Path, settings: Fields) -> str | None:
    """`chat_template.jinja`, else the entry of `chat_template.json` or `tokenizer_config.json`: one text, or
    several by name."""
    if (file := folder / "chat_template.jinja").exists():
        return read_text(file)
    beside: Any = read_json(folder / "chat_template.json").values.get("chat_template")
    if isinstance(beside, str):
        return beside
    value: Any = settings.values.get("chat_template")
    if isinstance(value, list):
        named = {t.get("name"): t.get("template") for t in value if isinstance(t, dict)}
        value = named.get("default")
    return value if isinstance(value, str) else None
