"""Objective files: service classes as the settings have them, and the load of each."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pentad.errors import InvalidRequest
from pentad.resource.service_classes import ServiceClass
from pentad.resource.simulator.class_mix import ClassLoad
from pentad.yaml_text import read_yaml

_FORM = "write `service_classes` as the settings have them; docs/objectives.md shows a whole file"


def read_objectives(path: pathlib.Path) -> tuple[tuple[ServiceClass, ...], dict[str, ClassLoad]]:
    """Classes and loads of a YAML file; of a settings file, what its `server` section promises.

    Raises InvalidRequest with the place and what to write.
    """
    try:
        value = read_yaml(path.read_text("utf-8"))
    except OSError as error:
        raise _wrong(path, str(error.strerror)) from None
    except ValueError as error:
        raise _wrong(path, str(error)) from None
    if not isinstance(value, Mapping):
        raise _wrong(path, "it holds no mapping")
    server = value.get("server")
    section = server if isinstance(server, Mapping) and "service_classes" in server else value
    try:
        classes = TypeAdapter(tuple[ServiceClass, ...]).validate_python(section.get("service_classes") or ())
        loads = TypeAdapter(dict[str, ClassLoad]).validate_python(value.get("loads") or {})
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise _wrong(path, f"{'.'.join(map(str, found['loc']))}: {found['msg']}") from None
    except InvalidRequest as error:
        raise _wrong(path, str(error.message)) from None
    names = [one.name for one in classes]
    if not names:
        raise _wrong(path, "it has no service_classes")
    if len(set(names)) < len(names):
        raise _wrong(path, f"service_classes names one twice: {', '.join(names)}")
    if unknown := loads.keys() - set(names):
        raise _wrong(path, f"loads has {min(unknown)!r}, which is no class; classes are {', '.join(names)}")
    return classes, loads


def _wrong(path: pathlib.Path, told: Any) -> InvalidRequest:
    return InvalidRequest(f"{path}: {told}", hint=_FORM, param="file")
