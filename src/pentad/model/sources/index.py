"""Which Python package index to ask, in the words of pip's own settings."""

from __future__ import annotations

import configparser
import os
import pathlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from pypi_simple import PYPI_SIMPLE_ENDPOINT


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """Where packages are looked up. Raises nothing: unreadable pip files are skipped, as pip does."""

    urls: tuple[str, ...]
    """Index first, then the extra ones; only those reached over HTTP."""
    certificates: str | None = None
    """A bundle of trusted certificates; None leaves it to the environment."""


def index_settings(environment: Mapping[str, str] = os.environ) -> IndexSettings:
    """pip's settings: PIP_* variables before its configuration files, its default index last."""
    options = _from_files(environment)
    for name in ("index-url", "extra-index-url", "cert"):
        variable = "PIP_" + name.upper().replace("-", "_")
        if environment.get(variable):
            options[name] = environment[variable]
    urls = [options.get("index-url") or PYPI_SIMPLE_ENDPOINT, *options.get("extra-index-url", "").split()]
    return IndexSettings(
        urls=tuple(dict.fromkeys(u for u in urls if u.startswith(("https://", "http://")))),
        certificates=options.get("cert") or None,
    )


def _from_files(environment: Mapping[str, str]) -> dict[str, str]:
    """Options of all pip configuration files; later files win, as in pip."""
    named = environment.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return {}
    home = pathlib.Path(environment.get("HOME", "/nonexistent"))
    system = environment.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")
    files = [pathlib.Path(folder) / "pip" / "pip.conf" for folder in system if folder]
    files += [
        pathlib.Path("/etc/pip.conf"),
        home / ".pip" / "pip.conf",
        pathlib.Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf",
        pathlib.Path(sys.prefix) / "pip.conf",
    ]
    files += [pathlib.Path(named)] if named else []
    options: dict[str, str] = {}
    for file in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (OSError, configparser.Error, UnicodeDecodeError):
            continue
        for section in ("global", "download", "install"):
            if parser.has_section(section):
                options.update(parser.items(section))
    return options
