"""What happens to an incident, as typed events: the store keeps them, people and programs watch them."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from watchkeeper.tools.action import ProbeAnswer, Reversibility
from watchkeeper.tools.findings import Finding, Severity

UNSET = datetime.min.replace(tzinfo=UTC)
"""The time of an event that was not stored yet."""


class DiagnosisStatus(StrEnum):
    """How sure a diagnosis is."""

    CONFIRMED = "confirmed"
    LIKELY = "likely"
    INCONCLUSIVE = "inconclusive"


class Record(BaseModel):
    """A part of an event."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BaseEvent(Record):
    """What every event has.

    Attributes:
        incident_id: Incident it belongs to; set by the store.
        seq: Its place among the events of the incident, from 1; set by the store.
        at: When it was stored (UTC); set by the store.
    """

    incident_id: str = ""
    seq: int = 0
    at: datetime = UNSET


class Call(Record):
    """One call of a fact."""

    fact: str
    host: str
    arguments: dict[str, JsonValue] = Field(default_factory=dict)


class Option(Record):
    """An option of a closed question, with its share of the probability."""

    text: str
    probability: float = Field(ge=0, le=1)


class Claim(Record):
    """A statement of a diagnosis, and the evidence that supports it."""

    text: str
    evidence_ids: tuple[str, ...]


class IncidentOpened(BaseEvent):
    """An alert opened the incident, or was grouped into it.

    ``by`` says for whom, where that is known, and ``accounts`` which system accounts were theirs then.
    """

    kind: Literal["incident-opened"] = "incident-opened"
    title: str
    host: str
    service: str | None = None
    severity: Severity
    grouped: bool = False
    by: str = ""
    accounts: tuple[str, ...] = ()


class StageEntered(BaseEvent):
    """The state machine went on to another stage."""

    kind: Literal["stage-entered"] = "stage-entered"
    stage: str


class TriageDone(BaseEvent):
    """It was decided how severe the incident is."""

    kind: Literal["triage-done"] = "triage-done"
    severity: Severity
    summary: str
    note: str = ""


class FactsChosen(BaseEvent):
    """It was decided what to look at next; ``probabilities`` belong to ``calls``."""

    kind: Literal["facts-chosen"] = "facts-chosen"
    calls: tuple[Call, ...]
    probabilities: tuple[float, ...] = ()


class EvidenceGathered(BaseEvent):
    """A fact was read (or could not be: ``error``)."""

    kind: Literal["evidence-gathered"] = "evidence-gathered"
    evidence_id: str
    fact: str
    host: str
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    error: str = ""
    seconds: float = 0.0


class SuspiciousText(BaseEvent):
    """Text that others can write tries to give orders; ``quote`` is for people, never for a model."""

    kind: Literal["suspicious-text"] = "suspicious-text"
    evidence_id: str
    quote: str


class DecisionMade(BaseEvent):
    """An agent answered a closed question; ``accepted`` is false where doubt overruled the answer."""

    kind: Literal["decision-made"] = "decision-made"
    decision_id: str
    role: str
    question: str
    options: tuple[Option, ...]
    chosen: int
    accepted: bool = True
    confidence: float = Field(ge=0, le=1)


class DiagnosisMade(BaseEvent):
    """A root cause was named, with claims that cite evidence."""

    kind: Literal["diagnosis-made"] = "diagnosis-made"
    cause: str
    subject: str = ""
    status: DiagnosisStatus
    probability: float = Field(ge=0, le=1)
    claims: tuple[Claim, ...] = ()


class RuledOut(Record):
    """A cause that had its turn.

    Attributes:
        cause: What was thought.
        result: What came of it.
    """

    cause: str
    result: str


class CausePutOff(BaseEvent):
    """The cause that the model chose has its turn later, by a rule."""

    kind: Literal["cause-put-off"] = "cause-put-off"
    cause: str
    reason: str


class CausesRuledOut(BaseEvent):
    """No cause is left that evidence supports; the diagnosis is inconclusive."""

    kind: Literal["causes-ruled-out"] = "causes-ruled-out"
    tried: tuple[RuledOut, ...] = ()


class PlanProposed(BaseEvent):
    """A step was planned against the state of its target."""

    kind: Literal["plan-proposed"] = "plan-proposed"
    step_id: str
    action: str
    host: str
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    summary: str = ""
    diff: str = ""
    reversibility: Reversibility
    risk: str = ""


class PlanRefused(BaseEvent):
    """A step made no sense on its target, or was not linted."""

    kind: Literal["plan-refused"] = "plan-refused"
    action: str = ""
    reason: str


class PolicyDecided(BaseEvent):
    """The policy answered for a step."""

    kind: Literal["policy-decided"] = "policy-decided"
    step_id: str
    decision: Literal["allow", "ask", "deny"]
    rule: str
    reason: str
    tier: int


class ApprovalRequested(BaseEvent):
    """People are asked about one exact action."""

    kind: Literal["approval-requested"] = "approval-requested"
    approval_id: str
    step_id: str
    summary: str
    expires_at: datetime


class ApprovalDecided(BaseEvent):
    """A person answered."""

    kind: Literal["approval-decided"] = "approval-decided"
    approval_id: str
    answer: str
    by: str
    reason: str = ""
    edited: dict[str, JsonValue] | None = None
    self_approved: bool = False


class WouldHaveDone(BaseEvent):
    """Watchkeeper only observes: this would have been done, or asked for, and was not.

    Attributes:
        step_id: The step.
        action: Registered name.
        host: Where.
        arguments: Its arguments.
        summary: What it would have done.
        diff: What would have changed.
        decision: What the policy answered; empty where the step was done before and would be taken back.
        rule: The rule that decided.
        tier: How much say it would have needed.
        reason: Why the policy answered so.
        asked: Who would have been asked, in words.
        then: What would have followed in the same plan.
    """

    kind: Literal["would-have-done"] = "would-have-done"
    step_id: str
    action: str
    host: str
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    summary: str = ""
    diff: str = ""
    decision: Literal["allow", "ask", ""] = ""
    rule: str = ""
    tier: int = 0
    reason: str = ""
    asked: str
    then: tuple[str, ...] = ()


class EffectIntended(BaseEvent):
    """An effect is about to happen."""

    kind: Literal["effect-intended"] = "effect-intended"
    step_id: str
    key: str


class EffectDone(BaseEvent):
    """An effect happened, or failed."""

    kind: Literal["effect-done"] = "effect-done"
    step_id: str
    ok: bool
    detail: str


class EffectInDoubt(BaseEvent):
    """A crash hid whether an effect happened; the action's probe answered this."""

    kind: Literal["effect-in-doubt"] = "effect-in-doubt"
    step_id: str
    answer: ProbeAnswer


class Verified(BaseEvent):
    """Whether the action's effect is there, and whether the alert's condition is clear."""

    kind: Literal["verified"] = "verified"
    step_id: str
    effect_ok: bool
    condition_clear: bool
    detail: str


class RolledBack(BaseEvent):
    """A change was taken back, or could not be."""

    kind: Literal["rolled-back"] = "rolled-back"
    step_id: str
    ok: bool
    detail: str


class Spent(Record):
    """What an incident took of its budgets, and how much each allows."""

    tokens: int
    max_tokens: int
    seconds: float
    max_seconds: float
    actions: int
    max_actions: int
    facts: int
    max_facts: int


class Escalated(BaseEvent):
    """The incident is handed to people.

    Attributes:
        reason: Why.
        found: What was found out.
        left: What was left undone, or could not be taken back.
        spent: What was spent.
    """

    kind: Literal["escalated"] = "escalated"
    reason: str
    found: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    spent: Spent | None = None


class WouldHaveCalled(BaseEvent):
    """Watchkeeper only observes: these people would have been called, and were not.

    Attributes:
        policy: Name of the policy that chooses them.
        subject: What they would have been called about.
        called: Who would have been called first.
    """

    kind: Literal["would-have-called"] = "would-have-called"
    policy: str
    subject: str
    called: tuple[str, ...]


class EscalationStarted(BaseEvent):
    """People are called about a question, or about the incident (no ``approval_id``)."""

    kind: Literal["escalation-started"] = "escalation-started"
    escalation_id: str
    approval_id: str = ""
    policy: str
    subject: str


class LevelReached(BaseEvent):
    """A level of an escalation is called, for the first time or again; ``due_at`` is when the next is."""

    kind: Literal["level-reached"] = "level-reached"
    escalation_id: str
    step: int
    level: int
    round: int = 0
    called: tuple[str, ...]
    due_at: datetime | None = None


class Notified(BaseEvent):
    """Somebody was told."""

    kind: Literal["notified"] = "notified"
    escalation_id: str
    notification_id: str
    recipient: str
    channel: str


class NotificationLost(BaseEvent):
    """Somebody could not be told (``failed``), or whether they were is hidden by a crash (``unknown``)."""

    kind: Literal["notification-lost"] = "notification-lost"
    escalation_id: str
    notification_id: str
    recipient: str
    channel: str
    outcome: Literal["failed", "unknown"]
    detail: str


class Acknowledged(BaseEvent):
    """Somebody said that they are on it; nobody else is called."""

    kind: Literal["acknowledged"] = "acknowledged"
    escalation_id: str
    by: str
    reason: str = ""


class Delegated(BaseEvent):
    """Somebody handed a call on to another person."""

    kind: Literal["delegated"] = "delegated"
    escalation_id: str
    by: str
    to: str
    reason: str = ""


class EscalationEnded(BaseEvent):
    """An escalation is over: answered, or in silence (a question is then answered no)."""

    kind: Literal["escalation-ended"] = "escalation-ended"
    escalation_id: str
    outcome: Literal["answered", "silent"]
    detail: str


class RetrainingAsked(BaseEvent):
    """A predictor is to be retrained.

    Attributes:
        predictor: Its name.
        request: What was asked for (`watchkeeper.runtime.lifecycle_rules.Retraining`).
        drift: Whether a drift alert is behind it, so that an agent decides first.
    """

    kind: Literal["retraining-asked"] = "retraining-asked"
    predictor: str
    request: dict[str, JsonValue]
    drift: bool = False


class StageJudged(BaseEvent):
    """A stage of the lifecycle of a predictor was gone through.

    Attributes:
        stage: The stage, e.g. ``compare``.
        ok: Whether it goes on.
        detail: What was found, for people.
        values: What was found, for programs.
    """

    kind: Literal["stage-judged"] = "stage-judged"
    stage: str
    ok: bool
    detail: str
    values: dict[str, JsonValue] = Field(default_factory=dict)


class LifecycleEnded(BaseEvent):
    """The lifecycle of a predictor's version ended: it answers, or why it does not."""

    kind: Literal["lifecycle-ended"] = "lifecycle-ended"
    predictor: str
    outcome: str
    reason: str
    version: int | None = None
    report: str = ""


class IncidentClosed(BaseEvent):
    """The work on the incident ended with this status."""

    kind: Literal["incident-closed"] = "incident-closed"
    status: str
    summary: str


class Progress(BaseEvent):
    """A piece of text while an answer is being generated; shown, never stored."""

    kind: Literal["progress"] = "progress"
    text: str


Event = Annotated[
    IncidentOpened
    | StageEntered
    | TriageDone
    | FactsChosen
    | EvidenceGathered
    | SuspiciousText
    | DecisionMade
    | DiagnosisMade
    | CausePutOff
    | CausesRuledOut
    | PlanProposed
    | PlanRefused
    | PolicyDecided
    | ApprovalRequested
    | ApprovalDecided
    | WouldHaveDone
    | EffectIntended
    | EffectDone
    | EffectInDoubt
    | Verified
    | RolledBack
    | Escalated
    | WouldHaveCalled
    | EscalationStarted
    | LevelReached
    | Notified
    | NotificationLost
    | Acknowledged
    | Delegated
    | EscalationEnded
    | RetrainingAsked
    | StageJudged
    | LifecycleEnded
    | IncidentClosed
    | Progress,
    Field(discriminator="kind"),
]

EVENT: TypeAdapter[Event] = TypeAdapter(Event)
"""Reads an event from JSON by its ``kind``."""
