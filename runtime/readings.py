"""Evidence as it is kept: without secrets; and what the quarantined reader said, as evidence."""

from __future__ import annotations

from datetime import datetime

from pydantic import JsonValue

from watchkeeper.agents import Reading
from watchkeeper.tools.evidence import Evidence, digest_json
from watchkeeper.tools.fact import Provenance
from watchkeeper.tools.findings import Finding, FindingKind
from watchkeeper.tools.redaction import redact_looks, redact_text


def without_secrets(evidence: Evidence) -> Evidence:
    """Take secrets out of what a fact read (log lines, command lines): it is kept, reported and shown."""
    findings = tuple(
        finding.model_copy(update={"text": redact_text(finding.text)}) for finding in evidence.findings
    )
    evidence = evidence.model_copy(update={"error": redact_text(evidence.error), "findings": findings})
    kept = redact_looks(evidence.result)
    if kept == evidence.result or not isinstance(kept, dict):
        return evidence
    return evidence.model_copy(update={"result": kept, "digest": digest_json(kept)})


def reading_evidence(
    evidence_id: str, source: Evidence, reading: Reading, confidence: float, at: datetime
) -> Evidence:
    """Turn the reader's enum and its probability into evidence; nothing that it read is in it."""
    subject = str(source.arguments.get("service") or source.arguments.get("path") or source.host)
    # A small model often mistakes what a log is about (it took full disks for broken networks), so its
    # word is on record for people and supports no hypothesis: the plain classes of log lines do that.
    finding = Finding(
        kind=FindingKind.CUSTOM,
        subject=subject,
        text=f"a reader of the log of {subject} takes it to be about: {reading.theme} ({confidence:.0%})",
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
        findings=(finding,),
        provenance=Provenance.TRUSTED,
        digest=digest_json(result),
        collected_at=at,
        seconds=0.0,
    )
