"""The console: one page, built into the package, that needs nothing from outside."""

from pentad.application.console.pages import is_page, routes

__all__ = ["is_page", "routes"]
