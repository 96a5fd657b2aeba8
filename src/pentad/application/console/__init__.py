"""The console: one page, built into the package, that needs nothing from outside."""

from pentad.application.console.pages import routes

__all__ = ["routes"]
