"""A case: what agents know of an incident when they are asked. Trusted values only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from watchkeeper.tools.evidence import Evidence
from watchkeeper.tools.fact import Provenance
from watchkeeper.tools.findings import Finding, FindingKind, Severity
from watchkeeper.tools.inventory import HostSpec
from watchkeeper.tools.passages import Trusted, lines, passage, stand_in
from watchkeeper.tools.schema import words_of

_PLAIN_SUBJECT = re.compile(r"(?:port )?\d+")


@dataclass(frozen=True, slots=True)
class Attempt:
    """A hypothesis that had its turn, and what came of it."""

    hypothesis: Trusted
    action: Trusted
    result: Trusted


@dataclass(frozen=True, slots=True)
class Case:
    """An incident as agents with tools see it.

    No word of what it tells was written by strangers: no log line, no alert text, no name of a file or a
    process. Log lines are read by the quarantined reader, whose enums and numbers arrive here as findings;
    names are told as stand-ins (``file-1``), which the executor turns back.

    Attributes:
        host: The host and its services, from the inventory.
        service: The service that the alert names, or empty.
        condition: The alert's own condition in words.
        evidence: What was read so far, the oldest first.
        attempts: What was tried so far.
        names: What others named, in the order in which it was found: `stand_in` numbers it.
        worded: Key of the fact and arguments that the alert words with values that are not in the
            inventory; empty where it has none. Of what it finds only the kinds are told.
        alarm: Key of the fact and arguments of the alert's own condition.
        firing: Kinds of findings of that fact for which the alert fires.
        answers: What people who were asked about an action answered in words.
    """

    host: HostSpec
    service: str
    condition: Trusted
    evidence: tuple[Evidence, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    names: tuple[str, ...] = ()
    worded: str = ""
    alarm: str = ""
    firing: frozenset[str] = frozenset()
    answers: tuple[Trusted, ...] = ()

    def findings(self) -> Iterator[tuple[str, Finding]]:
        """Yield each finding with its evidence's id; a newer reading of the same fact replaces the older."""
        for item in self._latest():
            for finding in item.findings:
                yield item.id, finding

    def alarms(self) -> frozenset[tuple[str, Finding]]:
        """Return the findings, with their evidence's id, for which the alert fires as it was read last.

        None where strangers wrote what is read, as the lines of a log, or where the alert's sender chose the
        words of its condition: neither may decide which cause has its turn first.
        """
        return frozenset(
            (item.id, finding)
            for item in self._latest()
            if call_key(item.fact, item.arguments) == self.alarm
            and item.provenance is Provenance.TRUSTED
            and not self._is_worded(item)
            for finding in item.findings
            if finding.kind in self.firing
        )

    def observations(self) -> Trusted:
        """Write the findings that are not normal as lines of a prompt, the worst first.

        That somebody wrote what speaks to its reader is for people alone: told to agents, it would still sway
        which action they choose, without a word of it.
        """
        abnormal = [
            (item, finding)
            for item in self._latest()
            for finding in item.findings
            if finding.severity is not Severity.NORMAL and finding.kind != FindingKind.SUSPICIOUS_TEXT
        ]
        abnormal.sort(key=lambda pair: pair[1].severity is not Severity.CRITICAL)
        return lines(
            passage(
                "- {severity}: {told}",
                severity=Trusted(finding.severity.value.upper()),
                told=self.told(item, finding),
            )
            for item, finding in abnormal
        )

    def told(self, item: Evidence, finding: Finding) -> Trusted:
        """Say a finding without a word of strangers."""
        if not self._is_worded(item):
            if finding.told:
                told, known = finding.told, words_of(self.host)
                for place, name in enumerate(finding.names):
                    shown = name if name in known else stand_in(name, self.names)
                    told = told.replace(f"{{{place}}}", shown)
                return Trusted(told)
            if item.provenance is Provenance.TRUSTED:
                return Trusted(finding.text)
        return passage("{fact} finds {kind}.", fact=Trusted(item.fact), kind=Trusted(finding.kind))

    def subject(self, name: str) -> Trusted:
        """Return what a finding is about as agents may be told it: as it is where no stranger named it."""
        if _PLAIN_SUBJECT.fullmatch(name) or name in words_of(self.host):
            return Trusted(name)
        for item in self.evidence:
            vouched = item.provenance is Provenance.TRUSTED and not self._is_worded(item)
            if vouched and any(finding.subject == name for finding in item.findings):
                return Trusted(name)
        return stand_in(name, self.names)

    @property
    def remarks(self) -> tuple[Trusted, ...]:
        """Write what people answered as lines of a prompt; empty where nobody did."""
        return tuple(passage("A person in charge said: {answer}", answer=answer) for answer in self.answers)

    @property
    def state(self) -> Trusted:
        """Say whether the alert's own check passes now; empty where it was not read yet."""
        kinds = {finding.kind for _, finding in self.findings()}
        if FindingKind.CHECK_FAILING in kinds:
            return Trusted("Right now the check fails.")
        if FindingKind.CHECK_PASSING in kinds:
            return Trusted("Right now the check passes again.")
        return Trusted("")

    def _latest(self) -> Iterator[Evidence]:
        latest = {call_key(item.fact, item.arguments): item for item in self.evidence}
        return (item for item in self.evidence if latest[call_key(item.fact, item.arguments)] is item)

    def _is_worded(self, item: Evidence) -> bool:
        return bool(self.worded) and call_key(item.fact, item.arguments) == self.worded

    @property
    def evidence_ids(self) -> tuple[str, ...]:
        """Ids of all evidence."""
        return tuple(item.id for item in self.evidence)


def call_key(fact: str, arguments: Mapping[str, JsonValue]) -> str:
    """Name a call of a fact, so that two readings of the same can be told."""
    return f"{fact}{sorted(arguments.items(), key=str)}"
