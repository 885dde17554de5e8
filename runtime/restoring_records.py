"""What becomes of live work in a restored store: nothing goes on from a yes that may have been used since."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, delete, func, select, update

from watchkeeper.runtime import schema
from watchkeeper.runtime.approvals import Approval, ApprovalKind, ApprovalStatus
from watchkeeper.runtime.ledger import EffectState, effect_key
from watchkeeper.runtime.policy_types import Verdict
from watchkeeper.runtime.restoring_calls import CallsHeld, hold_calls
from watchkeeper.runtime.steps import STEPS_AFTER, Step, StepStatus
from watchkeeper.runtime.store import Store

_NUMBERS_LEFT = 1000
"""More than the steps that an incident may have been given since a backup."""

EXPIRED_BY_RESTORE = "expired by a restore from a backup: whether it was used since is not known"
"""The reason kept with such a question or plan; the incident graph plans and asks anew."""


class MadeSafe(BaseModel):
    """What was live in a restored store.

    Attributes:
        live: Incidents that go on.
        expired: Questions that waited, and yeses that were not used.
        in_doubt: Effects of which it is not known whether they took place, by their step.
        calls: What people were being told.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    live: tuple[str, ...]
    expired: tuple[str, ...]
    in_doubt: tuple[str, ...]
    calls: CallsHeld = CallsHeld()


def make_safe(store: Store, at: datetime) -> MadeSafe:
    """Expire questions, unused yeses and plans, doubt steps that needed no yes, and hold calls to people.

    Args:
        store: The restored store.
        at: The time.
    """
    incidents, effects = schema.incidents, schema.effects
    with store.transaction() as connection:
        live = tuple(
            connection.execute(
                select(incidents.c.id).where(incidents.c.status.not_in(schema.ENDED)).order_by(incidents.c.id)
            ).scalars()
        )
        expired = _expire(connection, at)
        for incident_id in live:
            _outdate_plans(connection, incident_id, at)
            _doubt_allowed_steps(connection, incident_id, at)
            _leave_numbers(connection, incident_id)
        doubtful = (EffectState.INTENDED.value, EffectState.ROLLING_BACK.value)
        in_doubt = tuple(
            connection.execute(
                select(effects.c.step_id).where(effects.c.state.in_(doubtful)).order_by(effects.c.step_id)
            ).scalars()
        )
        calls = hold_calls(store, at)
    return MadeSafe(live=live, expired=expired, in_doubt=in_doubt, calls=calls)


def asked_anew(approval: Approval) -> bool:
    """Whether a question was expired by a restore, so that it is put again."""
    return approval.status is ApprovalStatus.EXPIRED and approval.reason == EXPIRED_BY_RESTORE


def planned_anew(step: Step) -> bool:
    """Whether a restore expired a step, so that it is planned again under another id."""
    return step.status is StepStatus.REFUSED and step.detail == EXPIRED_BY_RESTORE


def _expire(connection: Connection, at: datetime) -> tuple[str, ...]:
    table = schema.approvals
    pending = table.c.status == ApprovalStatus.PENDING.value
    # What a person said of an effect in doubt stays said.
    unused = (table.c.status == ApprovalStatus.APPROVED.value) & (table.c.kind == ApprovalKind.ACTION.value)
    found = tuple(
        connection.execute(select(table.c.id).where(pending | unused).order_by(table.c.id)).scalars()
    )
    for condition, deadline in ((pending, "expires_at"), (unused, "use_by")):
        connection.execute(
            update(table)
            .where(condition)
            .values({"status": ApprovalStatus.EXPIRED.value, "reason": EXPIRED_BY_RESTORE, deadline: at})
        )
    return found


def _leave_numbers(connection: Connection, incident_id: str) -> None:
    """Number new steps above all that may have been given since the backup: effects are known by them."""
    steps, meta = schema.steps, schema.meta
    name = f"{STEPS_AFTER}{incident_id}"
    last = connection.execute(
        select(func.coalesce(func.max(steps.c.number), 0)).where(steps.c.incident_id == incident_id)
    ).scalar_one()
    left = connection.execute(select(meta.c.value).where(meta.c.name == name)).scalar()
    connection.execute(delete(meta).where(meta.c.name == name))
    number = max(int(last), int(left or 0)) + _NUMBERS_LEFT
    connection.execute(meta.insert().values(name=name, value=str(number)))


def _outdate_plans(connection: Connection, incident_id: str, at: datetime) -> None:
    """Expire what was planned and neither allowed nor asked yet: the original may have done it since."""
    steps, asked = schema.steps, select(schema.approvals.c.step_id)
    bodies = connection.execute(
        select(steps.c.body).where(
            steps.c.incident_id == incident_id,
            steps.c.status.in_((StepStatus.PLANNED.value, StepStatus.AWAITING.value)),
            steps.c.id.not_in(asked.where(schema.approvals.c.incident_id == incident_id)),
        )
    ).scalars()
    for step in [Step.model_validate_json(body) for body in bodies]:
        expired = step.model_copy(
            update={"status": StepStatus.REFUSED, "detail": EXPIRED_BY_RESTORE, "updated_at": at}
        )
        connection.execute(
            update(steps)
            .where(steps.c.id == step.id)
            .values(status=expired.status.value, updated_at=at, body=expired.model_dump_json())
        )


def _doubt_allowed_steps(connection: Connection, incident_id: str, at: datetime) -> None:
    steps, effects = schema.steps, schema.effects
    begun = select(effects.c.step_id).where(effects.c.incident_id == incident_id)
    bodies = connection.execute(
        select(steps.c.body).where(
            steps.c.incident_id == incident_id,
            steps.c.status == StepStatus.APPROVED.value,
            steps.c.id.not_in(begun),
        )
    ).scalars()
    for step in [Step.model_validate_json(body) for body in bodies]:
        if step.policy is None or step.policy.decision is not Verdict.ALLOW:
            continue
        connection.execute(
            effects.insert().values(
                key=effect_key(step.id, step.digest),
                incident_id=incident_id,
                step_id=step.id,
                digest=step.digest,
                action=step.action,
                host=step.host,
                service=str(step.arguments.get("service", "")),
                state=EffectState.INTENDED.value,
                intended_at=at,
                rollback_attempts=0,
            )
        )
