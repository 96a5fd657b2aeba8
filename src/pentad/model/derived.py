"""What all ways to derive a model share: a free name, a text to learn from, the choice written out."""

from __future__ import annotations

import pathlib
from typing import Any, Final

from pentad import choice
from pentad.choice import Choice
from pentad.errors import InvalidRequest
from pentad.model.catalogue import DERIVED
from pentad.model.store import ModelStore

MAX_TEXT_BYTES: Final = 64 << 20


def check_free(store: ModelStore, name: str) -> None:
    """Raises InvalidRequest where a model of that name is there that was not derived."""
    taken = next((model for model in store.list() if model.name == name), None)
    if name in store.catalogue or (taken is not None and not taken.ref.startswith(f"{DERIVED}:")):
        raise InvalidRequest(
            f"the name {name!r} is taken by another model", hint="choose another --out", param="out"
        )


def read_text(path: pathlib.Path, param: str) -> str:
    """The text of a file, at most `MAX_TEXT_BYTES`. Raises InvalidRequest for a file that is none."""
    try:
        data = path.read_bytes()[: MAX_TEXT_BYTES + 1]
        if len(data) > MAX_TEXT_BYTES:
            raise ValueError(f"it has more than {MAX_TEXT_BYTES >> 20} MiB")
        return data.decode("utf-8")
    except (OSError, ValueError) as error:
        raise InvalidRequest(
            f"the {param} text {str(path)!r} cannot be read: {error}",
            hint="give a text file in UTF-8",
            param=param,
        ) from None


def written_out(chosen: Choice, strategy: Any) -> Choice:
    """The choice with every option written out, so that a later default changes nothing."""
    options = {name: getattr(strategy, name) for name in choice.options_of(type(strategy))}
    return Choice(name=chosen.name, options=options)
