"""No module of the package can unpickle: a pickle is code, wherever its bytes come from."""

from __future__ import annotations

import ast
import pathlib

SOURCE = pathlib.Path(__file__).parents[2] / "src" / "pentad"
FORBIDDEN = {"pickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}


def test_no_module_imports_what_unpickles() -> None:
    found = []
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            found += [f"{file}:{node.lineno}" for name in names if name.partition(".")[0] in FORBIDDEN]
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), file
                assert node.value.value is False, file
    assert not found
