"""What the quarantined reader said, as evidence that agents with tools may see."""

from __future__ import annotations

from datetime import datetime

from pydantic import JsonValue

from watchkeeper.agents import Reading
from watchkeeper.tools.evidence import Evidence, digest_json
from watchkeeper.tools.fact import Provenance
from watchkeeper.tools.findings import Finding, FindingKind, Severity

KINDS = {
    "no-space": FindingKind.LOG_NO_SPACE,
    "configuration": FindingKind.LOG_CONFIG_ERROR,
    "network": FindingKind.LOG_CONNECTION,
    "memory": FindingKind.LOG_MEMORY,
    "permission": FindingKind.LOG_PERMISSION,
}
SURE_FROM = 0.6
"""Probability from which the reader's theme becomes a finding; below it, it is on record only."""


def reading_evidence(
    evidence_id: str, source: Evidence, reading: Reading, confidence: float, at: datetime
) -> Evidence:
    """Turn the reader's enum and its probability into evidence; nothing that it read is in it."""
    subject = str(source.arguments.get("service") or source.arguments.get("path") or source.host)
    findings: list[Finding] = []
    if reading.theme in KINDS and confidence >= SURE_FROM:
        findings.append(
            Finding(
                kind=KINDS[reading.theme],
                subject=subject,
                text=f"a reader of the log of {subject} says that it is about: {reading.theme}",
                severity=Severity.WARNING,
            )
        )
    result: dict[str, JsonValue] = {
        "source": source.id,
        "theme": reading.theme,
        "confidence": round(confidence, 4),
    }
    return Evidence(
        id=evidence_id,
        fact="log.reading",
        host=source.host,
        arguments={"source": source.id},
        result=result,
        findings=tuple(findings),
        provenance=Provenance.TRUSTED,
        digest=digest_json(result),
        collected_at=at,
        seconds=0.0,
    )
