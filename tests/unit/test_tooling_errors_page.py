"""docs/errors.md: every code that an error has stands there, with its status and exit, and no other."""

from __future__ import annotations

import importlib
import pathlib
import re
from collections.abc import Iterator

from pentad.errors import PentadError

ROOT = pathlib.Path(__file__).parents[2]
_ROW = re.compile(r"^\| `(\w+)` \| (\d+) \| (\d) \|", re.MULTILINE)
_CODE = re.compile(r'^    code = "', re.MULTILINE)


def kinds(base: type[PentadError] = PentadError) -> Iterator[type[PentadError]]:
    yield base
    for kind in base.__subclasses__():
        yield from kinds(kind)


def test_the_page_lists_every_code_with_its_status_and_exit() -> None:
    source = ROOT / "src"
    for file in source.rglob("*.py"):
        if _CODE.search(file.read_text()):
            importlib.import_module(".".join(file.relative_to(source).with_suffix("").parts))
    ours = [kind for kind in kinds() if kind.__module__.startswith("pentad.")]
    page = (ROOT / "docs" / "errors.md").read_text()
    told = {code: (int(status), int(exit)) for code, status, exit in _ROW.findall(page)}
    assert told == {kind.code: (kind.status, kind.exit_code) for kind in ours}
