"""read_yaml: a YAML text to plain values, without what YAML lets a text hide."""

from __future__ import annotations

from typing import Any

import yaml

MAX_NODES = 20_000
"""Values that a text may stand for, with every alias and merge written out."""
MAX_DEPTH = 64

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(text: str) -> Any:
    """The value that the text stands for; None for an empty one.

    Anchors and merges are allowed as long as what they stand for is finite and small.

    Raises:
        ValueError: in one line with its place: no YAML, a key twice in one mapping, a value that
            holds itself, or one that grows beyond `MAX_NODES` values or `MAX_DEPTH` levels.
    """
    loader = _Loader(text)
    try:
        _check_depth(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _Measure().size(node, 0)
        return loader.construct_document(node)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split()) or "nested too deeply") from None
    finally:
        loader.dispose()


def _check_depth(text: str) -> None:
    """Refuses by events what a recursive composer, which may be written in C, would not survive."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"{_at(event)}: nested deeper than {MAX_DEPTH} levels")
        if count > 3 * MAX_NODES:
            raise ValueError(f"{_at(event)}: more than {MAX_NODES} values")


class _Measure:
    """Counts what a node stands for before anything is built of it."""

    def __init__(self) -> None:
        self._sizes: dict[int, tuple[int, int]] = {}
        """Values and levels below each node that has been counted."""
        self._open: set[int] = set()

    def size(self, node: Any, depth: int) -> tuple[int, int]:
        known = self._sizes.get(id(node))
        if known is None:
            if id(node) in self._open:
                raise ValueError(f"{_at(node)}: the value holds itself")
            self._open.add(id(node))
            known = self._sizes[id(node)] = self._counted(node, depth)
            self._open.discard(id(node))
        count, levels = known
        if depth + levels > MAX_DEPTH:
            raise ValueError(f"{_at(node)}: nested deeper than {MAX_DEPTH} levels")
        if count > MAX_NODES:
            raise ValueError(f"{_at(node)}: its aliases stand for more than {MAX_NODES} values")
        return known

    def _counted(self, node: Any, depth: int) -> tuple[int, int]:
        count, levels = 1, 0
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
        for child in _children(node):
            more, below = self.size(child, depth + 1)
            count, levels = count + more, max(levels, below + 1)
        return count, levels


def _children(node: Any) -> list[Any]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _check_keys(node: Any) -> None:
    seen: dict[tuple[str, str], Any] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        before = seen.setdefault((key.tag, key.value), key)
        if before is not key:
            line = before.start_mark.line + 1
            raise ValueError(f"{_at(key)}: the key {key.value[:80]!r} stands already in line {line}")


def _at(node: Any) -> str:
    return f"line {node.start_mark.line + 1}, column {node.start_mark.column + 1}"
