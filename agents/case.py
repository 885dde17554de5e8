"""A case: what agents know of an incident when they are asked. Trusted values only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from watchkeeper.tools.evidence import Evidence
from watchkeeper.tools.findings import Finding, FindingKind, Severity
from watchkeeper.tools.inventory import HostSpec


@dataclass(frozen=True, slots=True)
class Attempt:
    """A hypothesis that had its turn, and what came of it."""

    hypothesis: str
    action: str
    result: str


@dataclass(frozen=True, slots=True)
class Case:
    """An incident as agents with tools see it.

    Nothing in it was written by strangers: no log line, no alert text. Those are read by the quarantined
    reader, whose enums and numbers arrive here as findings.

    Attributes:
        host: The host and its services, from the inventory.
        service: The service that the alert names, or empty.
        condition: The alert's own condition in words.
        evidence: What was read so far, the oldest first.
        attempts: What was tried so far.
    """

    host: HostSpec
    service: str
    condition: str
    evidence: tuple[Evidence, ...] = ()
    attempts: tuple[Attempt, ...] = ()

    def findings(self) -> Iterator[tuple[str, Finding]]:
        """Yield each finding with its evidence's id; a newer reading of the same fact replaces the older."""
        latest: dict[str, Evidence] = {}
        for item in self.evidence:
            latest[f"{item.fact}{sorted(item.arguments.items(), key=str)}"] = item
        for item in self.evidence:
            if latest[f"{item.fact}{sorted(item.arguments.items(), key=str)}"] is item:
                for finding in item.findings:
                    yield item.id, finding

    def observations(self) -> str:
        """Write the findings that are not normal as lines of a prompt, the worst first."""
        abnormal = [finding for _, finding in self.findings() if finding.severity is not Severity.NORMAL]
        abnormal.sort(key=lambda finding: finding.severity is not Severity.CRITICAL)
        return "\n".join(f"- {finding.severity.value.upper()}: {finding.text}" for finding in abnormal)

    @property
    def state(self) -> str:
        """Say whether the alert's own check passes now; empty where it was not read yet."""
        kinds = {finding.kind for _, finding in self.findings()}
        if FindingKind.CHECK_FAILING in kinds:
            return "Right now the check fails."
        if FindingKind.CHECK_PASSING in kinds:
            return "Right now the check passes again."
        return ""

    @property
    def evidence_ids(self) -> tuple[str, ...]:
        """Ids of all evidence."""
        return tuple(item.id for item in self.evidence)
