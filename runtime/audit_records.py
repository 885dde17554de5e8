"""What an audit log is made of, and what is found about it."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from watchkeeper.tools.canonical import canonical

GENESIS = "0" * 64
"""What the first entry holds as the hash of the one before."""

LOG = "audit.jsonl"
CHECKPOINTS = "checkpoints.jsonl"
PRUNED = "pruned.jsonl"
EARLIER = "earlier-*"
"""Folders of logs whose key was lost: the first entry of the log that followed names each."""

RESTORED = "home-restored"
"""Kind of the entry that tells of a restored backup."""


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


class Tombstone(BaseModel):
    """A signed statement: entries up to this number were exported and dropped.

    Attributes:
        count: Number of the last entry that was dropped.
        head: Its hash, which the first entry that is left continues.
        at: When (UTC).
        by: Who asked for it.
        export: SHA-256 of the file that holds what was dropped.
        earlier_log: What the log said of the one before it, where that was dropped.
        signature: Of all this.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int = Field(ge=1)
    head: str
    at: datetime
    by: str
    export: str
    earlier_log: dict[str, JsonValue] | None = None
    signature: str = ""

    def content(self) -> bytes:
        """The bytes that are signed: never those of a checkpoint."""
        return canonical(
            {
                "pruned": self.count,
                "head": self.head,
                "at": _stamp(self.at),
                "by": self.by,
                "export": self.export,
                **({} if self.earlier_log is None else {"earlier_log": self.earlier_log}),
            }
        )

    def line(self) -> bytes:
        """Its canonical JSON, without the end of line."""
        return canonical({**self.model_dump(mode="json", exclude_none=True), "at": _stamp(self.at)})


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
        entries: Number of the last entry: how many were ever written.
        pruned: Those of them that were exported and dropped.
        head: Hash of the last one.
        checkpoints: Signed checkpoints that fit.
        signed: Entries that the last of them covers.
        key: SHA-256 of the public key; compare it with a copy kept elsewhere.
        anchors: Anchors that it was compared with; 0 where that was not asked for.
        missing: Whether no log is there, though its key is.
        problems: What is not right.
        notes: What is right, but worth knowing (a line torn by a crash).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ok: bool
    entries: int
    head: str
    checkpoints: int
    signed: int
    pruned: int = 0
    key: str = ""
    anchors: int = 0
    missing: bool = False
    problems: tuple[AuditProblem, ...] = ()
    notes: tuple[str, ...] = ()


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
