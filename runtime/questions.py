"""Questions as they are read from the store: rows with their votes, and whether their time is over."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, select

from watchkeeper.runtime import schema
from watchkeeper.runtime.approval_types import Approval, ApprovalKind, ApprovalStatus, Vote

_MANY = 500
"""Ids in one statement."""


def find_question(
    connection: Connection, approval_id: str, at: datetime, *, lock: bool = False
) -> Approval | None:
    """Read a question as it stands at a time, or None if there is none.

    Args:
        connection: To the store.
        approval_id: The question.
        at: The time.
        lock: Whether nobody else may change it before this transaction ends.
    """
    query = select(schema.approvals).where(schema.approvals.c.id == approval_id)
    found = read_questions(connection, query.with_for_update() if lock else query, at)
    return found[0] if found else None


def read_questions(connection: Connection, query: Select[Any], at: datetime) -> list[Approval]:
    """Read the questions of a query as they stand at a time."""
    rows = list(connection.execute(query))
    votes = _votes(connection, [row.id for row in rows])
    return [_question(row, votes.get(row.id, ()), at) for row in rows]


def _votes(connection: Connection, ids: list[str]) -> dict[str, tuple[Vote, ...]]:
    table = schema.approval_votes
    found: dict[str, tuple[Vote, ...]] = {}
    for start in range(0, len(ids), _MANY):
        rows = connection.execute(
            select(table)
            .where(table.c.approval_id.in_(ids[start : start + _MANY]))
            .order_by(table.c.approval_id, table.c.number)
        )
        for row in rows:
            accounts = tuple(json.loads(row.accounts))
            vote = Vote(by=row.name, at=row.at, reason=row.reason, accounts=accounts)
            found[row.approval_id] = (*found.get(row.approval_id, ()), vote)
    return found


def _question(row: Row[Any], votes: tuple[Vote, ...], at: datetime) -> Approval:
    values = dict(row._mapping)
    values["requester_accounts"] = json.loads(row.requester_accounts)
    values["edited"] = None if row.edited is None else json.loads(row.edited)
    approval = Approval.model_validate(values | {"votes": votes})
    deadline = {
        ApprovalStatus.PENDING: approval.expires_at,
        ApprovalStatus.APPROVED: approval.use_by,
    }.get(approval.status)
    if approval.kind is ApprovalKind.ACTION and deadline is not None and deadline <= at:
        return approval.model_copy(update={"status": ApprovalStatus.EXPIRED})
    return approval
