"""The effect ledger: what was about to be done and what came of it, written around every effect."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Row, func, or_, select, update

from watchkeeper.runtime import schema
from watchkeeper.runtime.approvals import Approvals
from watchkeeper.runtime.blast import Touch
from watchkeeper.runtime.clock import Clock
from watchkeeper.runtime.errors import LedgerError, ObserveOnlyError
from watchkeeper.runtime.halt import check_halt
from watchkeeper.runtime.limits import ActionTarget
from watchkeeper.runtime.store import Store
from watchkeeper.tools.action import Outcome, ProbeAnswer


class EffectState(StrEnum):
    """What is known of an effect.

    ``INTENDED`` and ``ROLLING_BACK`` without a process at work mean IN DOUBT.
    """

    NONE = "none"
    INTENDED = "intended"
    DONE = "done"
    FAILED = "failed"
    NOT_DONE = "not-done"
    ROLLING_BACK = "rolling-back"
    ROLLED_BACK = "rolled-back"
    ROLLBACK_FAILED = "rollback-failed"


class Effect(BaseModel):
    """One effect, as the ledger knows it.

    Attributes:
        key: Step id and action digest.
        incident_id: Incident it is for.
        step_id: Step it belongs to.
        digest: Digest of the action.
        approval_id: Approval that it used up.
        state: What is known.
        intended_at: When it was about to happen.
        completed_at: When its outcome was known.
        settled_by: Who said what happened where a crash hid it: ``"probe"`` or a person.
        outcome: What came of it.
        rollback_intended_at: When it was about to be taken back (last attempt).
        rollback_completed_at: When it was known what came of that.
        rollback_attempts: How often taking it back was begun.
        rollback_outcome: What came of that.
        action: Name of the action.
        host: Where.
        service: The service that its arguments name; empty where they name none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    incident_id: str
    step_id: str
    digest: str
    approval_id: str | None = None
    state: EffectState
    intended_at: datetime
    completed_at: datetime | None = None
    settled_by: str | None = None
    outcome: Outcome | None = None
    rollback_intended_at: datetime | None = None
    rollback_completed_at: datetime | None = None
    rollback_attempts: int = 0
    rollback_outcome: Outcome | None = None
    action: str = ""
    host: str = ""
    service: str = ""

    @property
    def in_doubt(self) -> bool:
        """Whether its last outcome is not known."""
        return self.state in {EffectState.INTENDED, EffectState.ROLLING_BACK}


def effect_key(step_id: str, digest: str) -> str:
    """The key of an effect: the step and exactly this action."""
    return f"{step_id}:{digest}"


class Ledger:
    """Effects in the store.

    Args:
        store: Where they are kept.
        approvals: Used up together with the intent.
        now: The time; by default the store's, which is one for all machines.
        observe_only: Whether no effect may begin: every intent is refused.
    """

    def __init__(
        self, store: Store, approvals: Approvals, *, now: Clock | None = None, observe_only: bool = False
    ) -> None:
        self._store = store
        self._observe_only = observe_only
        self._approvals = approvals
        self._now = now or store.now

    def intend(
        self,
        *,
        incident_id: str,
        step_id: str,
        digest: str,
        approval_id: str | None = None,
        target: ActionTarget | None = None,
        check: Callable[[], None] | None = None,
        also: Callable[[], object] | None = None,
    ) -> Effect:
        """Write that an effect is about to happen; it is on the disk when this returns.

        The approval, where one is needed, is used up in the same transaction: either both are written or
        neither, so that a crash before the effect wastes nothing and a crash after it repeats nothing.

        Args:
            incident_id: Incident it is for.
            step_id: Step it belongs to.
            digest: Digest of the action.
            approval_id: Approval that is used up.
            target: What is done to what, for counting.
            check: Raises if the effect may not be; no other intent is written while it looks.
            also: Writes what is kept together with the intent.

        Raises:
            LedgerError: If this effect was intended before, whatever came of it.
            ApprovalError: If the approval cannot be used for it.
            ObserveOnlyError: If nothing may be applied.
            HaltedError: If everything was stopped.
        """
        self._refuse_observing(step_id)
        key = effect_key(step_id, digest)
        table = schema.effects
        aim = target or ActionTarget("", "")
        with self._store.transaction(outermost=True) as connection:
            if check is not None:
                # Where a database lets transactions write side by side, intents wait for one another here.
                row = schema.meta.c
                connection.execute(update(schema.meta).where(row.name == "schema").values(value=row.value))
            before = self.find(key)
            check_halt(connection)
            if before is not None:
                raise LedgerError(
                    f"effect {key!r} was intended at {before.intended_at:%Y-%m-%d %H:%M:%S} UTC and is "
                    f"{before.state.value!r}: it is not done twice; plan a new step"
                )
            if check is not None:
                check()
            if approval_id is not None:
                self._approvals.use(approval_id, digest)
            connection.execute(
                table.insert().values(
                    key=key,
                    incident_id=incident_id,
                    step_id=step_id,
                    digest=digest,
                    approval_id=approval_id,
                    state=EffectState.INTENDED.value,
                    intended_at=self._now(),
                    rollback_attempts=0,
                    action=aim.action,
                    host=aim.host,
                    service=aim.service,
                )
            )
            if also is not None:
                also()
            return self.get(key)

    def complete(self, key: str, *, ok: bool, outcome: Outcome) -> Effect:
        """Write what came of an effect.

        Raises:
            LedgerError: If it was not intended, or its outcome is known already.
        """
        return self._move(
            key,
            {EffectState.INTENDED},
            EffectState.DONE if ok else EffectState.FAILED,
            completed_at=self._now(),
            outcome=outcome.model_dump_json(),
        )

    def settle(self, key: str, answer: ProbeAnswer, *, by: str = "probe", detail: str = "") -> Effect:
        """Write whether an effect in doubt took place, as its probe or a person found.

        ``UNKNOWN`` leaves it in doubt.

        Raises:
            LedgerError: If it is not in doubt.
        """
        if answer is ProbeAnswer.UNKNOWN:
            effect = self.get(key)
            if effect.state is not EffectState.INTENDED:
                raise LedgerError(f"effect {key!r} is {effect.state.value!r}: there is nothing to settle")
            return effect
        done = answer is ProbeAnswer.DONE
        said = detail or f"{'took' if done else 'did not take'} place, says {by}"
        return self._move(
            key,
            {EffectState.INTENDED},
            EffectState.DONE if done else EffectState.NOT_DONE,
            completed_at=self._now(),
            settled_by=by,
            outcome=Outcome(detail=said).model_dump_json(),
        )

    def intend_rollback(self, key: str) -> Effect:
        """Write that an effect is about to be taken back; it is on the disk when this returns.

        Taking back is safe to repeat, so one that a crash cut short may be intended again.

        Raises:
            LedgerError: If there is nothing to take back, or it was taken back already.
            ObserveOnlyError: If nothing may be changed.
            HaltedError: If everything was stopped.
        """
        self._refuse_observing(key)
        return self._move(
            key,
            {EffectState.DONE, EffectState.FAILED, EffectState.ROLLING_BACK, EffectState.ROLLBACK_FAILED},
            EffectState.ROLLING_BACK,
            outermost=True,
            rollback_intended_at=self._now(),
            rollback_completed_at=None,
            rollback_attempts=schema.effects.c.rollback_attempts + 1,
        )

    def complete_rollback(self, key: str, *, ok: bool, outcome: Outcome) -> Effect:
        """Write what came of taking an effect back.

        Raises:
            LedgerError: If it was not being taken back.
        """
        return self._move(
            key,
            {EffectState.ROLLING_BACK},
            EffectState.ROLLED_BACK if ok else EffectState.ROLLBACK_FAILED,
            rollback_completed_at=self._now(),
            rollback_outcome=outcome.model_dump_json(),
        )

    def state(self, key: str) -> EffectState:
        """Return what is known of an effect (``NONE``: it was never intended)."""
        effect = self.find(key)
        return EffectState.NONE if effect is None else effect.state

    def find(self, key: str) -> Effect | None:
        """Return an effect, or None if it was never intended."""
        with self._store.reading() as connection:
            row = connection.execute(select(schema.effects).where(schema.effects.c.key == key)).first()
        return None if row is None else _effect(row)

    def get(self, key: str) -> Effect:
        """Return an effect.

        Raises:
            LedgerError: If it was never intended.
        """
        effect = self.find(key)
        if effect is None:
            raise LedgerError(f"effect {key!r} was never intended: write the intent before the effect")
        return effect

    def list(self, incident_id: str) -> tuple[Effect, ...]:
        """Return the effects of an incident in their order."""
        table = schema.effects
        with self._store.reading() as connection:
            rows = connection.execute(
                select(table).where(table.c.incident_id == incident_id).order_by(table.c.intended_at)
            )
            return tuple(_effect(row) for row in rows)

    def taken(self, incident_id: str) -> int:
        """Count the effects of an incident that took place, or may have; one that was taken back did."""
        table = schema.effects.c
        query = select(func.count()).where(
            table.incident_id == incident_id, table.state != EffectState.NOT_DONE.value
        )
        with self._store.reading() as connection:
            return connection.execute(query).scalar_one()

    def touches(self, since: datetime) -> tuple[Touch, ...]:
        """Return what effects of all incidents touched since a moment, and what is unfinished.

        An effect that did not take place touched nothing; one that was taken back did.
        """
        table, steps = schema.effects, schema.steps
        open_states = (EffectState.INTENDED.value, EffectState.ROLLING_BACK.value)
        query = (
            select(table.c.state, table.c.intended_at, table.c.rollback_intended_at, steps.c.body)
            .join(steps, steps.c.id == table.c.step_id)
            .where(
                table.c.state != EffectState.NOT_DONE.value,
                or_(
                    table.c.intended_at > since,
                    table.c.rollback_intended_at > since,
                    table.c.state.in_(open_states),
                ),
            )
            .order_by(table.c.intended_at)
        )
        with self._store.reading() as connection:
            return tuple(
                Touch(
                    host=json.loads(row.body)["host"],
                    at=max(row.intended_at, row.rollback_intended_at or row.intended_at),
                    unfinished=row.state in open_states,
                )
                for row in connection.execute(query)
            )

    def in_doubt(self, incident_id: str | None = None) -> tuple[Effect, ...]:
        """Return the effects whose last outcome is not known, the oldest first."""
        table = schema.effects
        doubtful = (EffectState.INTENDED.value, EffectState.ROLLING_BACK.value)
        query = select(table).where(table.c.state.in_(doubtful)).order_by(table.c.intended_at)
        if incident_id is not None:
            query = query.where(table.c.incident_id == incident_id)
        with self._store.reading() as connection:
            return tuple(_effect(row) for row in connection.execute(query))

    def _refuse_observing(self, what: str) -> None:
        if self._observe_only:
            raise ObserveOnlyError(
                f"effect of {what!r} may not begin: this Watchkeeper only observes (`observe_only`)"
            )

    def _move(
        self,
        key: str,
        sources: Collection[EffectState],
        state: EffectState,
        *,
        outermost: bool = False,
        **values: object,
    ) -> Effect:
        table = schema.effects
        with self._store.transaction(outermost=outermost) as connection:
            if state is EffectState.ROLLING_BACK:
                check_halt(connection)
            changed = connection.execute(
                update(table)
                .where(table.c.key == key, table.c.state.in_([s.value for s in sources]))
                .values(state=state.value, **values)
            ).rowcount
            if changed == 1:
                return self.get(key)
        raise LedgerError(
            f"effect {key!r} is {self.get(key).state.value!r} and cannot become {state.value!r}"
        )


def _effect(row: Row[tuple[object, ...]]) -> Effect:
    values = dict(row._mapping)
    for name in ("outcome", "rollback_outcome"):
        if values[name] is not None:
            values[name] = Outcome.model_validate_json(values[name])
    return Effect(**values)
