"""Evidence: the result of one call of a fact, with what is needed to cite and check it."""

from __future__ import annotations

import hashlib
from datetime import datetime

import rfc8785
from pydantic import BaseModel, ConfigDict, JsonValue

from watchkeeper.tools.fact import Provenance
from watchkeeper.tools.findings import Finding


class Evidence(BaseModel):
    """One fact, read once.

    Attributes:
        id: ``E1``, ``E2``, ... within an incident.
        fact: Name of the fact.
        host: Where it was read.
        arguments: With which arguments.
        result: What came of it, as JSON; None if it could not be read.
        error: Why it could not be read.
        findings: What plain analyzers say of it.
        provenance: Whether the result quotes text that others can write.
        digest: SHA-256 of the result's canonical JSON (RFC 8785).
        collected_at: When it was read (UTC).
        seconds: How long that took.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    fact: str
    host: str
    arguments: dict[str, JsonValue]
    result: dict[str, JsonValue] | None
    error: str = ""
    findings: tuple[Finding, ...] = ()
    provenance: Provenance
    digest: str
    collected_at: datetime
    seconds: float


def digest_json(value: JsonValue) -> str:
    """SHA-256 of a value's canonical JSON, in hexadecimal (RFC 8785)."""
    return hashlib.sha256(rfc8785.dumps(value)).hexdigest()
