"""Checkpoints of the graph, in the store and behind its fence."""

from __future__ import annotations

import asyncio
import builtins
import functools
import json
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

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
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from sqlalchemy import Connection, Executable, Row, Table, and_, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from watchkeeper.runtime.schema import checkpoint_writes, checkpoints
from watchkeeper.runtime.store import Store

KEPT = 3
"""Checkpoints of a thread that are kept: the last is what a run goes on from."""

_PRUNED_EVERY = 8
"""Steps between two looks for older ones."""


class Checkpoints(BaseCheckpointSaver[str]):
    """LangGraph's checkpointer over the store, on either database.

    It writes in transactions of the store, so what fences these (`Store.fenced`) fences checkpoints, too.
    Graph state is plain JSON, so nothing but the built-in safe types is ever deserialized.

    Args:
        store: The store.
        kept: How many checkpoints of a thread are kept; older ones go with every eighth step. None keeps
            all, as channels that are made from the writes of all steps (delta channels) need.
        deferred: Keep what tasks wrote in memory until the checkpoint that takes it over is written, which
            saves a commit for each task. A process that ends in between does these tasks again: that is for
            graphs whose nodes are safe to repeat. What waits for a person is always written at once.
    """

    def __init__(self, store: Store, *, kept: int | None = KEPT, deferred: bool = False) -> None:
        super().__init__(serde=JsonPlusSerializer(allowed_msgpack_modules=None))
        self._store = store
        self._kept = kept
        self._deferred = deferred
        self._waiting: dict[tuple[str, ...], dict[tuple[str, int], dict[str, Any]]] = {}

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that a config names, or the last one of its thread.

        Raises:
            StoreError: If the store cannot be read.
        """
        place = _place(config)
        query = select(checkpoints).where(
            checkpoints.c.thread_id == place["thread_id"],
            checkpoints.c.checkpoint_ns == place["checkpoint_ns"],
        )
        if wanted := get_checkpoint_id(config):
            query = query.where(checkpoints.c.checkpoint_id == wanted)
        query = query.order_by(checkpoints.c.checkpoint_id.desc()).limit(1)
        with self._store.reading() as connection:
            row = connection.execute(query).first()
            return None if row is None else self._tuple(connection, row)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 (LangGraph's name)
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Yield checkpoints, the newest first.

        Args:
            config: Thread, namespace and checkpoint, as far as they are given.
            filter: What their metadata must hold.
            before: Only those older than this one.
            limit: How many at most.

        Raises:
            StoreError: If the store cannot be read.
        """
        query = select(checkpoints).order_by(checkpoints.c.checkpoint_id.desc())
        if config is not None:
            for name in ("thread_id", "checkpoint_ns", "checkpoint_id"):
                if (value := config["configurable"].get(name)) is not None:
                    query = query.where(checkpoints.c[name] == str(value))
        if before is not None and (newest := get_checkpoint_id(before)):
            query = query.where(checkpoints.c.checkpoint_id < newest)
        found: list[CheckpointTuple] = []
        with self._store.reading() as connection:
            for row in connection.execute(query).all():
                metadata = json.loads(row.metadata)
                if limit is not None and len(found) >= limit:
                    break
                if all(
                    name in metadata and metadata[name] == value for name, value in (filter or {}).items()
                ):
                    found.append(self._tuple(connection, row))
        yield from found

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,  # noqa: ARG002 (whole states are kept)
    ) -> RunnableConfig:
        """Keep a checkpoint, and let go of the oldest ones of its thread.

        Raises:
            StoreError: If the store cannot be written.
            FencedError: If the incident was taken over by another worker.
        """
        place = _place(config)
        kind, body = self.serde.dumps_typed(checkpoint)
        row = {
            **place,
            "checkpoint_id": checkpoint["id"],
            "parent_checkpoint_id": config["configurable"].get("checkpoint_id"),
            "type": kind,
            "checkpoint": body,
            "metadata": json.dumps(get_checkpoint_metadata(config, metadata)),
        }
        with self._store.transaction() as connection:
            _upsert(connection, checkpoints, [row], replace=True)
            if self._kept is not None and metadata.get("step", 0) % _PRUNED_EVERY == 0:
                self._prune(connection, place)
        self._waiting.pop((*place.values(), str(row["parent_checkpoint_id"])), None)
        return {"configurable": {**place, "checkpoint_id": checkpoint["id"]}}

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Keep what a task wrote since a checkpoint.

        Raises:
            StoreError: If the store cannot be written.
            FencedError: If the incident was taken over by another worker.
        """
        if not writes:
            return
        key = {**_place(config), "checkpoint_id": str(config["configurable"]["checkpoint_id"])}
        rows: builtins.list[dict[str, Any]] = []
        for number, (channel, value) in enumerate(writes):
            where = {"task_id": task_id, "task_path": task_path, "idx": WRITES_IDX_MAP.get(channel, number)}
            rows.append({**key, **where, "channel": channel, "value": value})
        place = tuple(key.values())
        if self._deferred and not any(channel in WRITES_IDX_MAP for channel, _ in writes):
            waiting = self._waiting.setdefault(place, {})
            for row in rows:
                waiting.setdefault((row["task_id"], row["idx"]), row)
            return
        replace = all(channel in WRITES_IDX_MAP for channel, _ in writes)
        with self._store.transaction() as connection:
            if before := list(self._waiting.pop(place, {}).values()):
                _upsert(connection, checkpoint_writes, [*map(self._packed, before)], replace=False)
            _upsert(connection, checkpoint_writes, [*map(self._packed, rows)], replace=replace)

    def delete_thread(self, thread_id: str) -> None:
        """Forget a thread.

        Raises:
            StoreError: If the store cannot be written.
            FencedError: If the incident was taken over by another worker.
        """
        with self._store.transaction() as connection:
            for table in (checkpoint_writes, checkpoints):
                connection.execute(delete(table).where(table.c.thread_id == str(thread_id)))
        for key in [key for key in self._waiting if key[0] == str(thread_id)]:
            self._waiting.pop(key, None)

    def get_next_version(self, current: str | None, channel: None) -> str:  # noqa: ARG002
        """Return a version of a channel that sorts after the current one, as LangGraph's own savers do."""
        before = 0 if current is None else int(str(current).partition(".")[0])
        return f"{before + 1:032}.{random.random():016}"

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """`get_tuple`, in a thread."""
        return await asyncio.to_thread(self.get_tuple, config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 (LangGraph's name)
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """`list`, in a thread."""

        def collect() -> builtins.list[CheckpointTuple]:
            return [*self.list(config, filter=filter, before=before, limit=limit)]

        for found in await asyncio.to_thread(collect):
            yield found

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
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """`put_writes`, in a thread."""
        await asyncio.to_thread(self.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """`delete_thread`, in a thread."""
        await asyncio.to_thread(self.delete_thread, thread_id)

    def _tuple(self, connection: Connection, row: Row[Any]) -> CheckpointTuple:
        table = checkpoint_writes
        kept = connection.execute(
            select(table.c.task_id, table.c.channel, table.c.type, table.c.value)
            .where(
                table.c.thread_id == row.thread_id,
                table.c.checkpoint_ns == row.checkpoint_ns,
                table.c.checkpoint_id == row.checkpoint_id,
            )
            .order_by(table.c.task_path, table.c.task_id, table.c.idx)
        ).all()
        place = {"thread_id": row.thread_id, "checkpoint_ns": row.checkpoint_ns}
        waiting = self._waiting.get((*place.values(), row.checkpoint_id), {})
        written = [
            *(tuple(found) for found in kept),
            *(
                (w["task_id"], w["channel"], w["type"], w["value"])
                for w in map(self._packed, waiting.values())
            ),
        ]
        parent: RunnableConfig | None = None
        if row.parent_checkpoint_id:
            parent = {"configurable": {**place, "checkpoint_id": row.parent_checkpoint_id}}
        return CheckpointTuple(
            {"configurable": {**place, "checkpoint_id": row.checkpoint_id}},
            self.serde.loads_typed((row.type, row.checkpoint)),
            json.loads(row.metadata),
            parent,
            [
                (task, channel, self.serde.loads_typed((kind, value)))
                for task, channel, kind, value in written
            ],
        )

    def _packed(self, row: dict[str, Any]) -> dict[str, Any]:
        """What a task wrote as it is kept: most of it never is, since the next checkpoint holds it."""
        kind, body = self.serde.dumps_typed(row["value"])
        return {**row, "type": kind, "value": body}

    def _prune(self, connection: Connection, place: dict[str, str]) -> None:
        def of(table: Table) -> Any:
            return and_(*(table.c[name] == value for name, value in place.items()))

        oldest = connection.execute(
            select(checkpoints.c.checkpoint_id)
            .where(of(checkpoints))
            .order_by(checkpoints.c.checkpoint_id.desc())
            .offset((self._kept or 1) - 1)
            .limit(1)
        ).scalar()
        if oldest is not None:
            for table in (checkpoint_writes, checkpoints):
                connection.execute(delete(table).where(of(table), table.c.checkpoint_id < oldest))


def _place(config: RunnableConfig) -> dict[str, str]:
    given = config["configurable"]
    return {"thread_id": str(given["thread_id"]), "checkpoint_ns": str(given.get("checkpoint_ns", ""))}


def _upsert(connection: Connection, table: Table, rows: list[dict[str, Any]], *, replace: bool) -> None:
    connection.execute(_upsert_into(table, connection.dialect.name, replace=replace), rows)


@functools.cache
def _upsert_into(table: Table, dialect: str, *, replace: bool) -> Executable:
    """The statement, made once: with each checkpoint anew it would take longer than the write itself."""
    insert: Any = (postgresql if dialect == "postgresql" else sqlite).insert(table)
    key = [column.name for column in table.primary_key]
    if not replace:
        nothing: Executable = insert.on_conflict_do_nothing(index_elements=key)
        return nothing
    given = {column.name: insert.excluded[column.name] for column in table.columns if column.name not in key}
    update: Executable = insert.on_conflict_do_update(index_elements=key, set_=given)
    return update
