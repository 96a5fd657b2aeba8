"""From a reference to the source that serves it, and to the name that its model gets."""

from __future__ import annotations

import pathlib
import re

from pentad import registry
from pentad.model.sources.base import HubRef, PathRef, PypiRef, Ref, Source


def source_of(ref: Ref) -> Source:
    """The source of a reference; its libraries are imported now."""
    source: Source = registry.load("model_source", _scheme(ref))(ref=ref)
    return source


def name_of(ref: Ref) -> str:
    """A model name made from a reference: lower-case, fit for a file name."""
    match ref:
        case PypiRef():
            text = ref.package
        case HubRef():
            text = pathlib.PurePosixPath(ref.file).stem if ref.file else ref.repo.split("/")[1]
        case PathRef():
            text = ref.path.absolute().name if ref.path.is_dir() else ref.path.stem
    name = re.sub(r"[^a-z0-9._-]+|\.\.+", "-", text.lower()).strip("._-")
    return name[:100] or "model"


def _scheme(ref: Ref) -> str:
    match ref:
        case PypiRef():
            return "pypi"
        case HubRef():
            return "hf"
        case PathRef():
            return "path"
