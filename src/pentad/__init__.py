"""Pentad: agent services on foundation models, in five layers."""

__version__ = "0.1.0"
