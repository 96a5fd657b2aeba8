"""AdapterDesk: where adapters of a loaded model are handed in and taken out, in its engine's process.

gateway's process                 engine's process
RemoteDesk.put() -- Question -->  DeskHost.answer() -> LocalDesk.put() -> the runner's adapters
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from pentad.errors import Incompatible
from pentad.execution.adapters import Adapters, adapters_of
from pentad.execution.request import Constraint, Watcher
from pentad.execution.worker.server import GuideHost
from pentad.model.adapters import open_adapter
from pentad.model.loading import ModelFiles

_MARK: Final = b"\xc1"
"""What a question for the desk begins with; no MessagePack does."""


class AdapterDesk(Protocol):
    """The adapters of one loaded model. Any thread may call; calls block."""

    def put(self, name: str, path: str) -> str:
        """Reads an adapter and takes it from the next step on; returns its key.

        Raises:
            BadModelFile, Incompatible: as `open_adapter` does, or a runner without room for any.
        """
        ...

    def drop(self, key: str) -> None:
        """Gives an adapter's memory back; no request may still have it."""
        ...


class LocalDesk:
    """The desk of an engine in this process.

    Args:
        runner: that computes the model.
        files: of the model; may be closed.
    """

    def __init__(self, runner: Any, files: ModelFiles) -> None:
        self._runner = runner
        self._files = files

    def put(self, name: str, path: str) -> str:
        """See AdapterDesk."""
        room = self._room()
        adapter = open_adapter(path, name=name, base=self._files)
        room.put(adapter)
        return adapter.key

    def drop(self, key: str) -> None:
        """See AdapterDesk."""
        self._room().drop(key)

    def _room(self) -> Adapters:
        room = adapters_of(self._runner)
        if room is None:
            raise Incompatible(
                f"model {self._files.name!r} was loaded without room for adapters",
                hint="with PyTorch name one in engine.adapters at the start; it must have plain layers",
                param="lora_name",
            )
        return room


class _Call(msgspec.Struct, frozen=True, array_like=True):
    what: str
    """Name of the adapter, or the key of one to drop."""
    path: str | None = None
    """None: it is dropped."""


class RemoteDesk:
    """The desk of an engine in another process.

    Args:
        ask: has a DeskHost answer there. Blocks.
    """

    def __init__(self, ask: Callable[[bytes], bytes]) -> None:
        self._ask = ask

    def put(self, name: str, path: str) -> str:
        """See AdapterDesk."""
        return self._ask(_MARK + msgspec.msgpack.encode(_Call(name, path))).decode()

    def drop(self, key: str) -> None:
        """See AdapterDesk."""
        self._ask(_MARK + msgspec.msgpack.encode(_Call(key)))


class DeskHost:
    """A GuideHost that has a desk beside it.

    Args:
        host: answers all other questions.
    """

    def __init__(self, host: GuideHost, desk: AdapterDesk) -> None:
        self._host = host
        self._desk = desk

    def constraint(self, guide: bytes, generated: tuple[int, ...]) -> Constraint:
        """See GuideHost."""
        return self._host.constraint(guide, generated)

    def watcher(self, guide: bytes, generated: tuple[int, ...]) -> Watcher:
        """See GuideHost."""
        return self._host.watcher(guide, generated)

    def answer(self, question: bytes) -> bytes:
        """See GuideHost."""
        if not question.startswith(_MARK):
            return self._host.answer(question)
        call = msgspec.msgpack.decode(question[1:], type=_Call)
        if call.path is None:
            self._desk.drop(call.what)
            return b""
        return self._desk.put(call.what, call.path).encode()
