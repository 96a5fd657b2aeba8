"""The `pentad` command: verbs in Typer, imported and joined only when one runs."""

from pentad.application.cli.app import main

__all__ = ["main"]
