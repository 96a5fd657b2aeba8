"""Writes the generated pages of docs/: agent files, the command line, the settings' schema, the strategies.

.venv/bin/python scripts/reference.py [--check]     --check: exit 1 if a page is not current
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import typer
from families_page import families_page
from formats_page import formats_page
from phases_page import phases_page

from pentad import registry
from pentad.agent.memory.window import Window
from pentad.agent.options import declared_options
from pentad.agent.spec import AgentSpec, LongTermChoice, McpServer, SensitiveTools
from pentad.agent.tools.base import ToolServices
from pentad.agent.tools.functions import described
from pentad.application.cli import overview
from pentad.application.cli.app import MODULES, build
from pentad.application.cli.strategies import describe, describe_family, field_docs
from pentad.application.config import schema_json
from pentad.types import Budget, Objective

DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs"
HEAD = """# Command line

Generated from the command tree by `scripts/docs`; do not edit.

Data goes to standard output, everything else to standard error. Listings take `--json`. Exit
status: 0 done, 1 failed, 2 usage, 3 no feasible plan. Every flag that stands under "Settings" can
also be set in the environment (`--max-sequences` is `PENTAD_MAX_SEQUENCES`) or in `pentad.yaml`.
"""


def commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every visible leaf of the command tree with its path."""
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for name, child in children.items():
        if not child.hidden:
            yield from commands(child, (*path, name))


def usage(path: tuple[str, ...], command: Any) -> str:
    """One line as it would be typed."""
    arguments = [argument_name(p) for p in command.params if p.param_type_name == "argument"]
    return " ".join([*path, *arguments, "[OPTIONS]"])


def argument_name(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name.upper()) + ("..." if parameter.nargs == -1 else "")
    return name if parameter.required else f"[{name}]"


def option_line(option: Any) -> str:
    """The flag, what it takes and what it does."""
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    default = "" if option.default in (None, False, [], ()) else f" Default: `{option.default}`."
    value = "" if option.is_flag else f" {option.metavar or 'VALUE'}"
    return f"- {names}{value}: {option.help or ''}{default}"


def page() -> str:
    """docs/cli.md."""
    parts = [HEAD]
    for path, command in commands(typer.main.get_command(build()), ("pentad",)):
        parts.append(
            f"\n## {' '.join(path)}\n\n    {usage(path, command)}\n\n{' '.join(command.help.split())}\n"
        )
        options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
        own = [o for o in options if o.rich_help_panel != "Settings"]
        settings = [o.opts[0] for o in options if o.rich_help_panel == "Settings"]
        if own:
            parts.append("\n" + "\n".join(option_line(o) for o in own) + "\n")
        if settings:
            parts.append(f"\nSettings: {', '.join(f'`{name}`' for name in settings)}.\n")
    return "".join(parts)


def verbs_file() -> str:
    """What the list of verbs is drawn from without building the command tree."""
    found = {}
    for module in MODULES:
        for name, command in typer.main.get_command(build([module])).commands.items():  # type: ignore[attr-defined]
            panel = "" if command.hidden else command.rich_help_panel
            found[name] = overview.Verb(
                module, panel, " ".join(command.get_short_help_str(limit=400).split())
            )
    return overview.written(found)


STRATEGIES = """# Strategies

Generated from the registry by `scripts/docs`; do not edit. `pentad strategies` shows the same, with
those of other packages that are installed.

A strategy is chosen by name, as `NAME:OPTION=VALUE,...` on the command line and in variables, or as
`{name: NAME, options: {OPTION: VALUE}}` in a file. Its options are its own fields, checked by name,
type and range. A package adds strategies by entry points of the group `pentad.strategies`, each named
`family.name`: [examples/strategy_package](../examples/strategy_package) is one.
"""


def strategies_page() -> str:
    """docs/strategies.md."""
    parts = [STRATEGIES]
    for family, entry in registry.FAMILIES.items():
        found = describe_family(family)
        where = ", ".join(f"`{surface}`" for surface in entry.chosen_by)
        parts.append(f"\n## {family}\n\n{entry.about[:1].upper()}{entry.about[1:]}. Set by {where}.\n")
        for item in found["strategies"]:
            mark = " (where nobody chooses)" if item["name"] == entry.baseline else ""
            parts.append(f"\n- **{item['name']}**{mark}: {item['about']}\n")
            parts += [f"  - `{o['name']}` = `{o['default']}`: {o['about']}\n" for o in item["options"]]
    return "".join(parts)


AGENT_FILE = """# Agent files

Generated from `AgentSpec` by `scripts/docs`; do not edit. [Agents](agent.md) says what they are for.

An agent is one YAML, TOML or JSON file. Every key is below; all but `name` may be left out. A key
that is not known, stands twice or does not fit is refused, and `pentad agent check FILE` says why.
"""
SECTIONS = (
    ("Keys", "", AgentSpec),
    (
        "planner",
        "How the agent goes about a goal. As every strategy: `name`, `name:option=value`, `{name, options}`, "
        "or the options alone, as in `planner: {mode: guided}`.",
        "planner",
    ),
    (
        "coordinator",
        "Who of a team does what next; the members are `agents`, files from this one's folder or agents in "
        "place.",
        "coordinator",
    ),
    (
        "tool_policy",
        "Which of the tools that may be called the model is offered at a step. What is withheld stands in "
        "the run's record (`tools_offered`), with a decision.",
        "tool_policy",
    ),
    (
        "sandbox",
        "Where the tools `python` and `shell` run what the model wrote. Without `folder` and `network` in "
        "their options nothing that such code does outlives the call.",
        "sandbox",
    ),
    (
        "environment",
        "Where the agent's tools act. `pentad runs replay RUN` takes `recorded` for you.",
        "environment",
    ),
    (
        "context",
        "How a prompt is made to fit what `memory.window` and the model's context allow. What is left out is "
        "in the run's record (`compacted`), with a decision.",
        "context",
    ),
    (
        "reduce",
        "How long tool results are shortened for the goal before the model reads them. The whole result is "
        "in the journal; what the model reads instead is in the run's record (`result_reduced`), with a "
        "decision.",
        "reducer",
    ),
    ("memory.window", "The recent turns that stay in the prompt.", Window),
    (
        "memory.store",
        "What keeps and recalls items. `store` needs an embedding model (`embedding_model`): without one "
        "nothing is remembered.",
        "memory",
    ),
    (
        "memory.long_term",
        "What a run takes from its memory and leaves there. `long_term: {}` takes the defaults.",
        LongTermChoice,
    ),
    (
        "sensitive",
        "Tools that injected instructions must not reach. What tools return is data: once the model has read "
        "it, a call of one of `tools` is made only if the values of its arguments stand in the user's own "
        "words (or in `instructions`). The rule holds whatever the model says.",
        SensitiveTools,
    ),
    ("budget", "Hard limits of a run, over retries and restarts. A request can only narrow them.", Budget),
    ("objective", "What a run should aim for.", Objective),
    (
        "mcpServers",
        "MCP servers by name; their tools are called `name__tool`. A command is started only if "
        "`mcp_commands` names it, or a person allowed exactly that command line: `pentad agent approve "
        "FILE`, or the question that `pentad agent run FILE` asks. The first list of tools that a server "
        "shows is accepted; tools that are new or changed after that are withheld until `pentad agent "
        "approve` accepts them. What a server asks of the user (elicitation) is put to a person like an "
        "approval.",
        McpServer,
    ),
)


def agent_file_page() -> str:
    """docs/agent-file.md."""
    parts = [AGENT_FILE]
    for title, about, kind in SECTIONS:
        parts.append(f"\n## {title}\n" + (f"\n{about}\n" if about else "") + "\n")
        lines = strategy_lines(kind) if isinstance(kind, str) else key_lines(kind)
        parts.append("".join(lines))
    parts.append(f"\n## tools\n\n{TOOLS}\n")
    for name in registry.known("tool"):
        factory = registry.load("tool", name)
        told = described(factory)[1]
        defaults = inspect.signature(factory).parameters
        options = [
            f"  - `tool_options.{name}.{option}` = `{defaults[option].default!r}`: {told.get(option, '')}\n"
            for option in declared_options(factory)
        ]
        parts.append(f"\n- **{name}**: {tool_description(factory)}\n" + "".join(options))
    return "".join(parts)


TOOLS = """An entry of `tools` is a built-in tool, a pattern of registered ones, or a Python function by
reference: `./prices.py:price`, from the agent file's folder. A function needs annotations and a docstring,
or may be made with `@tool` to say what repeating it does (`effects`), how long it may take (`timeout_s`),
what it costs and how much of its result is kept. Its file is loaded by itself, and again when it changes;
what it imports must be installed. These come with Pentad:"""


FOLDERS = {registry.load("tool", "skill"): str(DOCS.parent / "examples" / "agents" / "skills")}
"""What the tools that look into their folder at once are shown."""


class NoModels:
    """In place of the models that tools are made with; making them asks only which there are."""

    def models(self) -> tuple[Any, ...]:
        return ()


def tool_description(factory: Any) -> str:
    """What the model is told of a built-in tool."""
    needed = {
        "folder": FOLDERS.get(factory, "."),
        "url": "https://agents.example.com",
        "labels": ("billing", "technical"),
        "source": "prices.json",
        "database": ":memory:",
    }
    options = {name: value for name, value in needed.items() if name in declared_options(factory)}
    nothing: Any = NoModels()
    return str(factory(ToolServices(models=nothing, memory=nothing), **options).description)


def strategy_lines(family: str) -> list[str]:
    """The strategies of a family that an agent file chooses, with their options."""
    found = []
    for name in registry.known(family):
        told = describe(family, name)
        found.append(f"- **{name}**: {told['about']}\n")
        found += [f"  - `{o['name']}` = `{o['default']}`: {o['about']}\n" for o in told["options"]]
    return found


def key_lines(kind: Any) -> list[str]:
    """The fields of a dataclass with their defaults, as files write them."""
    told, lines = field_docs(kind), []
    for field in dataclasses.fields(kind):
        name = {"mcp_servers": "mcpServers"}.get(field.name, field.name)
        plain = field.default_factory is dataclasses.MISSING
        default = "" if field.default is dataclasses.MISSING else f" = `{written_value(field.default)}`"
        lines.append(f"- `{name}`{default if plain else ''}: {told.get(field.name) or 'see below.'}\n")
    return lines


def written_value(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def main() -> int:
    pages = {
        "cli.md": page(),
        "pentad.schema.json": schema_json(),
        "strategies.md": strategies_page(),
        "agent-file.md": agent_file_page(),
        "formats.md": formats_page(),
        "families.md": families_page(),
        "phases.md": phases_page(),
    }
    files = {DOCS / name: text for name, text in pages.items()} | {overview.FILE: verbs_file()}
    old = [path for path, text in files.items() if not is_current(path, text)]
    for path in old:
        name = path.relative_to(DOCS.parent)
        if "--check" in sys.argv[1:]:
            print(f"{name} is not current; run scripts/docs", file=sys.stderr)
        else:
            path.write_text(files[path], encoding="utf-8")
            print(name)
    return 1 if old and "--check" in sys.argv[1:] else 0


def is_current(path: pathlib.Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
