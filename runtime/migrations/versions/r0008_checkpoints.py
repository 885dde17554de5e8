"""Checkpoints of the graph are tables of the store; those of LangGraph's SQLite saver are taken over."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Make the tables, and move what LangGraph's own saver kept in the same database."""
    connection = op.get_bind()
    names = set(sa.inspect(connection).get_table_names())
    stock = {"checkpoints", "writes"} & names
    for name in stock:
        op.rename_table(name, f"stock_{name}")
    ordered = sa.String().with_variant(sa.String(collation="C"), "postgresql")
    op.create_table(
        "checkpoints",
        sa.Column("thread_id", sa.String(), primary_key=True),
        sa.Column("checkpoint_ns", sa.String(), primary_key=True),
        sa.Column("checkpoint_id", ordered, primary_key=True),
        sa.Column("parent_checkpoint_id", sa.String()),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("checkpoint", sa.LargeBinary(), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=False),
    )
    op.create_table(
        "checkpoint_writes",
        sa.Column("thread_id", sa.String(), primary_key=True),
        sa.Column("checkpoint_ns", sa.String(), primary_key=True),
        sa.Column("checkpoint_id", ordered, primary_key=True),
        sa.Column("task_id", sa.String(), primary_key=True),
        sa.Column("idx", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("task_path", sa.String(), nullable=False, server_default=""),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("value", sa.LargeBinary()),
    )
    if "checkpoints" in stock:
        op.execute(
            "INSERT INTO checkpoints SELECT thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id,"
            " type, checkpoint, coalesce(CAST(metadata AS TEXT), '{}') FROM stock_checkpoints"
        )
    if "writes" in stock:
        columns = {column["name"] for column in sa.inspect(connection).get_columns("stock_writes")}
        if "task_path" not in columns:
            op.add_column(
                "stock_writes", sa.Column("task_path", sa.Text(), nullable=False, server_default="")
            )
        op.execute(
            "INSERT INTO checkpoint_writes SELECT thread_id, checkpoint_ns, checkpoint_id, task_id, idx,"
            " task_path, channel, type, value FROM stock_writes"
        )
    for name in stock:
        op.drop_table(f"stock_{name}")
