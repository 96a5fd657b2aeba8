"""Every hint that the code can give, read from its source, with `…` where a value is filled in."""

from __future__ import annotations

import ast
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass

SOURCE = pathlib.Path(__file__).parent.parent / "src" / "pentad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """One text that may stand after an error."""

    where: str
    text: str


def every_hint() -> list[Hint]:
    """All hints of the package: keyword arguments `hint`, and what the functions and names in them say."""
    trees = {path: ast.parse(path.read_text("utf-8")) for path in sorted(SOURCE.rglob("*.py"))}
    own = {path: _constants(tree) for path, tree in trees.items()}
    shared = {name: value for constants in own.values() for name, value in constants.items()}
    found = []
    for path, tree in trees.items():
        constants = shared | own[path]
        functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        for node in ast.walk(tree):
            for value in _hints_of(node):
                where = f"{path.relative_to(SOURCE)}:{value.lineno}"
                found += [Hint(where=where, text=text) for text in _texts(value, constants, functions)]
    return found


def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    """The values of the module's names."""
    found: dict[str, ast.expr] = {}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            found |= {target.id: node.value for target in targets if isinstance(target, ast.Name)}
    return found


def _hints_of(node: ast.AST) -> Iterator[ast.expr]:
    """Values of keywords `hint`, and of names that end up in one."""
    if isinstance(node, ast.Call):
        yield from (keyword.value for keyword in node.keywords if keyword.arg == "hint")
    if isinstance(node, ast.Assign) and any(
        isinstance(target, ast.Name) and target.id in ("hint", "remedy") for target in node.targets
    ):
        yield node.value


def _texts(
    value: ast.expr, constants: dict[str, ast.expr], functions: dict[str, ast.FunctionDef]
) -> Iterator[str]:
    """The texts that an expression may become."""
    match value:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(str(p.value) if isinstance(p, ast.Constant) else "…" for p in parts)
        case ast.IfExp(body=a, orelse=b):
            yield from _texts(a, constants, functions)
            yield from _texts(b, constants, functions)
        case ast.BoolOp(values=parts):
            for part in parts:
                yield from _texts(part, constants, functions)
        case ast.Name(id=name) if name in constants:
            yield from _texts(constants[name], constants, {})
        case ast.Call(func=ast.Name(id=name)) if name in functions:
            for inner in ast.walk(functions[name]):
                if isinstance(inner, ast.Return) and inner.value is not None:
                    yield from _texts(inner.value, constants, {})
        case ast.Call(func=ast.Attribute(value=inner, attr="format")):
            yield from _texts(inner, constants, functions)
