"""Where things are kept: data apart from caches, for their owner alone, and no place that cannot be used."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sqlite3

import pytest

from cli_support import Pentad
from pentad.application.config import Settings
from pentad.application.folders import use_data_home
from pentad.errors import Conflict


@pytest.fixture
def own(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A person's own folder without any setting."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("PENTAD_HOME", raising=False)
    return tmp_path


def written(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE t (x)")
        db.execute("INSERT INTO t VALUES (?)", (text,))


def read(path: pathlib.Path) -> str:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return str(db.execute("SELECT x FROM t").fetchone()[0])


def test_data_lie_in_the_xdg_folder_unless_home_or_data_home_says_otherwise(
    own: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Settings().journal_path == own / ".local/share/pentad/journal.sqlite3"
    monkeypatch.setenv("XDG_DATA_HOME", "/elsewhere")
    assert Settings().memory_path == pathlib.Path("/elsewhere/pentad/memory.db")
    assert Settings(home=pathlib.Path("/srv/p")).approvals_path.parent == pathlib.Path("/srv/p")
    both = Settings(home=pathlib.Path("/srv/p"), data_home=pathlib.Path("/srv/d"))
    assert (both.journal_path.parent, both.profile_path.parent) == (
        pathlib.Path("/srv/d"),
        pathlib.Path("/srv/p"),
    )


def test_data_of_the_old_place_are_moved_once_and_told(
    own: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = own / ".cache/pentad", own / ".local/share/pentad"
    written(old / "journal.sqlite3", "runs")
    written(old / "memory.db", "facts")
    (old / "mcp-approvals.json").write_text("{}")
    assert use_data_home(Settings()) == new
    assert "moved journal.sqlite3, memory.db, mcp-approvals.json from" in caplog.text
    assert (read(new / "journal.sqlite3"), read(new / "memory.db")) == ("runs", "facts")
    assert not any(old.iterdir())
    caplog.clear()
    use_data_home(Settings())
    assert not caplog.text


def test_data_in_use_are_not_moved(own: pathlib.Path) -> None:
    journal = own / ".cache/pentad/journal.sqlite3"
    written(journal, "runs")
    with contextlib.closing(sqlite3.connect(journal)) as db:
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(Conflict, match=r"cannot be moved .*--data-home"):
            use_data_home(Settings())
    assert read(journal) == "runs"


def test_home_and_data_are_their_owners_alone(
    own: pathlib.Path, pentad_: Pentad, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PENTAD_HOME")
    (own / ".cache/pentad").mkdir(parents=True)
    (own / ".cache/pentad").chmod(0o755)
    before = os.umask(0o022)
    try:
        assert pentad_("list").status == 0
        assert pentad_("runs", "list").status == 0
    finally:
        os.umask(before)
    for root in (own / ".cache/pentad", own / ".local/share/pentad"):
        assert root.stat().st_mode & 0o777 == 0o700
        for path in root.rglob("*"):
            assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize(
    "verb", [["list"], ["pull", "minilm"], ["runs", "list"], ["serve"], ["run", "m", "hi"]]
)
@pytest.mark.parametrize("place", ["file", "/proc/nowhere", "/proc/self"])
def test_a_home_that_cannot_be_used_is_named_with_the_remedy(
    pentad_: Pentad, tmp_path: pathlib.Path, verb: list[str], place: str
) -> None:
    (tmp_path / "file").write_text("no folder")
    home = place if place.startswith("/") else str(tmp_path / place)
    outcome = pentad_(*verb, "--home", home, *(["--port", "0"] if verb == ["serve"] else []))
    assert outcome.status == 2
    first, second = outcome.err.splitlines()
    assert first.startswith("error: ")
    assert home in first
    assert second.startswith("hint: set --")


def test_a_folder_that_others_can_read_is_told_by_the_doctor(pentad_: Pentad, tmp_path: pathlib.Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o755)
    assert f"data: others can read it: chmod 700 {data}" in pentad_("doctor", "--data-home", str(data)).err
