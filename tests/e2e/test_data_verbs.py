"""The verbs of data: remove, prune, export, memory, backup and restore."""

from __future__ import annotations

import asyncio
import json
import pathlib
import tarfile

import pytest

from agent_support import harness, run, spec
from cli_support import Pentad
from pentad.agent.journal import Journal
from pentad.agent.memory.base import Item, Scope
from pentad.agent.memory.store import LongTerm
from pentad.application.config import JOURNAL_FILE, MEMORY_FILE
from pentad.testing.agents import scripted_models

JOURNAL = {"journal": JOURNAL_FILE}


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def worked(home: pathlib.Path, *answers: str, **options: float) -> list[str]:
    """Ids of ended runs with these answers."""

    async def scenario() -> list[str]:
        wall = {"wall": lambda: options["at_s"]} if options else {}
        async with harness(home, [[a] for a in answers], journal=JOURNAL_FILE, **wall) as h:
            return [(await h.work(spec(), f"say {a}")).run_id for a in answers]

    return run(scenario())


def remembered(home: pathlib.Path, *texts: str) -> list[str]:
    models, _ = scripted_models([], embedder=True)
    memory = LongTerm(home / MEMORY_FILE, models, embedder="words")
    ids = [run(memory.write(Item(text=text), Scope())) for text in texts]
    memory.close()
    return ids


def listed(pentad_: Pentad) -> set[str]:
    return {row["id"] for row in json.loads(pentad_("runs", "list", "--json").out)}


def test_removed_runs_are_gone_and_others_stay(pentad_: Pentad, home: pathlib.Path) -> None:
    first, second = worked(home, "one", "two")
    asked = pentad_("runs", "rm", first)
    assert asked.status == 2
    assert "set --yes" in asked.err
    assert json.loads(pentad_("runs", "rm", first, "--yes", "--json").out) == {"removed": [first]}
    assert listed(pentad_) == {second}
    again = pentad_("runs", "rm", first, "--yes")
    assert again.status == 2
    assert f"no run '{first}'" in again.err


def test_pruning_takes_what_ended_long_ago(pentad_: Pentad, home: pathlib.Path) -> None:
    old = worked(home, "old", at_s=1_700_000_000.0)
    new = worked(home, "new")
    shown = pentad_("runs", "prune", "--days", "30", "--dry-run", "--json")
    assert json.loads(shown.out) == {"would_be_removed": old}
    assert listed(pentad_) == {*old, *new}
    assert pentad_("runs", "prune", "--days", "30", "--yes").out.split() == old
    assert listed(pentad_) == {*new}
    assert "0 removed" in pentad_("runs", "prune", "--days", "30").err


def test_runs_are_exported_whole_as_json_lines(
    pentad_: Pentad, home: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    ids = worked(home, "one", "two")
    assert pentad_("runs", "export", "--output", "runs.jsonl").status == 0
    path = tmp_path / "runs.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["run_id"] for line in lines] == ids
    assert "say one" in json.dumps(lines[0]["events"][0])
    assert "say two" in lines[1]["prompts"][0]["text"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert pentad_("runs", "export", "--output", "runs.jsonl").status == 1
    assert [json.loads(line)["run_id"] for line in pentad_("runs", "export", ids[1]).out.splitlines()] == ids[
        1:
    ]


def test_memory_is_listed_exported_and_forgotten(pentad_: Pentad, home: pathlib.Path) -> None:
    assert json.loads(pentad_("memory", "list", "--json").out) == []
    tea, rain = remembered(home, "Mia likes tea", "rain on Monday")
    assert {row["id"] for row in json.loads(pentad_("memory", "list", "--json").out)} == {tea, rain}
    assert json.loads(pentad_("memory", "forget", tea, "--yes", "--json").out) == {"forgotten": [tea]}
    (line,) = pentad_("memory", "export").out.splitlines()
    assert json.loads(line)["text"] == "rain on Monday"
    missing = pentad_("memory", "forget", "nope", "--yes")
    assert missing.status == 2
    assert "pentad memory list" in missing.err


def test_a_memory_is_forgotten_with_the_runs_that_told_it(pentad_: Pentad, home: pathlib.Path) -> None:
    told, other = worked(home, "Mia likes tea", "rain")
    (tea,) = remembered(home, "Mia likes tea")
    gone = json.loads(pentad_("memory", "forget", tea, "--with-runs", "--yes", "--json").out)
    assert gone == {"forgotten": [tea], "removed": [told]}
    assert listed(pentad_) == {other}
    assert not any(b"Mia likes tea" in path.read_bytes() for path in home.iterdir())


def test_memory_is_searched_with_the_embedding_model(
    pentad_: Pentad, home: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from pentad.application.cli import recollection
    from pentad.testing.agents import WordEmbedder

    tea, _ = remembered(home, "Mia likes tea", "rain on Monday")
    stored = SimpleNamespace(resolve=lambda _: SimpleNamespace(path=home, name="words"))
    monkeypatch.setattr(recollection, "ModelStore", lambda _: stored)
    monkeypatch.setattr(recollection.LocalEmbedder, "open", lambda *_, **__: WordEmbedder())
    found = json.loads(pentad_("memory", "search", "what does Mia like", "--limit", "1", "--json").out)
    assert [item["id"] for item in found] == [tea]
    by = pentad_("memory", "correct", tea, "Mia likes milk").out.strip()
    found = json.loads(pentad_("memory", "search", "what does Mia like", "--limit", "1", "--json").out)
    assert [(item["id"], item["text"]) for item in found] == [(by, "Mia likes milk")]
    lost = pentad_("memory", "correct", "nope", "x")
    assert (lost.status, "no memory 'nope'" in lost.err) == (2, True)
    off = pentad_("memory", "search", "tea", "--embedding-model", "null")
    assert off.status == 2
    assert "set --embedding-model" in off.err


def test_a_backup_made_while_serving_comes_back_whole(
    pentad_: Pentad, home: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tea,) = remembered(home, "Mia likes tea")
    left = ""

    async def serving() -> list[str]:
        nonlocal left
        never = asyncio.Event()
        async with harness(home, [["one"], ["on", never]], journal=JOURNAL_FILE) as h:
            ended = (await h.work(spec(), "say one")).run_id
            left = await h.runtime.start(spec(), "never ends")
            async for record in h.runtime.events(left):
                if record.live:
                    break
            done = await asyncio.to_thread(pentad_, "backup", "kept.tar")
            assert done.status == 0, done.err
            refused = await asyncio.to_thread(pentad_, "restore", "kept.tar", "--replace")
            assert refused.status == 1
            assert "in use by another process" in refused.err
            return [ended, left]

    ids = run(serving())
    assert (tmp_path / "kept.tar").stat().st_mode & 0o777 == 0o600
    there = pentad_("restore", "kept.tar")
    assert there.status == 1
    assert "set --replace" in there.err
    other = str(tmp_path / "other")
    told = pentad_("restore", "kept.tar", "--data-home", other, "--json")
    assert json.loads(told.out)["unfinished"] == [left]
    rows = json.loads(pentad_("runs", "list", "--data-home", other, "--json").out)
    assert {row["id"] for row in rows} == set(ids)
    (memory,) = pentad_("memory", "export", "--data-home", other).out.splitlines()
    assert json.loads(memory)["id"] == tea

    async def nobody_goes_on() -> None:
        async with harness(tmp_path / "other", [["done"]], journal=JOURNAL_FILE) as h:
            assert await h.runtime.resume_all() == []
            await h.runtime.resume(left)
            assert (await h.runtime.wait(left)).answer == "done"

    run(nobody_goes_on())


@pytest.mark.parametrize("harm", ["cut", "changed", "none", "stranger"])
def test_what_is_no_whole_backup_changes_nothing(
    pentad_: Pentad, home: pathlib.Path, tmp_path: pathlib.Path, harm: str
) -> None:
    (kept,) = worked(home, "one")
    assert pentad_("backup", "kept.tar").status == 0
    path = tmp_path / "kept.tar"
    data = path.read_bytes()
    if harm == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif harm == "changed":
        path.write_bytes(data.replace(b"say one", b"say two"))
    elif harm == "none":
        path.write_bytes(b"no tar")
    else:
        with tarfile.open(path, "w") as tar:
            (tmp_path / "manifest.json").write_text('{"format": 1, "files": {"../evil": {"sha256": ""}}}')
            tar.add(tmp_path / "manifest.json", arcname="manifest.json")
    outcome = pentad_("restore", "kept.tar", "--replace")
    assert outcome.status == 2
    assert "is no whole backup" in outcome.err
    journal = Journal(home / JOURNAL_FILE)
    assert journal.check_integrity() == []
    assert [row.id for row in journal.runs()] == [kept]
    journal.close()
    assert not [p for p in home.iterdir() if p.name.startswith(".pentad")]
