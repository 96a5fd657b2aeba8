"""Model families: from a published config and tensor names to a ModelSpec and canonical weights."""

from __future__ import annotations

from collections.abc import Callable

from pentad import registry
from pentad.errors import BadModelFile
from pentad.model.families.base import Family
from pentad.model.families.harmless import PAGE


def family_of(architecture: str, source: str, unlike: Callable[[], str] | None = None) -> Family:
    """The family that reads `architecture` (`general.architecture` or `model_type`).

    Args:
        unlike: tells what of the model no family knows, for the error; see nearest.py.

    Raises BadModelFile naming that part and the known architectures.
    """
    known = registry.known("model_family")
    if architecture not in known:
        part = "" if unlike is None else f": {unlike()}"
        raise BadModelFile(
            f"{source!r} has the unknown architecture {architecture!r}{part}",
            hint=f"known architectures: {', '.join(known)}; how one is added: {PAGE}",
        )
    family: Family = registry.load("model_family", architecture)
    return family
