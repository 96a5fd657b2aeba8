"""`pentad strategies`: what can be chosen by name, with options, defaults and where it is set."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import textwrap
from typing import Annotated, Any

import typer

from pentad.application.cli.output import print_json, print_table
from pentad.application.cli.settings import JsonOption


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(rich_help_panel="This program")(strategies)


def strategies(
    family: Annotated[
        str | None, typer.Argument(metavar="[FAMILY]", help="One family, e.g. scheduler.")
    ] = None,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One strategy of it.")] = None,
    json: JsonOption = False,
) -> None:
    """List the strategies of every family, or explain one: what it does, its options, where it is set."""
    from pentad import registry
    from pentad.errors import UnknownName

    if family is not None and family not in registry.FAMILIES:
        raise UnknownName(
            f"no family {family!r}", hint=registry.near(family, registry.FAMILIES), param="family"
        )
    if family is not None and name is not None:
        found = describe(family, name)
        print_json(found) if json else typer.echo(_page(found))
        return
    shown = [family] if family is not None else list(registry.FAMILIES)
    listed = {each: describe_family(each) for each in shown}
    if json:
        print_json(listed)
        return
    rows = [
        (each, item["name"] + (" *" if item["name"] == entry["baseline"] else ""), item["about"])
        for each, entry in listed.items()
        for item in entry["strategies"]
    ]
    print_table(("family", "name", "what it does"), rows, empty="no strategies")
    typer.echo("\n* taken where nobody chooses. Choose by NAME, or NAME:OPTION=VALUE,...")
    for each, entry in listed.items():
        typer.echo(f"  {each}: set by {', '.join(entry['chosen_by'])}")


def describe_family(family: str) -> dict[str, Any]:
    """A family with all its strategies, as plain data."""
    from pentad import registry

    entry = registry.FAMILIES[family]
    items = [describe(family, name) for name in registry.known(family)]
    if entry.baseline not in registry.known(family):
        items.insert(
            0, {"name": entry.baseline, "about": f"Does without: no {family} is used.", "options": []}
        )
    return {**dataclasses.asdict(entry), "chosen_by": list(entry.chosen_by), "strategies": items}


def describe(family: str, name: str) -> dict[str, Any]:
    """One strategy as plain data: what it does, its exactness and needs, its options with defaults."""
    from pentad import registry
    from pentad.choice import options_of

    kind = registry.load(family, name)
    told = inspect.getdoc(kind) or ""
    documented = field_docs(kind)
    options = [
        {
            "name": field.name,
            "type": field.type if isinstance(field.type, str) else getattr(field.type, "__name__", ""),
            "default": None if field.default is dataclasses.MISSING else field.default,
            "about": documented.get(field.name, ""),
        }
        for field in options_of(kind).values()
    ]
    return {
        "family": family,
        "name": name,
        "about": " ".join(told.partition("\n\n")[0].split()),
        "text": told,
        "origin": registry.origin(family, name),
        "exactness": getattr(kind, "exactness", None),
        "needs": _plain_needs(getattr(kind, "needs", None)),
        "chosen_by": list(registry.FAMILIES[family].chosen_by),
        "options": options,
    }


def _plain_needs(needs: Any) -> Any:
    if dataclasses.is_dataclass(needs) and not isinstance(needs, type):
        return dataclasses.asdict(needs)
    return sorted(needs) if isinstance(needs, frozenset) else None


def field_docs(kind: Any) -> dict[str, str]:
    """The text under each field of a class and its bases; none where a source cannot be had."""
    found: dict[str, str] = {}
    for each in reversed(inspect.getmro(kind)) if inspect.isclass(kind) else ():
        found |= _own_field_docs(each)
    return found


def _own_field_docs(kind: type) -> dict[str, str]:
    try:
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    except (OSError, TypeError, SyntaxError):
        return {}
    found: dict[str, str] = {}
    body = getattr(node, "body", [])
    for field, after in itertools.pairwise(body):
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
            found[field.target.id] = " ".join(str(after.value.value).split())
    return found


def _page(found: dict[str, Any]) -> str:
    lines = [f"{found['family']} {found['name']} ({found['origin']})", "", found["text"], ""]
    if found["exactness"]:
        lines.append(f"exactness: {found['exactness']}")
    if found["needs"]:
        lines.append(f"needs: {found['needs']}")
    lines.append(f"set by: {', '.join(found['chosen_by'])}")
    lines.append("options:" if found["options"] else "options: none")
    for option in found["options"]:
        lines.append(f"  {option['name']}: {option['type']} = {option['default']}")
        if option["about"]:
            lines.append(
                textwrap.fill(option["about"], 96, initial_indent="      ", subsequent_indent="      ")
            )
    return "\n".join(lines)
