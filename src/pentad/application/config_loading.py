"""Where settings come from: flags before environment before file before defaults.

A settings file is sectioned (`engine: {threads: 2}`). The flag (`--threads`) and the environment
variable (`PENTAD_THREADS`) need no section, since leaf names are unique.
"""

from __future__ import annotations

import difflib
import json
import os
import pathlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from pentad.application.config import Settings, leaves
from pentad.errors import InvalidRequest
from pentad.registry import known

ENV_PREFIX = "PENTAD_"
FILE_NAMES = ("pentad.yaml", "pentad.yml", "pentad.toml")
"""Looked for in the working directory, in this order."""

ENV_OTHER = frozenset({"PENTAD_CONFIG", "PENTAD_API_KEY", "PENTAD_URL", "PENTAD_TEST_MODELS"})
"""Variables with our prefix that are no fields."""


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
    paths = {path[-1]: path for path in leaves()}
    values: dict[str, Any] = {}
    sources = {".".join(path): "default" for path in paths.values()}
    path = file or _find_file(env, folder or pathlib.Path())
    if path is not None:
        values = _read_file(path)
        for dotted in sources:
            if _has(values, dotted.split(".")):
                sources[dotted] = str(path)
    unknown = []
    for variable in sorted(v for v in env if v.startswith(ENV_PREFIX) and v not in ENV_OTHER):
        name = variable.removeprefix(ENV_PREFIX).lower()
        if name in paths and env[variable] != "":
            _put(values, paths[name], _from_text(env[variable]))
            sources[".".join(paths[name])] = variable
        elif name not in paths:
            unknown.append(variable)
    if env.get("PENTAD_API_KEY") and "PENTAD_API_KEYS" not in env:
        _put(values, paths["api_keys"], (env["PENTAD_API_KEY"],))
        sources["server.api_keys"] = "PENTAD_API_KEY"
    for name, value in (flags or {}).items():
        if value is not None:
            _put(values, paths[name], value)
            sources[".".join(paths[name])] = f"--{name.replace('_', '-')}"
    return Resolved(
        settings=_validated(values, sources, path), sources=sources, unknown_variables=tuple(unknown)
    )


def load_settings(flags: Mapping[str, Any] | None = None, **sources: Any) -> Settings:
    """`resolve` without the record of sources."""
    return resolve(flags, **sources).settings


def _find_file(env: Mapping[str, str], folder: pathlib.Path) -> pathlib.Path | None:
    if env.get("PENTAD_CONFIG"):
        return pathlib.Path(env["PENTAD_CONFIG"])
    return next((folder / name for name in FILE_NAMES if (folder / name).is_file()), None)


def _read_file(path: pathlib.Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        value = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except OSError as e:
        raise InvalidRequest(
            f"settings file {str(path)!r} cannot be read: {e.strerror}", hint="set --config", param="config"
        ) from e
    except (tomllib.TOMLDecodeError, yaml.YAMLError, UnicodeDecodeError) as e:
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


def _from_text(text: str) -> Any:
    if text.lower() in ("null", "none"):
        return None
    return json.loads(text) if text[:1] in "[{" else text


def _has(values: Mapping[str, Any], path: list[str]) -> bool:
    head, *rest = path
    if not isinstance(values, Mapping) or head not in values:
        return False
    return not rest or _has(values[head], rest)


def _put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    inner: Any = values
    for name in path[:-1]:
        inner = inner.setdefault(name, {})
        if not isinstance(inner, dict):
            return  # a section that is no mapping: validation refuses it by name
    inner[path[-1]] = value


def _validated(values: dict[str, Any], sources: Mapping[str, str], path: pathlib.Path | None) -> Settings:
    try:
        settings = Settings.model_validate(values)
    except ValidationError as e:
        raise _explained(e, sources, path) from None
    names = known("scheduler")
    if settings.engine.scheduler not in names:
        raise InvalidRequest(
            f"scheduler is {settings.engine.scheduler!r}; known: {', '.join(names)}",
            hint="change engine.scheduler or --scheduler",
            param="scheduler",
        )
    return settings


def _explained(
    error: ValidationError, sources: Mapping[str, str], path: pathlib.Path | None
) -> InvalidRequest:
    first = error.errors(include_url=False)[0]
    where = [str(part) for part in first["loc"]]
    dotted = ".".join(where)
    if first["type"] == "extra_forbidden":
        siblings = [p[: len(where)] for p in leaves() if list(p[: len(where) - 1]) == where[:-1]]
        names = list(dict.fromkeys(".".join(p) for p in siblings))
        every = {p[-1]: ".".join(p) for p in leaves()}
        close = difflib.get_close_matches(dotted, names, n=1)
        near = close or [every[n] for n in difflib.get_close_matches(where[-1], every, n=1, cutoff=0.75)]
        known_keys = ", ".join(names) if names else "none here"
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {known_keys}"
        return InvalidRequest(f"unknown key {dotted!r} in {path}", hint=hint, param=dotted)
    source = sources.get(dotted) or next((sources[k] for k in sources if dotted.startswith(k)), str(path))
    given = "" if "key" in dotted else f" is {first['input']!r}"
    reason = first["msg"].removeprefix("Value error, ")
    return InvalidRequest(f"{dotted}{given}: {reason}", hint=f"change it in {source}", param=dotted)
