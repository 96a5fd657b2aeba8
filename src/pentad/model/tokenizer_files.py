"""The tokenizer of a model folder, in whichever file it is."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from pentad.errors import BadModelFile
from pentad.model.files.folder_files import read_file, read_text
from pentad.model.tokenizer import Tokenizer, from_json
from pentad.model.tokenizer_marian import from_marian
from pentad.model.tokenizer_pre import SPLITS
from pentad.model.tokenizer_ranks import from_tekken, from_tiktoken
from pentad.model.tokenizer_sentencepiece import from_sentencepiece

TIKTOKEN_FILES: Final = ("tiktoken.model", "qwen.tiktoken")
TIKTOKEN_SPLITS: Final = MappingProxyType(
    {"kimi_k2": "kimi-k2", "kimi_k25": "kimi-k2", "deepseek_v3": "kimi-k2", "qwen": "cl100k"}
)
"""A family, as its config names it, to the splits of its tiktoken file, which does not tell them."""


SENTENCEPIECE_FILES: Final = ("tokenizer.model", "spiece.model")
MARIAN_FILES: Final = ("source.spm", "vocab.json")
_REORDERED: Final = "sentencepiece.bpe.model"
"""Of families whose ids are not those of the file, in ways that it does not tell."""


def tokenizer_of(
    folder: pathlib.Path,
    *,
    family: str,
    settings: Mapping[str, Any] | None = None,
    size: int | None = None,
) -> Tokenizer:
    """The tokenizer out of `tokenizer.json`, else `tekken.json`, tiktoken's file, Marian's three, or
    SentencePiece's.

    Args:
        folder: of the model.
        family: `model_type` of its config.
        settings: its tokenizer_config.json.
        size: rows of the embedding table.

    Raises:
        BadModelFile: there is no such file, it is broken, or the family's way of splitting is unknown.
    """
    path = folder / "tokenizer.json"
    if path.exists():
        return from_json(read_text(path), size=size, source=str(path))
    if (tekken := folder / "tekken.json").exists():
        return from_tekken(read_text(tekken), size=size, source=str(tekken))
    settings = settings or {}
    if (source := folder / MARIAN_FILES[0]).exists():
        vocab = read_text(folder / MARIAN_FILES[1])
        return from_marian(read_file(source), vocab, settings=settings, size=size, path=str(folder))
    added = _added(settings.get("added_tokens_decoder"), str(folder))
    if ranked := _first(folder, TIKTOKEN_FILES):
        if family not in TIKTOKEN_SPLITS:
            raise BadModelFile(
                f"{str(ranked)!r} does not tell how family {family!r} splits a text",
                hint=f"put the model's tokenizer.json beside it; known are {', '.join(TIKTOKEN_SPLITS)}",
            )
        (pattern,) = SPLITS[TIKTOKEN_SPLITS[family]]
        special = {text: id for text, (id, _) in added.items()}
        return from_tiktoken(
            read_text(ranked), pattern=pattern, special=special, size=size, source=str(ranked)
        )
    numbered = sorted((file.name for file in folder.glob("tokenizer.model.v[0-9]*")), key=_version)
    if pieces := _first(folder, (*SENTENCEPIECE_FILES, *reversed(numbered))):
        return from_sentencepiece(
            read_file(pieces), added=added, settings=settings, size=size, source=str(pieces)
        )
    raise BadModelFile(
        f"{str(folder)!r} holds no tokenizer that is read",
        hint="a model folder needs tokenizer.json, tekken.json or tokenizer.model"
        + (f"; {_REORDERED} alone does not tell the ids" if (folder / _REORDERED).exists() else ""),
    )


def _first(folder: pathlib.Path, names: Sequence[str]) -> pathlib.Path | None:
    return next((folder / name for name in names if (folder / name).exists()), None)


def _version(name: str) -> tuple[int, str]:
    """Of Mistral's `tokenizer.model.v3` and later."""
    found = re.search(r"\.v(\d+)", name)
    return (int(found[1]) if found else 0, name)


def _added(listed: Any, source: str) -> dict[str, tuple[int, bool]]:
    """Id and whether it is a control token of each, by text."""
    try:
        return {
            token["content"]: (int(id), bool(token.get("special", True)))
            for id, token in (listed or {}).items()
        }
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        raise BadModelFile(f"{source!r}: added_tokens_decoder is unreadable: {error!r}") from error
