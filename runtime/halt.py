"""The halt: a word of a person that stops everything, in all processes of a store, until it is lifted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, Row, select, update

from watchkeeper.runtime import schema
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.clock import Clock
from watchkeeper.runtime.errors import HaltedError, StoreError
from watchkeeper.runtime.store import Store

POLL_SECONDS = 0.2
"""Seconds between two looks of whoever works: it stops within a second."""


class Halt(BaseModel):
    """Who stopped everything, when and why, and who lifted it.

    Attributes:
        id: Its number.
        by: Who stopped everything.
        at: When.
        reason: Why.
        lifted_by: Who lifted it; None while it holds.
        lifted_at: When.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int
    by: str
    at: datetime
    reason: str
    lifted_by: str | None = None
    lifted_at: datetime | None = None

    @property
    def error(self) -> HaltedError:
        """What whoever is to do anything meanwhile is told."""
        why = f": {self.reason.strip().rstrip('.')}" if self.reason.strip() else ""
        return HaltedError(
            f"everything was stopped by {self.by!r} at {self.at:%Y-%m-%d %H:%M:%S} UTC{why}; "
            "go on with `watchkeeper stop --lift`"
        )


class Halts:
    """Halts in the store; at most one holds at a time.

    Args:
        store: Where they are kept.
        audit: Where each is written, too.
        now: The time; by default the store's, which is one for all machines.
    """

    def __init__(self, store: Store, audit: AuditLog, *, now: Clock | None = None) -> None:
        self._store = store
        self._audit = audit
        self._now = now or store.now

    def current(self) -> Halt | None:
        """Return the halt that holds, or None."""
        with self._store.reading() as connection:
            return _current(connection)

    def check(self) -> None:
        """Make sure that nothing was stopped.

        Raises:
            HaltedError: If everything was.
        """
        with self._store.reading() as connection:
            check_halt(connection)

    def stop(self, *, by: str, reason: str = "") -> Halt:
        """Stop everything; where everything is stopped, the halt that holds is returned.

        It holds even where the audit log cannot be written.

        Raises:
            StoreError: If it cannot be written: nothing is stopped then.
            AuditError: If the audit log cannot be written; everything is stopped all the same.
        """
        with self._store.transaction() as connection:
            before = _current(connection)
            if before is not None:
                return before
            connection.execute(schema.halts.insert().values(by=by, at=self._now(), reason=reason))
            halt = _current(connection)
        if halt is None:
            raise StoreError("a halt that was just written is not there: look at the store")
        self._audit.append("halted", {"by": by, "reason": reason})
        return halt

    def lift(self, *, by: str, reason: str = "") -> Halt | None:
        """Let work go on; None where nothing was stopped.

        Raises:
            AuditError: If the audit log cannot be written; the halt then still holds.
        """
        table = schema.halts
        with self._store.transaction() as connection:
            halt = _current(connection)
            if halt is None:
                return None
            at = self._now()
            connection.execute(
                update(table).where(table.c.lifted_at.is_(None)).values(lifted_by=by, lifted_at=at)
            )
            self._audit.append("halt-lifted", {"by": by, "reason": reason, "stopped_by": halt.by})
            return halt.model_copy(update={"lifted_by": by, "lifted_at": at})

    def watch(self, ended: threading.Event, on_halt: Callable[[HaltedError], object]) -> None:
        """Look several times a second until ``ended`` is set; tell the first halt that is seen.

        Args:
            ended: Set by another thread to end this.
            on_halt: Called at most once.
        """
        while not ended.wait(POLL_SECONDS):
            try:
                halt = self.current()
            except StoreError:
                # No effect is begun while the store cannot be read: its intent could not be written.
                continue
            if halt is not None:
                on_halt(halt.error)
                return


def check_halt(connection: Connection) -> None:
    """Make sure, as part of a transaction, that nothing was stopped.

    Raises:
        HaltedError: If everything was.
    """
    halt = _current(connection)
    if halt is not None:
        raise halt.error


def _current(connection: Connection) -> Halt | None:
    table = schema.halts
    row: Row[tuple[object, ...]] | None = connection.execute(
        select(table).where(table.c.lifted_at.is_(None)).order_by(table.c.id).limit(1)
    ).first()
    return None if row is None else Halt.model_validate(dict(row._mapping))
