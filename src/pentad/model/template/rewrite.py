"""Puts the meter into a template: loops, literals, concatenation, `in` and output call its filters."""

from __future__ import annotations

from typing import cast

from jinja2 import nodes

METERED, BUILT, WRITTEN, JOINED, SCANNED = "metered loop", "built value", "text out", "text join", "text scan"
"""Names of the filters put in. They hold a space, so that no template can name them itself."""


def rewrite(node: nodes.Node) -> None:
    """Changes the syntax tree below `node` in place, children first."""
    for child in list(node.iter_child_nodes()):
        rewrite(child)
    for name, value in node.iter_fields(exclude=("ctx",)):
        if isinstance(value, nodes.Node):
            setattr(node, name, _built(value))
        elif isinstance(value, list):
            setattr(node, name, [_built(v) if isinstance(v, nodes.Node) else v for v in value])
    if isinstance(node, nodes.For):
        node.iter = _through(node.iter, METERED)
    elif isinstance(node, nodes.Output):
        node.nodes = [_through(_literal(child), WRITTEN) for child in node.nodes]
    elif isinstance(node, nodes.Operand) and node.op in ("in", "notin"):
        node.expr = _through(node.expr, SCANNED)


def _built(node: nodes.Node) -> nodes.Node:
    """The node itself, or what builds the same value under the meter."""
    if isinstance(node, nodes.Concat):
        return _through(_through(nodes.List(node.nodes, lineno=node.lineno), BUILT), JOINED)
    if isinstance(node, (nodes.List, nodes.Dict)) or (isinstance(node, nodes.Tuple) and node.ctx == "load"):
        return _through(node, BUILT)
    return node


def _literal(node: nodes.Expr) -> nodes.Expr:
    return nodes.Const(node.data, lineno=node.lineno) if isinstance(node, nodes.TemplateData) else node


def _through(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(cast("nodes.Expr", node), name, [], [], None, None, lineno=node.lineno)
