"""Choice: a strategy as a person chooses it, by name or by name and options, and its construction."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec

from pentad import registry
from pentad.errors import InvalidRequest, UnknownName
from pentad.json_text import parse_json

_WRITTEN = "write it as NAME, NAME:OPTION=VALUE,... or {name: NAME, options: {OPTION: VALUE}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One strategy of a family, by its registered name, with what differs from its defaults."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """The strategy's own fields; `build` checks them."""

    def __str__(self) -> str:
        """As `of` reads it back."""
        options = ",".join(f"{name}={json.dumps(value)}" for name, value in self.options.items())
        return f"{self.name}:{options}" if options else self.name

    @classmethod
    def of(cls, value: Any) -> Self:
        """The choice written as text or as a mapping; a Choice stays as it is.

        Values of options in text are JSON, or else text: `sarathi:token_budget=64,aging_s=null`.
        Raises InvalidRequest for anything else.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            return cls._of_text(value)
        if isinstance(value, Mapping) and isinstance(value.get("name"), str):
            options = value.get("options") or {}
            if isinstance(options, Mapping) and not value.keys() - {"name", "options"}:
                return cls(name=value["name"], options=dict(options))
        raise InvalidRequest(f"{value!r:.200} is no choice of a strategy", hint=_WRITTEN)

    @classmethod
    def _of_text(cls, text: str) -> Self:
        name, _, rest = text.strip().partition(":")
        options = {}
        # A comma ends an option only where another one begins, so values may hold commas.
        for part in re.split(r",(?=[A-Za-z_]+=)", rest) if rest else ():
            option, equals, value = part.partition("=")
            if not equals:
                raise InvalidRequest(f"{part!r:.100} in {text!r:.200} has no value", hint=_WRITTEN)
            options[option.strip()] = _value(value)
        if not name:
            raise InvalidRequest(f"{text!r:.200} names no strategy", hint=_WRITTEN)
        return cls(name=name, options=options)


def build(family: str, choice: Choice) -> Any:
    """The strategy that was chosen, its options checked against its own fields.

    Raises:
        UnknownName: no such strategy; suggests the nearest name.
        InvalidRequest: an option that it does not have, or a value that the option does not take.
    """
    kind = registry.load(family, choice.name)
    known = options_of(kind)
    for option in choice.options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"options: {', '.join(known) or 'none'}"
            raise InvalidRequest(
                f"{family} {choice.name!r} has no option {option!r}", hint=hint, param=f"{family}.{option}"
            )
    try:
        return msgspec.convert(dict(choice.options), type=kind) if choice.options else kind()
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$.")
        option = place.rstrip("`")
        named = f"option {option!r} of " if option else ""
        values = typing.get_args(typing.get_type_hints(kind).get(option))
        listed = f"pentad strategies {family} {choice.name} lists its options"
        raise InvalidRequest(
            f"{named}{family} {choice.name!r}: {reason[:1].lower()}{reason[1:]}",
            hint=registry.near(str(choice.options.get(option)), values) if _words(values) else listed,
            param=f"{family}.{option}" if option else family,
        ) from None


def options_of(kind: Any) -> Mapping[str, dataclasses.Field[Any]]:
    """The fields of a strategy that may be chosen; none for one that is not a dataclass."""
    if not dataclasses.is_dataclass(kind):
        return {}
    return {f.name: f for f in dataclasses.fields(kind) if f.init and f.name != "name"}


def check(family: str, choice: Choice) -> None:
    """Raises what `build` would raise about the name alone; imports no strategy."""
    if not registry.registered(family, choice.name) and choice.name not in (names := registry.known(family)):
        raise UnknownName(
            f"unknown {family} {choice.name!r}", hint=registry.near(choice.name, names), param=family
        )


def _words(values: tuple[Any, ...]) -> bool:
    """Whether these are the values of a Literal of names."""
    return bool(values) and all(isinstance(value, str) for value in values)


def _value(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        return text.strip()
