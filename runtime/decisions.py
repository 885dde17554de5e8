"""Decision records: why an agent chose what it chose."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import func, select

from watchkeeper.runtime import schema
from watchkeeper.runtime.clock import Clock
from watchkeeper.runtime.errors import UnknownRecordError
from watchkeeper.runtime.events import UNSET, Option
from watchkeeper.runtime.store import Store


class DecisionRecord(BaseModel):
    """One closed question and its answer.

    Attributes:
        id: ``INC-7K3Q-D1``; given by the store.
        incident_id: Incident it was made for; given by the store.
        at: When it was kept (UTC); given by the store.
        role: Agent that was asked.
        question: What was asked, in one line.
        options: What could be answered, with shares of the probability.
        chosen: Index of the answer.
        accepted: Whether it was followed; doubt (``threshold``) may overrule it.
        threshold: Probability under which it would not have been.
        model: Id of the model; ``"-"`` where a rule decided and no model was asked.
        quantization: Of its weights.
        model_digest: SHA-256 of its weights.
        basis: Where the probabilities come from: ``scored`` by the model, ``derived`` from what an endpoint
            told, or ``unknown``; empty where the answer was generated or a rule decided.
        calibration_digest: SHA-256 of the calibration that made the probabilities, if one did.
        adapter: Name and SHA-256 of the adapter that answered, ``name:digest``; empty for the base model.
        prompt_digest: SHA-256 of the canonical JSON of what it was shown.
        evidence_ids: Evidence it was shown.
        prompt_tokens: Tokens of the prompt.
        cached_tokens: Those of them that were computed before.
        generated_tokens: Tokens of the answer.
        seconds: How long it took.
        note: What else mattered, e.g. why an option was ruled out beforehand.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    id: str = ""
    incident_id: str = ""
    at: datetime = UNSET
    role: str
    question: str
    options: tuple[Option, ...] = Field(min_length=1)
    chosen: int = Field(ge=0)
    accepted: bool = True
    threshold: float = 0.0
    model: str
    quantization: str
    model_digest: str = ""
    basis: str = ""
    calibration_digest: str = ""
    adapter: str = ""
    prompt_digest: str
    evidence_ids: tuple[str, ...] = ()
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0
    note: str = ""

    @model_validator(mode="after")
    def _chosen_exists(self) -> DecisionRecord:
        if self.chosen >= len(self.options):
            raise ValueError(f"option {self.chosen} was chosen out of {len(self.options)}")
        return self

    @property
    def answer(self) -> Option:
        """The option that was chosen."""
        return self.options[self.chosen]


class Decisions:
    """Decision records in the store."""

    def __init__(self, store: Store, *, now: Clock | None = None) -> None:
        self._store = store
        self._now = now or store.now

    def add(self, incident_id: str, record: DecisionRecord, *, key: str | None = None) -> DecisionRecord:
        """Keep a record and return it with its id and time.

        Args:
            incident_id: The incident.
            record: The decision.
            key: Name of this occasion, unique within the incident: a node that is repeated after a crash
                gets the record that was kept the first time.
        """
        table = schema.decisions
        with self._store.transaction() as connection:
            kept = self.find(incident_id, key) if key is not None else None
            if kept is not None:
                return kept
            number = (
                connection.execute(
                    select(func.count()).select_from(table).where(table.c.incident_id == incident_id)
                ).scalar_one()
                + 1
            )
            stored = record.model_copy(
                update={"id": f"{incident_id}-D{number}", "incident_id": incident_id, "at": self._now()}
            )
            connection.execute(
                table.insert().values(
                    id=stored.id,
                    incident_id=incident_id,
                    number=number,
                    call_key=key,
                    role=stored.role,
                    at=stored.at,
                    body=stored.model_dump_json(),
                )
            )
        return stored

    def find(self, incident_id: str, key: str) -> DecisionRecord | None:
        """Return the record of an occasion, or None if it was not kept yet."""
        table = schema.decisions
        with self._store.reading() as connection:
            body = connection.execute(
                select(table.c.body).where(table.c.incident_id == incident_id, table.c.call_key == key)
            ).scalar()
        return None if body is None else DecisionRecord.model_validate_json(body)

    def get(self, decision_id: str) -> DecisionRecord:
        """Return a record.

        Raises:
            UnknownRecordError: If there is none of that id.
        """
        table = schema.decisions
        with self._store.reading() as connection:
            body = connection.execute(select(table.c.body).where(table.c.id == decision_id)).scalar()
        if body is None:
            raise UnknownRecordError(
                f"decision {decision_id!r} is not in {self._store.place!r}; "
                "see `watchkeeper decisions list INCIDENT`"
            )
        return DecisionRecord.model_validate_json(body)

    def list(self, incident_id: str) -> tuple[DecisionRecord, ...]:
        """Return the records of an incident in their order."""
        table = schema.decisions
        with self._store.reading() as connection:
            rows = connection.execute(
                select(table.c.body).where(table.c.incident_id == incident_id).order_by(table.c.number)
            ).scalars()
            return tuple(DecisionRecord.model_validate_json(body) for body in rows)
