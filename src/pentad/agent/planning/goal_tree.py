"""A tree of goals, folded from the answers that expanded its nodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pentad.agent.planning.thoughts import labelled
from pentad.agent.state import RunState
from pentad.json_text import parse_json

_EXPANDS = "expand "
ROOT = "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A goal, and the sub-goals that it was expanded into."""

    path: str
    """`0` is the whole goal, `0.2` its second sub-goal."""
    task: str
    tool: str = ""
    """The tool that does it; empty where it is to be expanded."""
    shows: str = ""
    """What the tool's result must contain."""
    children: tuple[Node, ...] = ()

    @property
    def depth(self) -> int:
        """0 of the whole goal."""
        return self.path.count(".")

    @property
    def leaf(self) -> bool:
        """Whether a tool does it."""
        return bool(self.tool)

    def walk(self) -> Iterator[Node]:
        """It and all below it, in the order in which they are done."""
        yield self
        for child in self.children:
            yield from child.walk()


def label_of(path: str) -> str:
    """The label of the thought that expands the node."""
    return f"{_EXPANDS}{path}"


def path_of(label: str) -> str:
    """The node that a thought of that label expands."""
    return label.removeprefix(_EXPANDS)


def sub_goals(text: str, path: str) -> tuple[Node, ...]:
    """The sub-goals that an expansion names. Raises ValueError, TypeError or KeyError for another form."""
    items: Any = parse_json(text)["sub_goals"]
    return tuple(
        Node(path=f"{path}.{n}", task=str(i["task"]), tool=str(i["tool"]), shows=str(i["shows"]))
        for n, i in enumerate(items, 1)
    )


def goal_tree(state: RunState) -> Node:
    """The tree as far as it has been expanded."""

    def grown(node: Node) -> Node:
        made = labelled(state, label_of(node.path))
        if node.leaf or not made:
            return node
        children = tuple(grown(child) for child in sub_goals(made[-1].text, node.path))
        return Node(path=node.path, task=node.task, children=children)

    return grown(Node(path=ROOT, task=state.goal))


def to_expand(root: Node) -> tuple[Node, ...]:
    """The nodes that are next: of the highest level that has any, for a node is expanded after its parent."""
    still = [node for node in root.walk() if not node.leaf and not node.children]
    level = min((node.depth for node in still), default=0)
    return tuple(node for node in still if node.depth == level)
