"""Writes the generated pages of docs/: the command line, the settings' schema, the strategies.

.venv/bin/python scripts/reference.py [--check]     --check: exit 1 if a page is not current
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import typer

from pentad import registry
from pentad.application.cli.app import build
from pentad.application.cli.strategies import describe_family
from pentad.application.config import schema_json

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


def main() -> int:
    pages = {"cli.md": page(), "pentad.schema.json": schema_json(), "strategies.md": strategies_page()}
    old = [name for name, text in pages.items() if not is_current(DOCS / name, text)]
    if "--check" in sys.argv[1:]:
        for name in old:
            print(f"docs/{name} is not current; run scripts/docs", file=sys.stderr)
        return 1 if old else 0
    for name in old:
        (DOCS / name).write_text(pages[name], encoding="utf-8")
        print(f"docs/{name}")
    return 0


def is_current(path: pathlib.Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
