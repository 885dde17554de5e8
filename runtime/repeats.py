"""Loops: an action that resolves the same alert again and again mends nothing."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from watchkeeper.runtime import schema
from watchkeeper.runtime.breaker import last_reset
from watchkeeper.runtime.limits import ActionTarget, RepeatLimits
from watchkeeper.runtime.store import Store

_CHAIN = 100
"""Earlier incidents that are looked at, the newest."""


class Repeats:
    """Looks for the same action in successive incidents of the same alert.

    Args:
        store: Where incidents and effects are.
        limits: How often is too often.
    """

    def __init__(self, store: Store, limits: RepeatLimits) -> None:
        self._store = store
        self._limits = limits
        self._within = timedelta(seconds=limits.within_seconds)

    def refusal(self, incident_id: str, target: ActionTarget) -> str:
        """Say why an action would go in circles, with what was done before; empty if it would not.

        The incidents of the same fingerprint that count are those that came one after the other, each
        within the time of the end of the one before.
        """
        resolved = self._resolved_by(target, self._chain(incident_id))
        if len(resolved) < self._limits.times:
            return ""
        told = "; ".join(f"{step_id} at {at:%Y-%m-%d %H:%M:%S}" for step_id, at in resolved[-5:])
        return (
            f"loop: {target} resolved this alert {len(resolved)} times, and it came back each time "
            f"({told} UTC): doing it again mends nothing; look for what breaks it, and close the matter with "
            f"`watchkeeper breaker reset {target.action} {target.host}"
            + (f" --service {target.service}`" if target.service else "`")
        )

    def recurring(self, now: datetime) -> set[str]:
        """The incidents that one which is live, or is opened now or later, may follow."""
        table = schema.incidents.c
        with self._store.reading() as connection:
            live = select(table.fingerprint, table.opened_at).where(table.ended_at.is_(None))
            lately = select(table.fingerprint).where(table.ended_at >= now - self._within).distinct()
            moments = [(row.fingerprint, row.opened_at) for row in connection.execute(live)]
            moments += [(fingerprint, now) for fingerprint in connection.execute(lately).scalars()]
            return {name for moment in moments for name, _ in self._before(connection, *moment)}

    def _chain(self, incident_id: str) -> list[str]:
        """The resolved incidents of the same alert that this one follows."""
        table = schema.incidents.c
        with self._store.reading() as connection:
            this = connection.execute(
                select(table.fingerprint, table.opened_at).where(table.id == incident_id)
            ).one()
            rows = self._before(connection, this.fingerprint, this.opened_at)
        return [name for name, status in rows if status == "resolved"]

    def _before(self, connection: Connection, fingerprint: str, moment: datetime) -> list[tuple[str, str]]:
        """Incidents of an alert, the newest first, each soon followed by the next one, and that by a moment.

        Returns:
            Their ids and statuses.
        """
        table = schema.incidents.c
        found: list[tuple[str, str]] = []
        for row in connection.execute(
            select(table.id, table.opened_at, table.ended_at, table.status)
            .where(table.fingerprint == fingerprint, table.opened_at < moment)
            .order_by(table.opened_at.desc())
            .limit(_CHAIN)
        ):
            if row.ended_at is None or moment - row.ended_at > self._within:
                break
            moment = row.opened_at
            found.append((row.id, row.status))
        return found

    def _resolved_by(self, target: ActionTarget, incidents: list[str]) -> list[tuple[str, datetime]]:
        if not incidents:
            return []
        table = schema.effects.c
        query = (
            select(table.incident_id, table.step_id, table.intended_at)
            .join(schema.steps, schema.steps.c.id == table.step_id)
            .where(
                table.action == target.action,
                table.host == target.host,
                table.service == target.service,
                table.incident_id.in_(incidents),
                table.state == "done",
                schema.steps.c.status == "verified",
            )
            .order_by(table.intended_at)
        )
        with self._store.reading() as connection:
            reset = last_reset(self._store, target)
            if reset is not None:
                query = query.where(table.intended_at > reset)
            rows = connection.execute(query).all()
        return list({row.incident_id: (row.step_id, row.intended_at) for row in rows}.values())
