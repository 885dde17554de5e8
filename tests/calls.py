"""A store with a question in it, people who are called about it, and a clock that a test sets."""

from __future__ import annotations

from typing import Any

from watchkeeper.runtime.alerts import Alert
from watchkeeper.runtime.approvals import Approval
from watchkeeper.runtime.escalation_jobs import EscalationJobs
from watchkeeper.runtime.escalation_rules import EscalationRules
from watchkeeper.runtime.escalation_states import Escalation
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.notify import Message, Sinks, sinks_of
from watchkeeper.runtime.steps import Step
from watchkeeper.tools.action import ActionPlan, Reversibility

DIGEST = "1" * 64
RULES = EscalationRules.model_validate(
    {
        "people": {"alice": {"channels": ["file"]}, "bob": {"channels": ["file", "terminal"]}, "carol": {}},
        "policies": {
            "p": {
                "levels": [
                    {"who": {"users": ["alice"]}, "wait": "5m"},
                    {"who": {"users": ["bob"]}, "wait": "5m"},
                ]
            }
        },
        "default": "p",
    }
)


class Listing:
    """A sink that remembers what it was given, and fails where it is told to.

    Args:
        repeatable: As for sinks.
        errors: What happens, one after the other; None is a success, and so is whatever comes after them.
    """

    def __init__(self, *errors: Exception | None, repeatable: bool = False) -> None:
        self.repeatable = repeatable
        self.sent: list[Message] = []
        self._errors = list(errors)

    def send(self, message: Message) -> None:
        self.sent.append(message)
        error = self._errors.pop(0) if self._errors else None
        if error is not None:
            raise error


def ask(journal: Journal, rules: EscalationRules = RULES, **values: Any) -> tuple[Approval, Escalation]:
    """Open an incident, put a question, and call people about it."""
    alert = {"title": "down", "host": "web-1", "condition": {"kind": "http", "url": "http://127.0.0.1:1/"}}
    incident = journal.open(Alert.model_validate(alert))
    step_id = journal.steps.next_id(incident.id)
    journal.steps.add(
        Step(
            id=step_id,
            incident_id=incident.id,
            host="web-1",
            action="service.restart",
            arguments={"service": "api"},
            reversibility=Reversibility.COMPENSABLE,
            plan=ActionPlan(key=step_id, summary="restart api", diff="- a\n+ b"),
            digest=DIGEST,
        )
    )
    with journal.store.transaction():
        approval = journal.approvals.request(
            incident_id=incident.id,
            step_id=step_id,
            digest=DIGEST,
            summary="restart api",
            requester="watchkeeper",
            **values,
        )
        return approval, journal.escalations.start_question(approval, rules, labels={})


def jobs_of(journal: Journal, sinks: Sinks | None = None) -> EscalationJobs:
    """The work of a journal's escalations."""
    return EscalationJobs(
        journal.store, journal.escalations, sinks or sinks_of(journal.home), now=journal.now
    )
