"""Clients installed once, each in a folder of its own outside the repository."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

from real_clients.case import Install

ROOT = pathlib.Path(os.environ.get("PENTAD_CLIENTS") or "~/.cache/pentad-clients").expanduser()
INSTALL_S = 1200.0


def ready(install: Install) -> pathlib.Path:
    """The client's folder, installed first if need be; what is whole is left alone.

    Raises:
        subprocess.CalledProcessError: the registry does not have it, or it did not install.
    """
    home = ROOT / install.name
    done = home / ".done"
    wanted = json.dumps([list(install.pip), list(install.npm)])
    if done.exists() and done.read_text() == wanted:
        return home
    home.mkdir(parents=True, exist_ok=True)
    print(f"installing {install.name} in {home}", file=sys.stderr)
    if install.pip:
        _run([sys.executable, "-m", "venv", str(home)], home)
        pip = [str(home / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        _run([*pip, *install.pip], home)
    if install.npm:
        _run(["npm", "install", "--no-fund", "--no-audit", "--prefix", str(home), *install.npm], home)
    done.write_text(wanted)
    return home


def version(install: Install) -> str:
    """The package and its version that is installed."""
    package = install.version_of or install.name
    home = ROOT / install.name
    if install.npm:
        found = json.loads((home / "node_modules" / package / "package.json").read_text())["version"]
        return f"{package} {found}"
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return f"{package} {_run([str(home / 'bin/python'), '-c', code], home).strip()}"


def _run(command: list[str], home: pathlib.Path) -> str:
    """What a command printed; its errors go to the folder's log and the terminal."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=INSTALL_S,
        cwd=home,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    (home / "install.log").write_text(done.stdout + done.stderr)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return done.stdout
