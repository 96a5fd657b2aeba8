"""The command tree and its entry: exit 0 done, 1 failed, 2 usage, 3 infeasible."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable
from typing import Any

import typer
from typer.completion import completion_init  # type: ignore[attr-defined]

from pentad.application.cli import (
    agents,
    bench,
    compress,
    data,
    demo,
    evaluation,
    machine,
    memories,
    models,
    runs,
    serving,
    settings,
    simulation,
    strategies,
    train,
)
from pentad.application.cli.output import note, show_error
from pentad.errors import PentadError

_OVERVIEW: tuple[list[str], ...] = ([], ["-h"], ["--help"])
"""Command lines that ask for nothing but the list of verbs."""


def build(*, outline: bool = False) -> typer.Typer:
    """The whole tree of verbs. Cheap: the verbs import what they need when they run.

    With `outline` no verb has its flags: enough to list them, in half the time.
    """
    app = typer.Typer(
        name="pentad",
        help="Agent services on foundation models, in five layers, on whatever machines you have.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for module in (
        demo,
        serving,
        models,
        compress,
        train,
        agents,
        runs,
        evaluation,
        memories,
        data,
        machine,
        simulation,
        bench,
        settings,
        strategies,
    ):
        module.register(app)
    if outline:
        groups = [info.typer_instance for info in app.registered_groups if info.typer_instance]
        for command in (command for group in (app, *groups) for command in group.registered_commands):
            command.callback = _without_flags(command.callback)
    return app


def _without_flags(verb: Callable[..., Any] | None) -> Callable[[], None]:
    """Stands for a verb in the list of verbs: its name and its help."""

    def listed() -> None:
        """Never called: this command line only lists."""

    listed.__name__, listed.__doc__ = getattr(verb, "__name__", "listed"), getattr(verb, "__doc__", None)
    return listed


def _spare_imports() -> None:
    """Keeps the list of verbs from loading a parser of Markdown and a printer of tracebacks.

    typer's help imports both whatever it shows, which takes a third of the time until the list stands there.
    """
    for module, name in (("rich.markdown", "Markdown"), ("rich.traceback", "Traceback")):
        stand_in = types.ModuleType(module)
        setattr(stand_in, name, object)
        sys.modules.setdefault(module, stand_in)


def main() -> None:
    """Runs the command line; never shows a traceback for an error that is the user's to mend."""
    os.umask(0o077)  # what is kept is its owner's alone
    if "_PENTAD_COMPLETE" in os.environ:
        completion_init()
    try:
        outline = sys.argv[1:] in _OVERVIEW
        if outline:
            _spare_imports()
        status = build(outline=outline)(prog_name="pentad", standalone_mode=False)
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
