"""The command tree and its entry: exit 0 done, 1 failed, 2 usage, 3 infeasible."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from typing import Annotated

import typer
from typer.completion import completion_init  # type: ignore[attr-defined]

from pentad.application.cli import overview
from pentad.application.cli.output import note, show_error
from pentad.errors import PentadError

MODULES = (
    "demo",
    "serving",
    "models",
    "compress",
    "certify",
    "compare",
    "pruned",
    "train",
    "train_policy",
    "agents",
    "train_retriever",
    "train_router",
    "runs",
    "evaluation",
    "train_tools",
    "memories",
    "data",
    "ranks",
    "cluster",
    "machine",
    "simulation",
    "bench",
    "objectives",
    "settings",
    "strategies",
)
"""Modules that hold verbs, in the order in which the help lists them."""


def build(modules: Iterable[str] = MODULES) -> typer.Typer:
    """The tree of the verbs of these modules. Cheap: the verbs import what they need when they run."""
    app = typer.Typer(
        name="pentad",
        help=overview.ABOUT,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_whole_program)
    for name in modules:
        importlib.import_module(f"{__package__}.{name}").register(app)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        importlib.import_module(f"{__package__}.settings").version()
        raise typer.Exit


def _whole_program(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Does nothing by itself: the verbs do."""


def _modules_of(words: list[str]) -> Iterable[str]:
    """What a command line needs of the tree: the module of its verb, or all to tell what else there is."""
    if words[:1] == ["--version"]:
        return ()
    verb = overview.verbs().get(words[0]) if words else None
    return MODULES if verb is None or "_PENTAD_COMPLETE" in os.environ else (verb.module,)


def main() -> None:
    """Runs the command line; never shows a traceback for an error that is the user's to mend."""
    os.umask(0o077)  # what is kept is its owner's alone
    if "_PENTAD_COMPLETE" in os.environ:
        completion_init()
    try:
        status = build(_modules_of(sys.argv[1:]))(prog_name="pentad", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except typer.TyperException as e:
        _show_usage_error(e)
        sys.exit(e.exit_code)
    except typer.Abort:
        note("aborted")
        sys.exit(1)
    except PentadError as e:
        show_error(e)
        sys.exit(e.exit_code)
    except BrokenPipeError:
        # The reader of a pipe went away; keep Python from complaining again while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as e:
        where = "" if e.filename is None else f" {e.filename!r}"
        hint = "check the path's rights and the disk; --home and --data-home choose other folders"
        show_error(PentadError(f"the system refuses{where}: {e.strerror or e}", hint=hint))
        sys.exit(PentadError.exit_code)
    except KeyboardInterrupt:
        note("interrupted")
        sys.exit(130)


def _show_usage_error(error: typer.TyperException) -> None:
    """A command line that does not parse, as every other error: one line, and where to look."""
    said = " ".join(error.format_message().split()).rstrip(".")
    if not said:  # no words at all were given: the help stands there already
        return
    context = getattr(error, "ctx", None)
    path = "pentad" if context is None else context.command_path
    show_error(PentadError(said[0].lower() + said[1:], hint=f"`{path} -h` shows what it takes"))
