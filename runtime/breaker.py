"""The circuit breaker: an action that keeps failing on its target is stopped."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Row, func, select

from watchkeeper.runtime import schema
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.clock import Clock
from watchkeeper.runtime.errors import UnknownRecordError
from watchkeeper.runtime.limits import ActionTarget, BreakerLimits
from watchkeeper.runtime.store import Store

_HISTORY = 500
"""Effects on one target that are looked at, the newest."""

_FAILED = ("failed", "rolling-back", "rolled-back", "rollback-failed")


class BreakerState(StrEnum):
    """Whether an action may be tried on its target.

    ``CLOSED``: as the policy says. ``OPEN``: not. ``HALF_OPEN``: once, if people say so. ``TRYING``: that one
    try is under way.
    """

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"
    TRYING = "trying"


class Failure(BaseModel):
    """An effect that failed or was taken back.

    Attributes:
        step_id: Its step.
        state: What became of it.
        at: When that was known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step_id: str
    state: str
    at: datetime


class BreakerStatus(BaseModel):
    """The breaker of one action on one target.

    Attributes:
        action: Name of the action.
        host: Where.
        service: The service that its arguments name; empty where they name none.
        state: Whether it may be tried.
        failures: What counts against it, the oldest first.
        retry_at: When one try may be asked for; None while it is closed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: str
    host: str
    service: str
    state: BreakerState
    failures: tuple[Failure, ...] = ()
    retry_at: datetime | None = None

    @property
    def target(self) -> ActionTarget:
        """Whose breaker it is."""
        return ActionTarget(self.action, self.host, self.service)

    def history(self) -> str:
        """What counts against the action, in words."""
        shown = self.failures[-5:]
        said = ", ".join(f"{f.step_id} {f.state} at {f.at:%H:%M:%S}" for f in shown)
        more = f"{len(self.failures) - len(shown)} before, " if len(self.failures) > len(shown) else ""
        return f"{self.target} failed or was taken back {len(self.failures)} times ({more}{said} UTC)"


class Breaker:
    """Circuit breakers, derived from the effect ledger at every look: a crash loses none.

    Args:
        store: Where the ledger is.
        limits: When a breaker opens.
        now: The time; by default the store's, which is one for all machines.
    """

    def __init__(self, store: Store, limits: BreakerLimits, *, now: Clock | None = None) -> None:
        self._store = store
        self._limits = limits
        self._now = now or store.now

    def status(self, target: ActionTarget) -> BreakerStatus:
        """Return the breaker of an action on its target.

        Failures within the time open it; a success closes it once it was opened, and a person may.
        """
        table = schema.effects.c
        query = (
            select(
                table.step_id,
                table.state,
                table.intended_at,
                table.completed_at,
                table.rollback_intended_at,
                table.rollback_completed_at,
                schema.steps.c.status.label("step_status"),
                schema.incidents.c.status.label("incident_status"),
            )
            .join(schema.steps, schema.steps.c.id == table.step_id)
            .join(schema.incidents, schema.incidents.c.id == table.incident_id)
            .where(table.action == target.action, table.host == target.host, table.service == target.service)
            .order_by(table.intended_at.desc())
            .limit(_HISTORY)
        )
        with self._store.reading() as connection:
            reset = last_reset(self._store, target)
            if reset is not None:
                query = query.where(table.intended_at > reset)
            rows = list(reversed(connection.execute(query).all()))
        return self._fold(target, rows)

    def list(self, *, closed: bool = False) -> tuple[BreakerStatus, ...]:
        """Return the breakers that are not closed; with ``closed`` all that anything counts against."""
        table = schema.effects.c
        query = (
            select(table.action, table.host, table.service)
            .where(table.state != "not-done")
            .distinct()
            .order_by(table.action, table.host, table.service)
        )
        with self._store.reading() as connection:
            targets = [ActionTarget(*row) for row in connection.execute(query)]
        found = [self.status(target) for target in targets]
        return tuple(s for s in found if s.state is not BreakerState.CLOSED or (closed and s.failures))

    def reset(self, target: ActionTarget, audit: AuditLog, *, by: str, reason: str = "") -> BreakerStatus:
        """Close a breaker, and forget how often the action helped for a short time only; the audit log tells.

        Returns:
            The breaker as it was before.

        Raises:
            UnknownRecordError: If the action was never done on this target.
            AuditError: If the audit log cannot be written; nothing is reset then.
        """
        table = schema.effects.c
        known = select(table.key).where(
            table.action == target.action, table.host == target.host, table.service == target.service
        )
        with self._store.transaction() as connection:
            if connection.execute(known.limit(1)).first() is None:
                raise UnknownRecordError(
                    f"{target} was never done, so there is no breaker of it; see `watchkeeper breaker list`"
                )
            before = self.status(target)
            connection.execute(
                schema.breaker_resets.insert().values(
                    action=target.action,
                    host=target.host,
                    service=target.service,
                    at=self._now(),
                    person=by,
                    reason=reason,
                )
            )
            audit.append(
                "breaker-reset",
                {
                    "action": target.action,
                    "host": target.host,
                    "service": target.service,
                    "state": before.state.value,
                    "failures": len(before.failures),
                    "by": by,
                    "reason": reason,
                },
            )
        return before

    def _fold(self, target: ActionTarget, rows: Sequence[Row[tuple[object, ...]]]) -> BreakerStatus:
        limits = self._limits
        window = timedelta(seconds=limits.within_seconds)
        failures: list[Failure] = []
        opened = trying = False
        for row in rows:
            kind = _kind(row)
            if kind == "failure":
                trying = False
                failure = _failure(row)
                if not opened:
                    failures = [f for f in failures if failure.at - f.at <= window]
                failures.append(failure)
                opened = opened or len(failures) >= limits.failures
            elif kind == "success" and opened:
                failures, opened, trying = [], False, False
            elif kind == "trying":
                trying = True
        if not opened:
            recent = tuple(f for f in failures if self._now() - f.at <= window)
            state, retry_at = BreakerState.CLOSED, None
            failures = list(recent)
        else:
            retry_at = failures[-1].at + timedelta(seconds=limits.retry_seconds)
            if self._now() < retry_at:
                state = BreakerState.OPEN
            else:
                state = BreakerState.TRYING if trying else BreakerState.HALF_OPEN
        return BreakerStatus(
            action=target.action,
            host=target.host,
            service=target.service,
            state=state,
            failures=tuple(failures),
            retry_at=retry_at,
        )


def last_reset(store: Store, target: ActionTarget) -> datetime | None:
    """Return when a person last closed the breaker of an action; None if nobody did."""
    table = schema.breaker_resets.c
    query = select(func.max(table.at)).where(
        table.action == target.action, table.host == target.host, table.service == target.service
    )
    with store.reading() as connection:
        found: datetime | None = connection.execute(query).scalar()
    return found


def _kind(row: Row[tuple[object, ...]]) -> str:
    values = row._mapping
    live = values["incident_status"] not in schema.ENDED
    if values["state"] == "not-done":
        return "nothing"
    if values["state"] in _FAILED or values["step_status"] == "failed":
        return "failure"
    if values["state"] == "done" and values["step_status"] == "verified":
        return "success"
    # Without a verified effect it counts as a try as long as somebody works on it.
    return "trying" if live else "failure"


def _failure(row: Row[tuple[object, ...]]) -> Failure:
    values = row._mapping
    times = ("rollback_completed_at", "rollback_intended_at", "completed_at", "intended_at")
    return Failure(
        step_id=values["step_id"],
        state="failed" if values["state"] == "done" else values["state"],
        at=next(values[name] for name in times if values[name] is not None),
    )
