"""What agents answer: small typed values."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict


class _Output(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Triage(_Output):
    """How urgent an alert is, and which kind of symptom it reports."""

    severity: str
    symptom: str


class FactCall(_Output):
    """A fact to be read next.

    Attributes:
        fact: Registered name.
        arguments: Valid arguments of it.
        about: What it would tell, in words.
    """

    fact: str
    arguments: dict[str, Any]
    about: str

    @property
    def key(self) -> str:
        """A stable name of the call, so that it is made once."""
        values = ",".join(f"{name}={self.arguments[name]}" for name in sorted(self.arguments))
        return f"{self.fact}({values})"


class Reading(_Output):
    """What the quarantined reader says of untrusted lines: an enum, never their text."""

    theme: str


class DiagnosisStatus(StrEnum):
    """How sure a diagnosis is: CONFIRMED only once a remedy has made the alert's condition go away."""

    CONFIRMED = "CONFIRMED"
    LIKELY = "LIKELY"
    INCONCLUSIVE = "INCONCLUSIVE"


class Claim(_Output):
    """A statement of a diagnosis and the evidence that it rests on."""

    statement: str
    evidence: str


class Diagnosis(_Output):
    """A root cause with claims that cite evidence.

    Attributes:
        cause: Id of the cause; empty where inconclusive.
        subject: What it is said of.
        text: The cause in words.
        status: How sure it is.
        probability: The model's probability among the hypotheses that evidence supports.
        claims: Why; each cites evidence that exists.
    """

    cause: str
    subject: str
    text: str
    status: DiagnosisStatus
    probability: float
    claims: tuple[Claim, ...] = ()


class Remedy(_Output):
    """An action with its arguments, as the model wants it; not yet planned, linted or approved."""

    action: str
    arguments: dict[str, Any]
