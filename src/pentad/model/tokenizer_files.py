"""The tokenizer of a model folder, in whichever file it is."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, Final

from pentad.errors import BadModelFile
from pentad.model.tokenizer import Tokenizer, from_json
from pentad.model.tokenizer_pre import SPLITS
from pentad.model.tokenizer_ranks import from_tekken, from_tiktoken

TIKTOKEN_FILES: Final = ("tiktoken.model", "qwen.tiktoken")
TIKTOKEN_SPLITS: Final = MappingProxyType(
    {"kimi_k2": "kimi-k2", "kimi_k25": "kimi-k2", "deepseek_v3": "kimi-k2", "qwen": "cl100k"}
)
"""A family, as its config names it, to the splits of its tiktoken file, which does not tell them."""


def tokenizer_of(
    folder: pathlib.Path,
    read: Callable[[pathlib.Path], str],
    *,
    family: str,
    added: Any = None,
    size: int | None = None,
) -> Tokenizer:
    """The tokenizer out of `tokenizer.json`, else `tekken.json`, else a file as tiktoken writes them.

    Args:
        folder: of the model.
        read: reads a text file of it, of a sane size.
        family: `model_type` of its config.
        added: `added_tokens_decoder` of its tokenizer_config.json: id to token.
        size: rows of the embedding table.

    Raises:
        BadModelFile: there is no such file, it is broken, or the family's way of splitting is unknown.
    """
    path = folder / "tokenizer.json"
    if not path.exists() and (tekken := folder / "tekken.json").exists():
        return from_tekken(read(tekken), size=size, source=str(tekken))
    ranked = next((folder / name for name in TIKTOKEN_FILES if (folder / name).exists()), None)
    if path.exists() or ranked is None:
        return from_json(read(path), size=size, source=str(path))
    if family not in TIKTOKEN_SPLITS:
        raise BadModelFile(
            f"{str(ranked)!r} does not tell how family {family!r} splits a text",
            hint=f"put the model's tokenizer.json beside it; known are {', '.join(TIKTOKEN_SPLITS)}",
        )
    (pattern,) = SPLITS[TIKTOKEN_SPLITS[family]]
    return from_tiktoken(
        read(ranked), pattern=pattern, special=_special(added, str(folder)), size=size, source=str(ranked)
    )


def _special(added: Any, source: str) -> dict[str, int]:
    try:
        return {token["content"]: int(id) for id, token in (added or {}).items()}
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        raise BadModelFile(f"{source!r}: added_tokens_decoder is unreadable: {error!r}") from error
