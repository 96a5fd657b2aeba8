"""JournalSaver: LangGraph's checkpointer over the journal's database.

Source: LangGraph's `BaseCheckpointSaver` (langgraph-checkpoint 4). Ours differs in that rows are sealed,
each write is on the disk before it is acknowledged, and pruning keeps what delta channels still need.
"""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Self, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from pentad.agent.langgraph.tables import CheckpointTables, Place, StoredCheckpoint, StoredWrite
from pentad.errors import InvalidRequest

_ABSENT = "empty"
"""The kind of a value that a channel lost at a version."""


class JournalSaver(BaseCheckpointSaver[str]):
    """Keeps a graph's checkpoints where Pentad keeps its runs. A context manager.

    The asynchronous methods do their work in a thread. Raises JournalDamaged for rows that were
    changed by others, Unavailable when the file cannot be used.

    Args:
        path: the journal's file, for instance `~/.local/share/pentad/journal.db`; made if it is not there.
        serde: in place of LangGraph's JSON and MessagePack serializer.
    """

    def __init__(self, path: pathlib.Path | str, *, serde: SerializerProtocol | None = None) -> None:
        super().__init__(serde=serde)
        self._tables = CheckpointTables(path)

    def close(self) -> None:
        """Lets go of the file."""
        self._tables.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get_next_version(self, current: str | None, channel: None) -> str:  # noqa: ARG002
        """Versions that sort as texts: a number, zero-padded."""
        number = int(str(current).partition(".")[0]) if current is not None else 0
        return f"{number + 1:032}"

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Keeps a checkpoint and the values that are new in it: all or nothing."""
        thread, namespace, parent = _asked(config)
        place = (thread, namespace, checkpoint["id"])
        state: dict[str, Any] = dict(checkpoint)
        values = state.pop("channel_values")
        whole = get_checkpoint_metadata(config, metadata)
        stored = StoredCheckpoint(
            place=place,
            parent=parent,
            run_id=whole.get("run_id"),
            state=self.serde.dumps_typed(state),
            metadata=self.serde.dumps_typed(whole),
        )
        with self._tables.writing():
            for channel, version in new_versions.items():
                typed = self.serde.dumps_typed(values[channel]) if channel in values else (_ABSENT, b"")
                self._tables.put_value(place, channel, version, typed)
            self._tables.put(stored)
        return _config(place)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Keeps what a task wrote. Repeating it changes nothing, but for errors and interrupts."""
        thread, namespace, id_ = _asked(config)
        if id_ is None:
            raise InvalidRequest("writes belong to a checkpoint", hint="name the checkpoint in configurable")
        with self._tables.writing():
            for index, (channel, value) in enumerate(writes):
                write = StoredWrite(
                    task=task_id,
                    number=WRITES_IDX_MAP.get(channel, index),
                    path=task_path,
                    channel=channel,
                    value=self.serde.dumps_typed(value),
                )
                self._tables.put_write((thread, namespace, id_), write, replace=write.number < 0)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that is asked for, or the thread's latest."""
        thread, namespace, id_ = _asked(config)
        if id_ is None:
            found = self._tables.find(thread, namespace, before=None)
            if not found:
                return None
            id_ = found[0][2]
        return self._loaded((thread, namespace, id_))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """The checkpoints of a thread, or of all, the latest first.

        Args:
            filter: metadata that they have. before: only those earlier than its checkpoint.
        """
        asked = config["configurable"] if config else {}
        wanted = get_checkpoint_id(config) if config else None
        earlier = get_checkpoint_id(before) if before else None
        left = limit
        places = self._tables.find(asked.get("thread_id"), asked.get("checkpoint_ns"), before=earlier)
        for place in places:
            if left is not None and left <= 0:
                return
            if wanted and place[2] != wanted:
                continue
            found = self._loaded(place)
            if found is None or not _has(found.metadata, filter or {}):
                continue
            left = None if left is None else left - 1
            yield found

    def delete_thread(self, thread_id: str) -> None:
        """Removes all checkpoints, values and writes of a thread."""
        with self._tables.writing():
            self._tables.remove_thread(thread_id)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Removes the checkpoints that runs of graphs made, with their writes."""
        with self._tables.writing():
            self._tables.remove(self._tables.of_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copies a thread with its whole history."""
        with self._tables.writing():
            self._tables.copy(source_thread_id, target_thread_id)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Keeps the latest checkpoint of each namespace (`keep_latest`), or nothing (`delete`).

        Ancestors that the latest still needs to build delta channels stay with it.
        """
        if strategy not in ("keep_latest", "delete"):
            raise InvalidRequest(
                f"no strategy {strategy!r:.100}",
                hint="take one that LangGraph names",
            )
        with self._tables.writing():
            for thread in thread_ids:
                if strategy == "delete":
                    self._tables.remove_thread(thread)
                else:
                    self._keep_latest(thread)

    def _keep_latest(self, thread: str) -> None:
        seen: set[str] = set()
        kept: set[Place] = set()
        places = self._tables.find(thread, None, before=None)
        for place in places:
            if place[1] not in seen:
                seen.add(place[1])
                kept |= self._needed(place)
        self._tables.remove([place for place in places if place not in kept])

    def _needed(self, place: Place) -> set[Place]:
        """A checkpoint, and its ancestors back to the last snapshot of each delta channel."""
        needed: set[Place] = set()
        stored = self._tables.get(place)
        if stored is None:
            return needed
        counters = self.serde.loads_typed(stored.metadata).get("counters_since_delta_snapshot") or {}
        left = max((steps for _, steps in counters.values()), default=0)
        while stored is not None:
            needed.add(stored.place)
            if left <= 0 or stored.parent is None:
                break
            left -= 1
            stored = self._tables.get((*place[:2], stored.parent))
        return needed

    def _loaded(self, place: Place) -> CheckpointTuple | None:
        stored = self._tables.get(place)
        if stored is None:
            return None
        state = self.serde.loads_typed(stored.state)
        values = {}
        for channel, version in state["channel_versions"].items():
            typed = self._tables.value(place, channel, version)
            if typed is not None and typed[0] != _ABSENT:
                values[channel] = self.serde.loads_typed(typed)
        return CheckpointTuple(
            config=_config(place),
            checkpoint=cast(Checkpoint, {**state, "channel_values": values}),
            metadata=self.serde.loads_typed(stored.metadata),
            parent_config=_config((*place[:2], stored.parent)) if stored.parent else None,
            pending_writes=[
                (write.task, write.channel, self.serde.loads_typed(write.value))
                for write in self._tables.writes(place)
            ],
        )

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """`put`, in a thread."""
        return await asyncio.to_thread(self.put, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """`put_writes`, in a thread."""
        await asyncio.to_thread(self.put_writes, config, writes, task_id, task_path)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """`get_tuple`, in a thread."""
        return await asyncio.to_thread(self.get_tuple, config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """`list`, each step in a thread."""
        found = self.list(config, filter=filter, before=before, limit=limit)
        while (one := await asyncio.to_thread(next, found, None)) is not None:
            yield one

    async def adelete_thread(self, thread_id: str) -> None:
        """`delete_thread`, in a thread."""
        await asyncio.to_thread(self.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """`delete_for_runs`, in a thread."""
        await asyncio.to_thread(self.delete_for_runs, run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """`copy_thread`, in a thread."""
        await asyncio.to_thread(self.copy_thread, source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """`prune`, in a thread."""
        await asyncio.to_thread(self.prune, thread_ids, strategy=strategy)


def _asked(config: RunnableConfig) -> tuple[str, str, str | None]:
    """Thread, namespace and checkpoint id of a config; the first as text, whatever it was."""
    asked = config["configurable"]
    return str(asked["thread_id"]), asked.get("checkpoint_ns", ""), get_checkpoint_id(config)


def _config(place: Place) -> RunnableConfig:
    thread, namespace, id_ = place
    return {"configurable": {"thread_id": thread, "checkpoint_ns": namespace, "checkpoint_id": id_}}


def _has(metadata: CheckpointMetadata, wanted: dict[str, Any]) -> bool:
    return all(metadata.get(word) == value for word, value in wanted.items())
