"""The journal: everything that is written down about incidents, in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from pydantic import JsonValue

from watchkeeper.agents.decision import Decision
from watchkeeper.models.interface import Usage
from watchkeeper.runtime.alerts import Alert
from watchkeeper.runtime.answers import check_answerer, give_answer
from watchkeeper.runtime.approvals import Answer, Approval, Approvals
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.clock import Clock, utc_now
from watchkeeper.runtime.decisions import DecisionRecord, Decisions
from watchkeeper.runtime.doubts import settle_doubt
from watchkeeper.runtime.escalation import Escalations
from watchkeeper.runtime.events import BaseEvent, DecisionMade, Option, Progress
from watchkeeper.runtime.halt import Halts
from watchkeeper.runtime.incidents import Incident, Incidents
from watchkeeper.runtime.known_secrets import learn_secrets
from watchkeeper.runtime.ledger import Ledger
from watchkeeper.runtime.listeners import Listener, Listeners
from watchkeeper.runtime.people import People, Person
from watchkeeper.runtime.settings import STORE
from watchkeeper.runtime.steps import Steps
from watchkeeper.runtime.store import Store

E = TypeVar("E", bound=BaseEvent)


class Journal:
    """The store's repositories and the audit log.

    Args:
        home: Folder of Watchkeeper's state; created if missing.
        store: Where the store is, a file or a URL (default: a SQLite file in the folder).
        solo: Whether one person alone may approve low tiers of what is asked here.
        now: The time; by default the store's, which is one for all machines.
        observe_only: Whether no effect may begin, and nobody is called.

    Raises:
        StoreError: If the state cannot be opened.
        AuditError: If the audit log cannot be written.
    """

    def __init__(
        self,
        home: Path,
        *,
        store: Path | str | None = None,
        solo: bool = False,
        now: Clock | None = None,
        observe_only: bool = False,
    ) -> None:
        self.home = home
        learn_secrets(home, store)
        self.store = Store(store or home / STORE)
        # The log is this machine's own, and is written where the store does not answer.
        self.audit = AuditLog(home, now=now or utc_now)
        self.incidents = Incidents(self.store, now=now)
        now = now or self.store.now
        self.decisions = Decisions(self.store, now=now)
        self.steps = Steps(self.store, now=now)
        self.approvals = Approvals(self.store, solo=solo, now=now)
        self.ledger = Ledger(self.store, self.approvals, now=now, observe_only=observe_only)
        self.halts = Halts(self.store, self.audit, now=now)
        self.people = People(home)
        self._listeners = Listeners(self.store)
        self.escalations = Escalations(
            self.store,
            self.audit,
            now=now,
            listeners=self._listeners,
            users=lambda: self.people.users,
            observe_only=observe_only,
        )
        self.now = now

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call a listener with every event from now on; returns the way to stop that.

        Events of an incident come in the order of their ``seq``, whichever threads write them.
        """
        return self._listeners.add(listener)

    def record(self, incident_id: str, event: E, *, key: str | None = None) -> E:
        """Write an event into the store and the audit log, and tell the listeners.

        An event that cannot be written into the audit log is not kept. One that was kept before is neither
        written nor told again; where a crash came between the log and the store the log holds it twice, and
        both entries name the same place.
        """

        def witness(new: E) -> None:
            self._audit(new)
            self._listeners.promise(new)  # type: ignore[arg-type]

        stored = self.incidents.append_event(incident_id, event, key=key, witness=witness)
        if isinstance(stored, Progress):
            self.store.afterwards(lambda: self._listeners.tell(stored))
        return stored

    def open(self, alert: Alert, *, by: str = "") -> Incident:
        """Open an incident for an alert, or group the alert into the live one; the audit log tells by whom.

        Secrets in the alert's text are not kept.
        """
        return self.incidents.open(
            alert.redacted(), by=by, accounts=self.people.accounts(by), witness=self._audit
        )

    def _audit(self, event: BaseEvent) -> None:
        self.audit.append(getattr(event, "kind", "event"), event.model_dump(mode="json"))

    def decide(
        self, incident_id: str, decision: Decision, *, key: str, accepted: bool = True, threshold: float = 0.0
    ) -> DecisionRecord:
        """Keep why an agent chose what it chose, and tell it.

        A question that a crash made to be asked again keeps its first record where the answer is the
        same, and gets a further one where it is not: what was acted on is always on record.
        """
        record = _record_of(decision, accepted=accepted, threshold=threshold)
        with self.store.transaction():
            kept = self.decisions.add(incident_id, record, key=key)
            if (kept.options, kept.chosen) != (record.options, record.chosen):
                again = record.model_copy(update={"note": "asked again after a restart; " + record.note})
                kept = self.decisions.add(incident_id, again)
            self.record(
                incident_id,
                DecisionMade(
                    decision_id=kept.id,
                    role=kept.role,
                    question=kept.question,
                    options=kept.options,
                    chosen=kept.chosen,
                    accepted=kept.accepted,
                    confidence=kept.options[kept.chosen].probability,
                ),
                key=f"decision:{kept.id}",
            )
        return kept

    def check_answerer(
        self,
        approval_id: str,
        answer: Answer,
        *,
        by: Person | str | None = None,
        token: str | None = None,
    ) -> Person:
        """Say who is about to answer a question, if their roles allow it; see `answers.check_answerer`."""
        return check_answerer(
            self.approvals, self.audit, self.people, approval_id, answer, by=by, token=token
        )

    def answer(
        self,
        approval_id: str,
        answer: Answer,
        *,
        by: Person | str | None = None,
        token: str | None = None,
        reason: str = "",
        arguments: dict[str, JsonValue] | None = None,
    ) -> Approval:
        """Answer a question, and write it into the audit log; see `give_answer`.

        What is said of an effect in doubt is written into the ledger, too.
        """
        return give_answer(
            self.store,
            self.approvals,
            self.audit,
            self.people,
            approval_id,
            answer,
            by=by,
            token=token,
            reason=reason,
            arguments=arguments,
            escalations=self.escalations,
            settle=lambda approval: settle_doubt(self, approval),
        )

    def usage(self, incident_id: str) -> Usage:
        """What the model cost so far."""
        return total_usage(self.decisions.list(incident_id))

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def total_usage(records: Iterable[DecisionRecord]) -> Usage:
    """Add up what decisions cost."""
    total = Usage()
    for record in records:
        total += Usage(
            prompt_tokens=record.prompt_tokens,
            cached_tokens=record.cached_tokens,
            generated_tokens=record.generated_tokens,
            seconds=record.seconds,
        )
    return total


def _record_of(decision: Decision, *, accepted: bool, threshold: float) -> DecisionRecord:
    options = decision.options or ("-",)
    probabilities = decision.probabilities or (1.0,) * len(options)
    further = [options[index] for index in decision.chosen[1:]]
    return DecisionRecord(
        role=decision.role,
        question=decision.question,
        options=tuple(
            Option(text=text, probability=min(1.0, max(0.0, probability)))
            for text, probability in zip(options, probabilities, strict=True)
        ),
        chosen=decision.chosen[0] if decision.chosen else 0,
        accepted=accepted and bool(decision.chosen),
        threshold=threshold,
        model=decision.identity.id,
        quantization=decision.identity.quantization,
        model_digest=decision.identity.digest,
        basis=decision.basis,
        calibration_digest=decision.calibration,
        adapter=decision.adapter,
        prompt_digest=decision.prompt_digest,
        evidence_ids=decision.evidence,
        prompt_tokens=decision.usage.prompt_tokens,
        cached_tokens=decision.usage.cached_tokens,
        generated_tokens=decision.usage.generated_tokens,
        seconds=decision.usage.seconds,
        note=f"taken too: {'; '.join(further)}" if further else "",
    )
