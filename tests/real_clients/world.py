"""The world of a case: the gateway over its model, a folder to work in, and an environment of its own."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gateway_support import HashEmbedder, live, model_service
from pentad.application.services import Services
from pentad.execution.backend import Capabilities
from pentad.model.store import ModelStore
from pentad.testing.backends import ALL_FORMATS, ScriptedBackend
from process_support import home_with, serving
from real_clients.case import Case, Seen

PROGRAMS = pathlib.Path(__file__).parent / "programs"


def run(case: Case, home: pathlib.Path, *, under: pathlib.Path | None = None) -> Seen:
    """Serves the case's model and runs its program to the end, in a folder that is then gone but for `Seen`.

    Args:
        case: what to run.
        home: where its client is installed.
        under: where to make the folder; Codex has no sandbox with its home in the system's temporary one.

    Raises:
        subprocess.SubprocessError: the program failed, or took too long.
    """
    with tempfile.TemporaryDirectory(prefix="run-", dir=under) as scratch:
        folder = pathlib.Path(scratch)
        port = _free_port()
        origins = [origin.replace("{port}", port) for origin in case.origins]
        with served(case, folder / "pentad", origins) as (url, backend):
            work, own = folder / "work", folder / "home"
            work.mkdir()
            own.mkdir()
            places = {
                "url": url,
                "port": port,
                "home": home,
                "folder": work,
                "own": own,
                "programs": PROGRAMS,
            }
            for name, text in case.files.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(_placed(text, places))
            done = subprocess.run(
                [_placed(word, places) for word in case.command],
                env={"PATH": os.environ["PATH"], "HOME": str(own), "LANG": "C.UTF-8"}
                | {name: _placed(value, places) for name, value in case.environment.items()},
                cwd=work,
                capture_output=True,
                text=True,
                timeout=case.timeout_s,
                stdin=subprocess.DEVNULL,
                check=True,
            )
        files = {p.name: p.read_text() for p in work.iterdir() if p.is_file()}
        return Seen(said=_said(done.stdout), requests=backend.requests if backend else (), files=files)


@contextmanager
def served(
    case: Case, home: pathlib.Path, origins: Sequence[str]
) -> Iterator[tuple[str, ScriptedBackend | None]]:
    """The gateway's address, and the scripted model unless the case wants a real one."""
    if case.model:
        store = ModelStore()
        models = {name: pathlib.Path(store.resolve(name).path) for name in (case.model, "minilm")}
        with serving(home_with(home, models), case.model) as server:
            yield server.url, None
        return
    capabilities = Capabilities(model="scripted", context_length=case.context_tokens, formats=ALL_FORMATS)
    backend = ScriptedBackend(case.turns, capabilities=capabilities, repeat=True)
    services = Services(models=model_service(backend, embedders={"vectors": HashEmbedder()}))
    with live(services, backend=backend, allowed_origins=tuple(origins)) as server:
        yield server.url, backend


def _free_port() -> str:
    """A port that nobody listens on now, for a program's own server."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def _placed(text: str, places: dict[str, object]) -> str:
    for name, value in places.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def _said(output: str) -> object:
    """The last line if it is an object or a list in JSON, else the whole output."""
    lines = output.strip().splitlines()
    try:
        last = json.loads(lines[-1]) if lines else None
    except ValueError:
        return output
    return last if isinstance(last, (dict, list)) else output
