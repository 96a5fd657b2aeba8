"""load_agent: one YAML, TOML or JSON file to an AgentSpec, unknown keys refused with a suggestion."""

from __future__ import annotations

import contextlib
import pathlib
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pentad.agent.codec import Malformed, decode, encode
from pentad.agent.spec import AgentSpec, strategy_fields
from pentad.agent.tools.files import anchored
from pentad.choice import Choice
from pentad.errors import InvalidRequest, NotFound
from pentad.json_text import parse_json
from pentad.registry import FAMILIES
from pentad.yaml_text import read_yaml

SUFFIXES = (".yaml", ".yml", ".toml", ".json")
_MAX_BYTES = 1 << 20
_READY = pathlib.Path(__file__).parent / "ready"


def load_agent(path: pathlib.Path | str) -> AgentSpec:
    """The agent that a file declares.

    Args:
        path: a .yaml, .yml, .toml or .json file, or the name of an agent shipped with Pentad.

    Raises:
        NotFound: no such file; InvalidRequest: not a valid agent, naming the field at fault.
    """
    file = pathlib.Path(path)
    if str(path) in ready():
        file = _READY / f"{path}.yaml"
    if not file.is_file():
        raise NotFound(f"no agent file {str(path)!r}", hint=f"give a file, or one of: {', '.join(ready())}")
    if file.stat().st_size > _MAX_BYTES:
        raise InvalidRequest(f"agent file {file.name!r} is over {_MAX_BYTES >> 20} MiB")
    return _loaded(file.absolute(), ())


def _loaded(file: pathlib.Path, above: tuple[pathlib.Path, ...]) -> AgentSpec:
    """The agent of a file, with the members of its team; `above` are the files that led here."""
    data = _parse(file)
    with_members = _with_members(data, file, (*above, file)) if isinstance(data, Mapping) else data
    return _guided(anchored(agent_from(with_members, where=file.name), file.parent), file)


def _guided(spec: AgentSpec, file: pathlib.Path) -> AgentSpec:
    """The agent with the text of its guides in its instructions: a run keeps what they said when it began."""
    parts = [spec.instructions]
    for guide in spec.guides:
        path = file.parent / pathlib.Path(guide).expanduser()
        if not path.is_file():
            raise NotFound(f"{file.name}: guides names no file: {guide!r}", param="guides")
        if path.stat().st_size > _MAX_BYTES:
            raise InvalidRequest(
                f"{file.name}: guide {guide!r} is over {_MAX_BYTES >> 20} MiB", param="guides"
            )
        parts.append(path.read_text("utf-8", "replace").strip())
    return replace(spec, instructions="\n\n".join(filter(None, parts)), guides=())


def _with_members(data: Mapping[str, Any], file: pathlib.Path, above: tuple[pathlib.Path, ...]) -> Any:
    """The data with each member that is a file in the place of its path; relative ones count from `file`."""
    agents = data.get("agents")
    if not isinstance(agents, Mapping):
        return data
    found: dict[str, Any] = {}
    for name, member in agents.items():
        where = f"agents.{name}"
        if isinstance(member, Mapping):
            inner = {"name": name, **member}
            found[name] = encode(
                _guided(anchored(_member(_with_members(inner, file, above), where), file.parent), file)
            )
            continue
        if not isinstance(member, str):
            raise InvalidRequest(f"{file.name}: {where} is neither a file nor an agent", param=where)
        path = (file.parent / pathlib.Path(member).expanduser()).resolve()
        if path in (each.resolve() for each in above):
            raise InvalidRequest(f"{file.name}: {where} leads back to {path.name}", param=where)
        if not path.is_file():
            raise NotFound(f"{file.name}: {where} names no file: {member!r}", param=where)
        found[name] = encode(_loaded(path, above))
    return {**data, "agents": found}


def _member(data: Any, where: str) -> AgentSpec:
    try:
        return agent_from(data, where=where)
    except InvalidRequest as error:
        param = f"{where}.{error.param}" if error.param else where
        raise InvalidRequest(error.message, hint=error.hint, param=param) from None


def member_files(file: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """The files of the team that an agent file leads, at any depth; none for one that cannot be read."""
    found: dict[pathlib.Path, None] = {}

    def look(data: Any, at: pathlib.Path) -> None:
        agents = data.get("agents") if isinstance(data, Mapping) else None
        for member in agents.values() if isinstance(agents, Mapping) else ():
            if not isinstance(member, str):
                look(member, at)
                continue
            path = (at.parent / pathlib.Path(member).expanduser()).resolve()
            if path not in found:
                found[path] = None
                if path.is_file():
                    with contextlib.suppress(InvalidRequest):
                        look(_parse(path), path)

    with contextlib.suppress(InvalidRequest, OSError):
        look(_parse(file), file)
    return tuple(found)


def ready() -> tuple[str, ...]:
    """Names of the agents shipped with Pentad."""
    return tuple(sorted(file.stem for file in _READY.glob("*.yaml")))


def agent_from(data: Any, *, where: str = "agent") -> AgentSpec:
    """The agent that a parsed file or request body describes. Raises InvalidRequest."""
    try:
        return decode(AgentSpec, _as_fields(data))
    except Malformed as error:
        raise InvalidRequest(f"{where}: {error}", param=error.path or None) from None


def written(spec: AgentSpec) -> dict[str, Any]:
    """The spec as a file would say it, without what is as by default; `agent_from` reads it back."""
    whole, plain = encode(spec), encode(AgentSpec(name=spec.name))
    found = {"name": spec.name} | {k: v for k, v in whole.items() if v != plain[k]}
    if spec.agents:
        found["agents"] = {name: written(member) for name, member in spec.agents.items()}
    return {
        "mcpServers" if name == "mcp_servers" else name: _without(v, plain.get(name))
        for name, v in found.items()
    }


def _without(value: Any, plain: Any) -> Any:
    """A mapping less what is equal in `plain`, at any depth."""
    if not isinstance(value, dict) or not isinstance(plain, dict):
        return value
    return {k: _without(v, plain.get(k)) for k, v in value.items() if k not in plain or v != plain[k]}


def _as_fields(data: Any) -> Any:
    """Renames what files write in the convention of others, and expands short forms."""
    if not isinstance(data, Mapping):
        return data
    fields = {str(k): v for k, v in data.items()}
    if isinstance(fields.get("agents"), Mapping):
        members = fields["agents"].items()
        fields["agents"] = {name: _as_fields(_named(name, member)) for name, member in members}
    if "mcpServers" in fields:
        fields["mcp_servers"] = fields.pop("mcpServers")
    for key, family in strategy_fields().items():
        outer, _, inner = key.rpartition(".")
        place = fields.get(outer) if outer else fields
        if isinstance(place, Mapping) and inner in place:
            changed = {**place, inner: _as_choice(place[inner], FAMILIES[family].baseline)}
            fields = {**fields, outer: changed} if outer else changed
    return fields


def _named(name: Any, member: Any) -> Any:
    """A member in place is called as the team calls it, unless it says otherwise."""
    return {"name": name, **member} if isinstance(member, Mapping) else member


def _as_choice(value: Any, baseline: str) -> Any:
    """A choice as files write it: as everywhere, or with the options beside the name, or alone."""
    if isinstance(value, str):
        return encode(Choice.of(value))
    if isinstance(value, Mapping) and "options" not in value:
        return {
            "name": value.get("name", baseline),
            "options": {k: v for k, v in value.items() if k != "name"},
        }
    return {"name": baseline, **value} if isinstance(value, Mapping) else value


def _parse(file: pathlib.Path) -> Any:
    try:
        text = file.read_text(encoding="utf-8")
        match file.suffix:
            case ".yaml" | ".yml":
                return read_yaml(text)
            case ".toml":
                return tomllib.loads(text)
            case ".json":
                return parse_json(text)
    except (ValueError, RecursionError) as error:
        problem = " ".join(str(error).split())
        raise InvalidRequest(f"agent file {file.name!r} cannot be read: {problem[:200]}") from None
    raise InvalidRequest(
        f"agent file {file.name!r} has no known ending", hint="use .yaml, .toml or .json", param="path"
    )
