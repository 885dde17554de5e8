"""What every node of the incident graph works with."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from watchkeeper.agents import Attempt, Case, Diagnosis, Hypothesis, Team
from watchkeeper.agents.hypotheses import Support
from watchkeeper.runtime.approvals import Answer, ApprovalStatus
from watchkeeper.runtime.errors import ConfigurationError
from watchkeeper.runtime.incidents import Incident
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.settings import Settings
from watchkeeper.runtime.site import Site
from watchkeeper.runtime.state import IncidentState
from watchkeeper.runtime.wording import visible
from watchkeeper.tools.evidence import Evidence
from watchkeeper.tools.fact import Provenance
from watchkeeper.tools.findings import Finding
from watchkeeper.tools.passages import Trusted, passage

_NUMBERS = re.compile(r"[0-9]+(@[0-9.]+)?")  # nobody names anything with these: a process' number and start


@dataclass(frozen=True, slots=True)
class Context:
    """The site, the team and the journal of a run.

    Attributes:
        site: Hosts, tools, policy.
        team: Who decides.
        journal: Where everything is written.
        settings: Thresholds and budgets.
        requester: In whose name actions are asked for.
    """

    site: Site
    team: Team
    journal: Journal
    settings: Settings = field(default_factory=Settings)
    requester: str = "watchkeeper"

    def incident(self, state: IncidentState) -> Incident:
        """Return the incident of a state."""
        return self.journal.incidents.get(state["incident"])

    def case(self, state: IncidentState) -> Case:
        """Put together what agents with tools may know of an incident."""
        case = self.case_of(state["incident"], self.journal.incidents.evidence(state["incident"]))
        causes = {cause.id: cause for cause in self.team.causes}
        attempts: list[Attempt] = []
        for turn in state.get("turns", ()):
            cause, _, subject = turn["hypothesis"].partition(":")
            if turn["action"] and cause in causes:
                told = Hypothesis(causes[cause], subject, ()).told(case)
                attempts.append(Attempt(told, Trusted(turn["action"]), what_came_of(turn["result"])))
        return replace(case, attempts=tuple(attempts))

    def case_of(self, incident_id: str, evidence: tuple[Evidence, ...], *, answered: bool = True) -> Case:
        """Put together what agents with tools may know of an incident before anything was tried.

        Args:
            incident_id: The incident.
            evidence: What was read so far.
            answered: Whether what people answered in words is part of it.

        Raises:
            UnknownHostError: If its host is not in the inventory (any more).
            UnknownToolError: If the fact of its condition is not registered (any more).
        """
        alert = self.journal.incidents.get(incident_id).alert
        host, condition = alert.host, alert.condition
        return Case(
            host=self.site.inventory.host(host),
            service=alert.service or "",
            condition=self.site.told(host, condition),
            evidence=evidence,
            names=self._names(evidence),
            answers=self._answers(incident_id) if answered else (),
            worded="" if self.site.is_of_inventory(host, condition) else self.site.call_of(condition),
            alarm=self.site.call_of(condition),
            firing=frozenset(condition.firing),
        )

    def _names(self, evidence: tuple[Evidence, ...]) -> tuple[str, ...]:
        """Collect what others named, in the order in which it was found."""
        found: dict[str, None] = {}
        known = {fact.name: fact for fact in self.site.registry.facts}
        for item in evidence:
            if item.provenance is Provenance.TRUSTED or item.result is None or item.fact not in known:
                continue
            for finding in item.findings:
                found |= dict.fromkeys(finding.names)
            fact = known[item.fact]
            for values in fact.offers(fact.result_type.model_validate(item.result)).values():
                found |= dict.fromkeys(value for value in values if not _NUMBERS.fullmatch(value))
        return tuple(found)

    def _answers(self, incident_id: str) -> tuple[Trusted, ...]:
        """What people answered in words, the oldest first; each one line."""
        found = self.journal.approvals.list(
            incident_id=incident_id, status=ApprovalStatus.ANSWERED, limit=10_000
        )
        said = [a.reason for a in reversed(found) if a.answer is Answer.RESPOND]
        # Whoever may answer for an action may also be heard by the agents.
        return tuple(Trusted(visible(" ".join(text.split()))) for text in said)

    def hypothesis(self, state: IncidentState) -> tuple[Hypothesis, Diagnosis]:
        """Return the hypothesis whose turn it is.

        Raises:
            ConfigurationError: If its cause is not known to the team (any more).
        """
        diagnosis = Diagnosis.model_validate(state["diagnosis"])
        cause = {cause.id: cause for cause in self.team.causes}.get(diagnosis.cause)
        if cause is None:
            raise ConfigurationError(
                f"incident {state['incident']!r} acts on cause {diagnosis.cause!r}, which no agent of this "
                "team knows: go on with the agents that it was started with"
            )
        known: dict[tuple[str, str], Finding] = {
            (item.id, finding.text): finding
            for item in self.journal.incidents.evidence(state["incident"])
            for finding in item.findings
        }
        support = tuple(
            Support(claim.evidence, known[claim.evidence, claim.statement])
            for claim in diagnosis.claims
            if (claim.evidence, claim.statement) in known
        )
        return Hypothesis(cause, diagnosis.subject, support), diagnosis

    def read_condition(self, incident: Incident) -> Evidence:
        """Read the alert's own condition now, without keeping it."""
        condition = incident.alert.condition
        return self.site.registry.gather(
            condition.fact,
            self.site.target(incident.alert.host),
            dict(condition.arguments),
            id="E0",
            now=self.journal.now,
        )

    def fires(self, incident: Incident, evidence: Evidence) -> bool:
        """Whether a reading of the condition says that the alert still fires; an unreadable one does."""
        if evidence.result is None:
            return True
        firing = incident.alert.condition.firing
        return any(finding.kind in firing for finding in evidence.findings)


def what_came_of(result: str) -> Trusted:
    """Say in words of our own what came of an attempt: what a tool said of its failure may quote others."""
    for own in ("it did not help", "it failed", "its effect is not there"):
        if result.startswith(own):
            return passage("{what} and was taken back", what=Trusted(own))
    return Trusted("it was taken back")
