"""Where settings come from: flags before environment before file before defaults.

A settings file is sectioned (`engine: {threads: 2}`). The flag (`--threads`) and the environment
variable (`PENTAD_THREADS`) need no section, since leaf names are unique.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import pathlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from pentad.application.config import Settings, is_list, leaves
from pentad.application.phases import check_phases
from pentad.choice import Choice, build, check
from pentad.errors import InvalidRequest
from pentad.json_text import parse_json
from pentad.yaml_text import read_yaml

ENV_PREFIX = "PENTAD_"
FILE_NAMES = ("pentad.yaml", "pentad.yml", "pentad.toml")
"""Looked for in the working directory, in this order."""

ENV_OTHER = frozenset({"PENTAD_CONFIG", "PENTAD_API_KEY", "PENTAD_URL", "PENTAD_TEST_MODELS"})
"""Variables with our prefix that are no fields."""


_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_bytes(text: str) -> int:
    """`512MiB`, `2 GB` or `1048576` as bytes. Raises ValueError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if not match or match[2].upper() not in _UNITS:
        raise ValueError("no size; write bytes, or a number with kB, MB, GB, KiB, MiB or GiB")
    value = float(match[1]) * _UNITS[match[2].upper()]
    if value > 2**63:
        raise ValueError("more than 2^63 bytes")
    return int(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Settings together with where each leaf came from."""

    settings: Settings
    sources: Mapping[str, str]
    """Dotted path to `default`, the file's name, the variable or the flag."""
    unknown_variables: tuple[str, ...] = ()
    """PENTAD_* variables that set nothing: likely misspelt."""


def resolve(
    flags: Mapping[str, Any] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    file: pathlib.Path | None = None,
    folder: pathlib.Path | None = None,
) -> Resolved:
    """The settings in force and the source of each.

    Args:
        flags: leaf name to value; None values count as not given.
        env: the environment; the process's own when None.
        file: the settings file; when None, PENTAD_CONFIG or one of FILE_NAMES in `folder`.
        folder: where to look for a file; the working directory when None.

    Raises:
        InvalidRequest: an unknown key or an impossible value; names the source and the remedy.
    """
    env = os.environ if env is None else env
    path = file or _find_file(env, folder or pathlib.Path())
    values = {} if path is None else _read_file(path)
    paths = {leaf[-1]: leaf for leaf in leaves()}
    sources = {".".join(leaf): str(path) if _has(values, leaf) else "default" for leaf in paths.values()}
    given, unknown = _from_environment(env, paths)
    given |= {
        name: (f"--{name.replace('_', '-')}", _from_text(value) if isinstance(value, str) else value)
        for name, value in (flags or {}).items()
        if value is not None
    }
    for name, (source, value) in given.items():
        _put(values, paths[name], value)
        sources[".".join(paths[name])] = source
    for leaf in paths.values():
        _interpret(values, leaf, sources[".".join(leaf)])
    return Resolved(settings=_validated(values, sources, path), sources=sources, unknown_variables=unknown)


def load_settings(flags: Mapping[str, Any] | None = None, **sources: Any) -> Settings:
    """`resolve` without the record of sources."""
    return resolve(flags, **sources).settings


def _find_file(env: Mapping[str, str], folder: pathlib.Path) -> pathlib.Path | None:
    if env.get("PENTAD_CONFIG"):
        return pathlib.Path(env["PENTAD_CONFIG"])
    return next((folder / name for name in FILE_NAMES if (folder / name).is_file()), None)


def _read_file(path: pathlib.Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        value = tomllib.loads(text) if path.suffix == ".toml" else read_yaml(text)
    except OSError as e:
        raise InvalidRequest(
            f"settings file {str(path)!r} cannot be read: {e.strerror}", hint="set --config", param="config"
        ) from e
    except ValueError as e:  # of TOML, of YAML or of UTF-8
        reason = " ".join(str(e).split())
        raise InvalidRequest(
            f"settings file {str(path)!r} does not parse: {reason}", hint="mend that line", param="config"
        ) from e
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(
            f"settings file {str(path)!r} holds a {type(value).__name__}, not keys and values",
            hint=f"keys are {', '.join(Settings.model_fields)}",
            param="config",
        )
    sections = {path[0] for path in leaves() if len(path) > 1}
    return {name: {} if inner is None and name in sections else inner for name, inner in value.items()}


def _from_environment(
    env: Mapping[str, str], paths: Mapping[str, tuple[str, ...]]
) -> tuple[dict[str, tuple[str, Any]], tuple[str, ...]]:
    """Leaf name to (variable, value), and the variables of our prefix that set nothing."""
    given: dict[str, tuple[str, Any]] = {}
    if env.get("PENTAD_API_KEY"):
        given["api_keys"] = ("PENTAD_API_KEY", (env["PENTAD_API_KEY"],))
    unknown = []
    for variable in sorted(v for v in env if v.startswith(ENV_PREFIX) and v not in ENV_OTHER):
        name = variable.removeprefix(ENV_PREFIX).lower()
        if name not in paths:
            unknown.append(variable)
        elif env[variable] != "":
            given[name] = (variable, _from_text(env[variable]))
    return given, tuple(unknown)


def _from_text(text: str) -> Any:
    if text.lower() in ("null", "none"):
        return None
    if text[:1] in "[{":
        try:
            return parse_json(text)
        except ValueError:
            return text
    return text


def _has(values: Any, path: Sequence[str]) -> bool:
    head, *rest = path
    if not isinstance(values, Mapping) or head not in values:
        return False
    return not rest or _has(values[head], rest)


def _put(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    inner: Any = values
    for name in path[:-1]:
        inner = inner.setdefault(name, {})
        if not isinstance(inner, dict):
            return  # a section that is no mapping: validation refuses it by name
    inner[path[-1]] = value


def _interpret(values: dict[str, Any], path: Sequence[str], source: str) -> None:
    """Turns the text forms of sizes and lists, which every source may use, into values."""
    inner: Any = values
    for name in path[:-1]:
        inner = inner.get(name, {}) if isinstance(inner, dict) else {}
    text = inner.get(path[-1]) if isinstance(inner, dict) else None
    if not isinstance(text, str):
        return
    if path[-1].endswith("_bytes"):
        try:
            inner[path[-1]] = parse_bytes(text)
        except ValueError as e:
            raise InvalidRequest(
                f"{'.'.join(path)} is {text!r}: {e}", hint=f"change it in {source}", param=path[-1]
            ) from None
    elif is_list(tuple(path)):
        inner[path[-1]] = tuple(part.strip() for part in text.split(",") if part.strip())
    elif text[:1] == "{":
        with contextlib.suppress(ValueError):  # told by the validation, with the field's name
            inner[path[-1]] = parse_json(text)


def _validated(values: dict[str, Any], sources: Mapping[str, str], path: pathlib.Path | None) -> Settings:
    try:
        settings = Settings.model_validate(values)
    except ValidationError as e:
        raise _explained(e, sources, path) from None
    except InvalidRequest as e:
        where = next((source for leaf, source in sources.items() if leaf.endswith(f".{e.param}")), None)
        hint = e.hint or f"change it in {where}"
        raise InvalidRequest(e.message, hint=hint, param=e.param) from None
    for family, choice, leaf in (
        ("scheduler", settings.engine.scheduler, "engine.scheduler"),
        ("kv_policy", settings.engine.kv_policy, "engine.kv_policy"),
        ("attention_filter", settings.engine.attention_filter, "engine.attention_filter"),
        ("kv_eviction", settings.engine.kv_eviction, "engine.kv_eviction"),
        ("transport", settings.engine.transport, "engine.transport"),
        ("codec", settings.engine.parallel_codec, "engine.parallel_codec"),
        ("transport", settings.engine.parallel_transport, "engine.parallel_transport"),
        ("router", settings.router, "router"),
        ("eviction", settings.eviction, "eviction"),
    ):
        _check_choice(family, choice, sources[leaf])
    if settings.engine.speculation.name != "none":
        _check_choice("speculator", settings.engine.speculation, sources["engine.speculation"])
    check_phases(settings.engine)
    return settings


def _check_choice(family: str, choice: Choice, source: str) -> None:
    """Builds what was chosen with options, so that a mistake is told before a model is loaded."""
    try:
        if choice.options:
            build(family, choice)
        else:
            check(family, choice)
    except InvalidRequest as e:
        raise InvalidRequest(e.message, hint=f"{e.hint}; change it in {source}", param=e.param) from None


def _alike(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _explained(
    error: ValidationError, sources: Mapping[str, str], path: pathlib.Path | None
) -> InvalidRequest:
    first = error.errors(include_url=False)[0]
    where = [str(part) for part in first["loc"]]
    dotted = ".".join(where)
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return _unknown_key(where, path)
    source = sources.get(dotted) or next((sources[k] for k in sources if dotted.startswith(k)), str(path))
    given = "" if "key" in dotted else f" is {first['input']!r}"
    reason = first["msg"].removeprefix("Value error, ")
    return InvalidRequest(f"{dotted}{given}: {reason}", hint=f"change it in {source}", param=dotted)


def _unknown_key(where: list[str], path: pathlib.Path | None) -> InvalidRequest:
    """Suggests a sibling that is spelt alike, else a key of that kind of name in another section."""
    siblings = [leaf[: len(where)] for leaf in leaves() if list(leaf[: len(where) - 1]) == where[:-1]]
    here = {sibling[-1]: ".".join(sibling) for sibling in siblings if len(sibling) == len(where)}
    everywhere = {leaf[-1]: ".".join(leaf) for leaf in leaves()}
    # A name from elsewhere has to be more alike than one from here.
    near = difflib.get_close_matches(where[-1], here, n=1)
    far = difflib.get_close_matches(where[-1], everywhere, n=1, cutoff=0.75)
    close = [here[n] for n in near] + [everywhere[n] for n in far]
    if near and far and _alike(far[0], where[-1]) > _alike(near[0], where[-1]):
        close = close[::-1]
    hint = (
        f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(here.values()) or 'none here'}"
    )
    dotted = ".".join(where)
    return InvalidRequest(f"unknown key {dotted!r} in {path}", hint=hint, param=dotted)
