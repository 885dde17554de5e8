"""What an audit log is made of, and what is found about it."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from watchkeeper.runtime.canonical import canonical

GENESIS = "0" * 64
"""What the first entry holds as the hash of the one before."""

LOG = "audit.jsonl"
CHECKPOINTS = "checkpoints.jsonl"


class AuditEntry(BaseModel):
    """One line of the log.

    Attributes:
        seq: Its number, from 1.
        at: When it was written (UTC).
        kind: What happened, e.g. ``approval-decided``.
        data: What belongs to it, without secrets.
        previous: SHA-256 of the line before; zeros in the first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seq: int = Field(ge=1)
    at: datetime
    kind: str
    data: JsonValue
    previous: str

    def line(self) -> bytes:
        """Its canonical JSON (RFC 8785), without the end of line."""
        return canonical(
            {
                "seq": self.seq,
                "at": _stamp(self.at),
                "kind": self.kind,
                "data": self.data,
                "previous": self.previous,
            }
        )


class Checkpoint(BaseModel):
    """A signed statement: the log had this many entries, and the last one had this hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int = Field(ge=0)
    head: str
    at: datetime
    signature: str

    @staticmethod
    def content(count: int, head: str, at: datetime) -> bytes:
        """The bytes that are signed."""
        return canonical({"count": count, "head": head, "at": _stamp(at)})

    def line(self) -> bytes:
        """Its canonical JSON, without the end of line."""
        return canonical(
            {"count": self.count, "head": self.head, "at": _stamp(self.at), "signature": self.signature}
        )


class AuditProblem(BaseModel):
    """One thing that is not as it was written: where, and what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    line: int
    what: str


class AuditReport(BaseModel):
    """What was found about an audit log.

    Attributes:
        ok: Whether it is as it was written.
        entries: Entries that were read.
        head: Hash of the last one.
        checkpoints: Signed checkpoints that fit.
        signed: Entries that the last of them covers.
        key: SHA-256 of the public key; compare it with a copy kept elsewhere.
        problems: What is not right.
        notes: What is right, but worth knowing (a line torn by a crash).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ok: bool
    entries: int
    head: str
    checkpoints: int
    signed: int
    key: str = ""
    problems: tuple[AuditProblem, ...] = ()
    notes: tuple[str, ...] = ()


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
