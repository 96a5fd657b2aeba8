"""Fixtures that several tests share."""

from cli_support import pentad_

__all__ = ["pentad_"]
