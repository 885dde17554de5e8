"""Plan steps: one concrete action each, from its plan to what came of it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from sqlalchemy import func, select, update

from watchkeeper.runtime import schema
from watchkeeper.runtime.clock import Clock
from watchkeeper.runtime.errors import UnknownRecordError
from watchkeeper.runtime.events import UNSET
from watchkeeper.runtime.policy_bias import MeasuredBias
from watchkeeper.runtime.policy_types import PolicyDecision
from watchkeeper.runtime.store import Store
from watchkeeper.tools.action import ActionPlan, Reversibility

STEPS_AFTER = "steps-after:"
"""Name, before an incident's id, of the number that its next step is above after a restore."""


class StepStatus(StrEnum):
    """Where a step stands."""

    PLANNED = "planned"
    AWAITING = "awaiting"
    APPROVED = "approved"
    APPLIED = "applied"
    VERIFIED = "verified"
    ROLLED_BACK = "rolled-back"
    REFUSED = "refused"
    OBSERVED = "observed"
    FAILED = "failed"
    IN_DOUBT = "in-doubt"


class Step(BaseModel):
    """One concrete action of a plan.

    Attributes:
        id: ``INC-7K3Q-S1``; also the ``key`` of the action's plan.
        incident_id: Incident it is for.
        hypothesis: The diagnosis it acts on.
        host: Where it acts.
        action: Registered name of the action.
        version: Version of the action.
        arguments: Its arguments.
        reversibility: What can be done about it afterwards.
        plan: What would change, as the action planned it.
        digest: What an approval binds to (see ``action_digest``).
        requester: Whose edit it is; empty where it is asked for in the name of who runs the incident.
        bias: How differently the version that it lets answer treats groups; None where nothing was measured.
        policy: What the policy answered, with its trace; None before it was asked.
        status: Where it stands.
        detail: What came of it, for a person.
        created_at: When it was kept (UTC); given by the store.
        updated_at: When it changed last (UTC); given by the store.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    incident_id: str
    hypothesis: str = ""
    host: str
    action: str
    version: int = 1
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    reversibility: Reversibility
    plan: ActionPlan
    digest: str
    requester: str = ""
    bias: MeasuredBias | None = None
    policy: PolicyDecision | None = None
    status: StepStatus = StepStatus.PLANNED
    detail: str = ""
    created_at: datetime = UNSET
    updated_at: datetime = UNSET


class Steps:
    """Plan steps in the store."""

    def __init__(self, store: Store, *, now: Clock | None = None) -> None:
        self._store = store
        self._now = now or store.now

    def next_id(self, incident_id: str, key: str | None = None) -> str:
        """Return the id to plan a step under: the one kept for ``key``, else the next free one."""
        kept = self.find(incident_id, key) if key is not None else None
        return kept.id if kept is not None else f"{incident_id}-S{self._last(incident_id) + 1}"

    def add(self, step: Step, *, key: str | None = None) -> Step:
        """Keep a new step under the id that ``next_id`` gave.

        Args:
            step: The step.
            key: Name of this occasion, unique within the incident: a node that is repeated after a crash
                gets the step that was kept the first time.

        Raises:
            ValueError: If the id is not the next one of the incident.
        """
        table = schema.steps
        with self._store.transaction() as connection:
            kept = self.find(step.incident_id, key) if key is not None else None
            if kept is not None:
                return kept
            number = self._last(step.incident_id) + 1
            if step.id != f"{step.incident_id}-S{number}":
                raise ValueError(
                    f"step {step.id!r} is not the next of incident {step.incident_id!r} ({number})"
                )
            at = self._now()
            stored = step.model_copy(update={"created_at": at, "updated_at": at})
            connection.execute(
                table.insert().values(
                    id=stored.id,
                    incident_id=stored.incident_id,
                    number=number,
                    call_key=key,
                    status=stored.status.value,
                    digest=stored.digest,
                    created_at=at,
                    updated_at=at,
                    body=stored.model_dump_json(),
                )
            )
        return stored

    def update(
        self,
        step_id: str,
        *,
        status: StepStatus | None = None,
        detail: str | None = None,
        policy: PolicyDecision | None = None,
        plan: ActionPlan | None = None,
        digest: str | None = None,
    ) -> Step:
        """Change what is given of a step, and return it.

        Raises:
            UnknownRecordError: If there is none of that id.
        """
        given = {"status": status, "detail": detail, "policy": policy, "plan": plan, "digest": digest}
        table = schema.steps
        with self._store.transaction() as connection:
            changes = {name: value for name, value in given.items() if value is not None}
            step = self.get(step_id).model_copy(update={**changes, "updated_at": self._now()})
            connection.execute(
                update(table)
                .where(table.c.id == step_id)
                .values(
                    status=step.status.value,
                    digest=step.digest,
                    updated_at=step.updated_at,
                    body=step.model_dump_json(),
                )
            )
        return step

    def find(self, incident_id: str, key: str) -> Step | None:
        """Return the step of an occasion, or None if it was not kept yet."""
        table = schema.steps
        with self._store.reading() as connection:
            body = connection.execute(
                select(table.c.body).where(table.c.incident_id == incident_id, table.c.call_key == key)
            ).scalar()
        return None if body is None else Step.model_validate_json(body)

    def get(self, step_id: str) -> Step:
        """Return a step.

        Raises:
            UnknownRecordError: If there is none of that id.
        """
        table = schema.steps
        with self._store.reading() as connection:
            body = connection.execute(select(table.c.body).where(table.c.id == step_id)).scalar()
        if body is None:
            raise UnknownRecordError(f"step {step_id!r} is not in {self._store.place!r}")
        return Step.model_validate_json(body)

    def list(self, incident_id: str) -> tuple[Step, ...]:
        """Return the steps of an incident in their order."""
        table = schema.steps
        with self._store.reading() as connection:
            rows = connection.execute(
                select(table.c.body).where(table.c.incident_id == incident_id).order_by(table.c.number)
            ).scalars()
            return tuple(Step.model_validate_json(body) for body in rows)

    def _last(self, incident_id: str) -> int:
        """Number of the last step, or the one that a restore left off at: none may be given twice."""
        table, meta = schema.steps, schema.meta
        with self._store.reading() as connection:
            last = connection.execute(
                select(func.coalesce(func.max(table.c.number), 0)).where(table.c.incident_id == incident_id)
            ).scalar_one()
            left = connection.execute(
                select(meta.c.value).where(meta.c.name == f"{STEPS_AFTER}{incident_id}")
            ).scalar()
        return max(int(last), int(left or 0))
