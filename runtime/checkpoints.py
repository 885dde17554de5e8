"""Checkpoints of the graph, in the same database as everything else."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver


def open_checkpoints(path: Path) -> SqliteSaver:
    """Open LangGraph's checkpointer on the store's database.

    Graph state is plain JSON, so nothing but the built-in safe types is ever deserialized.

    Args:
        path: The database, made by the store before.
    """
    connection = sqlite3.connect(path, check_same_thread=False, timeout=30)
    connection.execute("PRAGMA busy_timeout=30000")
    connection.execute("PRAGMA synchronous=FULL")
    return SqliteSaver(connection, serde=JsonPlusSerializer(allowed_msgpack_modules=None))
