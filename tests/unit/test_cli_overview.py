"""The list of verbs: drawn without the command tree, and always what the tree has."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from cli_support import Pentad
from pentad.application.cli import overview
from pentad.application.cli.app import MODULES, build


def test_the_kept_list_is_that_of_the_tree() -> None:
    tree = typer.main.get_command(build()).commands  # type: ignore[attr-defined]
    found = overview.verbs()
    assert set(found) == set(tree)
    for name, verb in found.items():
        assert verb.panel == ("" if tree[name].hidden else tree[name].rich_help_panel), name
        assert verb.help == " ".join(tree[name].get_short_help_str(limit=400).split()), name


def test_each_verb_is_made_by_the_module_that_is_named() -> None:
    assert {verb.module for verb in overview.verbs().values()} == set(MODULES)
    for name, verb in overview.verbs().items():
        assert name in typer.main.get_command(build([verb.module])).commands  # type: ignore[attr-defined]


def test_it_shows_every_verb_but_hidden_ones_under_its_heading() -> None:
    drawn = overview.drawn(columns=90, colour=False)
    for name, verb in overview.verbs().items():
        assert (f"│ {name} " in drawn) == bool(verb.panel)
        assert not verb.panel or f"╭─ {verb.panel} ─" in drawn


@pytest.mark.parametrize("columns", [10, 41, 80, 300])
def test_no_line_is_wider_than_the_terminal_and_boxes_are_straight(columns: int) -> None:
    lines = overview.drawn(columns=columns, colour=False).splitlines()
    assert max(map(len, lines)) <= max(columns, 40)
    boxed = {len(line) for line in lines if line and line[0] in "╭│╰"}
    assert len(boxed) == 1


def test_colour_adds_no_words() -> None:
    assert "\x1b[" in overview.drawn(columns=80, colour=True)
    assert "\x1b[" not in overview.drawn(columns=80, colour=False)


def test_neither_typer_nor_rich_is_loaded_for_it() -> None:
    code = (
        "import sys; sys.argv = ['pentad', '--help']\n"
        "from pentad.application.cli import main\n"
        "try: main()\n"
        "except SystemExit as e: assert e.code == 0\n"
        "assert not {'typer', 'rich', 'click'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "serve" in done.stdout


def test_a_terminal_without_unicode_gets_plain_lines() -> None:
    code = "from pentad.application.cli import overview; overview.show()"
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment)
    assert b"+- Models -" in done.stdout
    assert done.stdout.isascii()


def test_a_verb_that_is_not_listed_yet_is_still_found(
    monkeypatch: pytest.MonkeyPatch, pentad_: Pentad
) -> None:
    monkeypatch.setattr(overview, "verbs", dict)
    assert pentad_("version").status == 0
