"""Runs the cases that are named, or all, and prints a table; see scripts/real_clients."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import httpx2

from gateway_support import live, model_service
from pentad.application.services import Services
from pentad.execution.backend import Capabilities
from pentad.testing.backends import ALL_FORMATS, ScriptedBackend
from process_support import home_with, serving
from real_clients import installs
from real_clients.case import Case, Seen
from real_clients.libraries import CASES as LIBRARIES

CASES = LIBRARIES
PROGRAMS = pathlib.Path(__file__).parent / "programs"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    client: str
    version: str
    model: str
    did: str
    outcome: str
    """`ok`, or `failed: ...` with the reason's first line."""


def main() -> int:
    """Exit status 1 when a case failed."""
    parser = argparse.ArgumentParser(prog="scripts/real_clients", description=__doc__)
    known = [case.name for case in CASES]
    parser.add_argument("names", nargs="*", metavar="CLIENT", help=f"of {', '.join(known)}; all if none")
    parser.add_argument("--out", type=pathlib.Path, help="add one line of JSON per client to this file")
    parser.add_argument("--verbose", action="store_true", help="show what a failed client printed")
    chosen = parser.parse_args()
    for name in chosen.names:
        if name not in known:
            parser.error(f"unknown client {name!r}; known: {', '.join(known)}")
    rows = []
    for case in CASES:
        if not chosen.names or case.name in chosen.names:
            rows.append(attempt(case, verbose=chosen.verbose))
            print(" | ".join((rows[-1].client, rows[-1].version, rows[-1].did, rows[-1].outcome)), flush=True)
    if chosen.out:
        with chosen.out.open("a") as out:
            out.writelines(json.dumps({"benchmark": "real_clients", **asdict(row)}) + "\n" for row in rows)
    return int(any(row.outcome != "ok" for row in rows))


def attempt(case: Case, *, verbose: bool = False) -> Row:
    """Installs, serves, runs and checks one case; whatever goes wrong is its outcome."""
    version, outcome = "-", "ok"
    try:
        home = installs.ready(case.install)
        version = installs.version(case.install)
        case.check(run(case, home))
    except (subprocess.SubprocessError, AssertionError, LookupError, TypeError) as e:
        outcome = f"failed: {_line(e)}"
        if verbose:
            print(getattr(e, "stdout", None) or "", getattr(e, "stderr", None) or e, file=sys.stderr)
    return Row(
        client=case.name,
        version=version,
        model=case.model or "scripted",
        did=case.did,
        outcome=outcome,
    )


def run(case: Case, home: pathlib.Path) -> Seen:
    """Serves the case's model and runs its program to the end, in a folder that is then gone but for `Seen`.

    Raises:
        subprocess.SubprocessError: the program failed, or took too long.
    """
    with tempfile.TemporaryDirectory(prefix="real-client-") as scratch:
        folder = pathlib.Path(scratch)
        with served(case, folder / "pentad") as (url, backend):
            work, own = folder / "work", folder / "home"
            work.mkdir()
            own.mkdir()
            places = {"url": url, "home": home, "folder": work, "own": own, "programs": PROGRAMS}
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
def served(case: Case, home: pathlib.Path) -> Iterator[tuple[str, ScriptedBackend | None]]:
    """The gateway's address, and the scripted model unless the case wants a real one."""
    if case.model:
        from pentad.model.store import ModelStore

        path = pathlib.Path(ModelStore().resolve(case.model).path)
        with serving(home_with(home, {case.model: path}), "--model", case.model) as server:
            yield server.url, None
        return
    capabilities = Capabilities(model="scripted", context_length=case.context_tokens, formats=ALL_FORMATS)
    backend = ScriptedBackend(case.turns, capabilities=capabilities, repeat=True)
    services = Services(models=model_service(backend))
    with live(services, backend=backend, allowed_origins=tuple(case.origins)) as server:
        httpx2.get(f"{server.url}/readyz").raise_for_status()
        yield server.url, backend


def _placed(text: str, places: dict[str, object]) -> str:
    for name, value in places.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def _said(output: str) -> object:
    """The last line as JSON, else the whole output."""
    lines = output.strip().splitlines()
    try:
        return json.loads(lines[-1]) if lines else ""
    except ValueError:
        return output


def _line(error: Exception) -> str:
    """The last line of what a program complained about, else the error's first."""
    said = getattr(error, "stderr", None)
    if isinstance(said, bytes):
        said = said.decode(errors="replace")
    lines = (said or "").strip().splitlines()[-1:] or str(error).splitlines() or [type(error).__name__]
    return lines[0][:300]


if __name__ == "__main__":
    sys.exit(main())
