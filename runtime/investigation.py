"""Nodes that find out: intake, triage, investigate, fact, assess, diagnose, settle."""

from __future__ import annotations

import time
from typing import Any

from langgraph.types import Send

from watchkeeper.agents import Decision, Diagnosis, FactCall, supported
from watchkeeper.agents.causes import NOTHING_WRONG
from watchkeeper.agents.diagnostician import diagnosis_of
from watchkeeper.agents.hypotheses import PutOff, key_of, put_offs
from watchkeeper.models.errors import CancelledError
from watchkeeper.runtime.alerts import Alert
from watchkeeper.runtime.budgets import exhausted, remaining_calls, unread
from watchkeeper.runtime.context import Context
from watchkeeper.runtime.events import (
    Call,
    CausePutOff,
    CausesRuledOut,
    Claim,
    DiagnosisMade,
    DiagnosisStatus,
    EvidenceGathered,
    FactsChosen,
    RuledOut,
    StageEntered,
    SuspiciousText,
    TriageDone,
    Verified,
)
from watchkeeper.runtime.incidents import IncidentStatus
from watchkeeper.runtime.readings import reading_evidence, without_secrets
from watchkeeper.runtime.state import FactTask, IncidentState, Turn
from watchkeeper.tools.evidence import Evidence, digest_json
from watchkeeper.tools.fact import Provenance
from watchkeeper.tools.findings import Severity
from watchkeeper.tools.suspicion import suspicion

FACTS_A_ROUND = 5
"""Facts that the investigator chooses at a time; they are read in parallel."""

ROUNDS = 3
"""Rounds before the first diagnosis: the condition itself, then two that the investigator chose."""

CLEAR_READINGS = 3
"""Readings in a row that must pass before a condition counts as clear."""

Update = dict[str, Any]


class Investigation:
    """The nodes that look and think; none of them changes anything outside the journal."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def intake(self, state: IncidentState) -> Update:
        """Begin: the incident is under investigation."""
        with self._context.journal.store.transaction():
            self._enter(state, "intake")
            self._context.journal.incidents.set_status(state["incident"], IncidentStatus.INVESTIGATING)
        return {"round": 0, "applied": [], "queue": [], "repeat": 0, "verdict": "", "reason": ""}

    def triage(self, state: IncidentState) -> Update:
        """Let the quarantined triage agent judge the alert's text; its answer is an enum."""
        self._enter(state, "triage")
        incident = self._context.incident(state)
        found, decisions = self._context.team.triage(
            title=incident.alert.title, description=incident.alert.description
        )
        # The model may raise what the sender said, not lower it.
        rank = {"info": 0, Severity.NORMAL: 0, Severity.WARNING: 1, Severity.CRITICAL: 2}
        thought = Severity.NORMAL if found.severity == "info" else Severity(found.severity)
        severity = max(incident.alert.severity, thought, key=lambda s: rank[s])
        note = "" if severity is thought else f"as the alert has it; the model thinks {found.severity}"
        with self._context.journal.store.transaction():
            for number, decision in enumerate(decisions):
                self._context.journal.decide(incident.id, decision, key=f"triage:{number}")
            self._context.journal.incidents.set_severity(incident.id, severity)
            for number, line in enumerate([incident.alert.title, *incident.alert.description.splitlines()]):
                if suspicion(line) is not None:
                    self._context.journal.record(
                        incident.id,
                        SuspiciousText(evidence_id="alert", quote=line[:300]),
                        key=f"suspicious:alert:{number}",
                    )
            self._context.journal.record(
                incident.id, TriageDone(severity=severity, summary=found.symptom, note=note), key="triage"
            )
        return {}

    def investigate(self, state: IncidentState) -> Update:
        """Choose what to look at next; the first round reads the alert's condition and services."""
        number = state["round"]
        self._enter(state, f"investigate:{number}")
        calls = remaining_calls(self._context, state)
        decision: Decision | None = None
        if number == 0:
            alert = self._context.incident(state).alert
            baseline = [call for call in calls if self._is_baseline(alert, call)]
            chosen = tuple(baseline[: self._context.settings.max_facts])
            probabilities: tuple[float, ...] = ()
        else:
            left = self._context.settings.max_facts - len(state.get("gathered", ()))
            if not calls or left <= 0 or exhausted(self._context, state):
                return {"calls": [], "round": number + 1}
            chosen, decision = self._context.team.next_facts(
                self._context.case(state), calls, take=min(FACTS_A_ROUND, left)
            )
            probabilities = tuple(decision.probabilities[index] for index in decision.chosen)
        with self._context.journal.store.transaction():
            if decision is not None:
                self._context.journal.decide(state["incident"], decision, key=f"investigate:{number}")
            host = self._context.incident(state).alert.host
            self._context.journal.record(
                state["incident"],
                FactsChosen(
                    calls=tuple(Call(fact=call.fact, host=host, arguments=call.arguments) for call in chosen),
                    probabilities=probabilities,
                ),
                key=f"facts:{number}",
            )
            first = self._context.journal.incidents.next_evidence(state["incident"])
        return {"calls": [call.model_dump() for call in chosen], "first": first, "round": number + 1}

    def fan_out(self, state: IncidentState) -> list[Send] | str:
        """One parallel branch for each chosen fact; straight on where there is none."""
        if not state["calls"]:
            return "diagnose"
        return [
            Send("fact", FactTask(incident=state["incident"], number=number, call=call))
            for number, call in enumerate(state["calls"], start=state["first"])
        ]

    def fact(self, state: FactTask) -> Update:
        """Read one fact and keep it as evidence."""
        call = FactCall.model_validate(state["call"])
        self.gather(state["incident"], call, number=state["number"])
        return {"gathered": [call.key]}

    def read_again(self, state: IncidentState) -> None:
        """Read the alert's own condition anew, as evidence that replaces what it said before."""
        condition = self._context.incident(state).alert.condition
        fact = self._context.site.registry.fact(condition.fact)
        arguments = fact.parse_arguments(dict(condition.arguments))
        call = FactCall(
            fact=fact.name, arguments=arguments.model_dump(mode="json"), about=fact.describe(arguments)
        )
        self.gather(state["incident"], call, key=f"again:{len(state.get('turns', ()))}:{call.key}")

    def gather(
        self, incident_id: str, call: FactCall, *, key: str | None = None, number: int | None = None
    ) -> None:
        """Read a fact and keep it; a second time with the same key (by default the call) does nothing."""
        context = self._context
        incident = context.journal.incidents.get(incident_id)

        def read(id: str) -> Evidence:  # noqa: A002 (the field's name)
            target = context.site.target(incident.alert.host)
            found = context.site.registry.gather(
                call.fact, target, call.arguments, id=id, now=context.journal.now
            )
            return without_secrets(found)

        def tell(evidence: Evidence) -> None:
            context.journal.record(
                incident_id,
                EvidenceGathered(
                    evidence_id=evidence.id,
                    fact=evidence.fact,
                    host=evidence.host,
                    arguments=evidence.arguments,
                    findings=evidence.findings,
                    error=evidence.error,
                    seconds=evidence.seconds,
                ),
                key=f"evidence:{evidence.id}",
            )

        context.journal.incidents.add_evidence(
            incident_id, key or call.key, read, number=number, witness=tell
        )

    def assess(self, state: IncidentState) -> Update:
        """Join the branches; let the quarantined reader say what untrusted lines are about."""
        context = self._context
        incident = context.incident(state)
        for item in context.journal.incidents.evidence(incident.id):
            if item.provenance is not Provenance.UNTRUSTED or item.result is None:
                continue
            fact = context.site.registry.fact(item.fact)
            result = fact.result_type.model_validate(item.result)
            for number, quote in enumerate(fact.suspicious(result)):
                context.journal.record(
                    incident.id,
                    SuspiciousText(evidence_id=item.id, quote=quote[:300]),
                    key=f"suspicious:{item.id}:{number}",
                )
            lines = fact.quotations(result)
            if not lines or context.journal.incidents.find_evidence(incident.id, f"reading:{item.id}"):
                continue
            reading, decision = context.team.read(item.id, lines)
            context.journal.decide(incident.id, decision, key=f"read:{item.id}")
            context.journal.incidents.add_evidence(
                incident.id,
                f"reading:{item.id}",
                lambda id, item=item, reading=reading, decision=decision: reading_evidence(  # type: ignore[misc]  # noqa: A006
                    id, item, reading, decision.confidence, context.journal.now()
                ),
            )
        return {"verdict": "diagnose" if state["round"] >= ROUNDS else "investigate"}

    def diagnose(self, state: IncidentState) -> Update:
        """Choose among the hypotheses that evidence supports, or say that nothing is conclusive."""
        context = self._context
        turn = len(state.get("turns", ()))
        self._enter(state, f"diagnose:{turn}:{state['round']}")
        spent = exhausted(context, state)
        if spent:
            return {"verdict": "escalate", "reason": spent}
        case = context.case(state)
        tried = [t["hypothesis"] for t in state.get("turns", ())]
        hypotheses = supported(context.team.causes, case, without=tried)
        more = (
            bool(remaining_calls(self._context, state))
            and len(state["gathered"]) < context.settings.max_facts
        )
        if not hypotheses:
            if more:
                return {"verdict": "investigate"}
            reason = "; ".join(
                filter(None, [f"INCONCLUSIVE: {_nothing_left(state)}", unread(context, state)])
            )
            self._tell_what_stands(state)
            stale = not context.fires(
                context.incident(state), context.read_condition(context.incident(state))
            )
            return {"verdict": "settle" if stale else "escalate", "reason": reason}
        threshold = context.settings.min_confidence
        chosen, diagnosis, decision = context.team.diagnose(case, hypotheses, min_confidence=threshold)
        doubtful = diagnosis.probability < threshold
        key = f"diagnose:{turn}:{state['round']}"
        with context.journal.store.transaction():
            context.journal.decide(
                state["incident"], decision, key=key, accepted=not doubtful, threshold=threshold
            )
            self._tell_diagnosis(state, diagnosis, key)
            for put_off in () if doubtful else put_offs(chosen, hypotheses, decision.probabilities, case):
                self._tell_put_off(state, put_off, key)
                likely = decision.probabilities[hypotheses.index(put_off.first)]
                diagnosis = diagnosis_of(put_off.first, likely, min_confidence=0.0)
                self._tell_diagnosis(state, diagnosis, key)
        if doubtful:
            if more:
                return {"verdict": "investigate"}
            best = f"the best cause has probability {diagnosis.probability:.2f}, below {threshold:.2f}"
            best = "; ".join(filter(None, [best, unread(context, state)]))
            return {
                "diagnosis": diagnosis.model_dump(mode="json"),
                "verdict": "escalate",
                "reason": f"INCONCLUSIVE: {best}",
            }
        update: Update = {"diagnosis": diagnosis.model_dump(mode="json"), "reason": ""}
        return update | {"verdict": "settle" if diagnosis.cause == NOTHING_WRONG.id else "plan"}

    def _tell_put_off(self, state: IncidentState, put_off: PutOff, key: str) -> None:
        both = digest_json([put_off.later.key, put_off.first.key])
        event = CausePutOff(cause=put_off.later.text, reason=f"{put_off.why}: {put_off.first.text}")
        self._context.journal.record(state["incident"], event, key=f"later:{key}:{both}")

    def _tell_diagnosis(self, state: IncidentState, diagnosis: Diagnosis, key: str) -> None:
        found = {
            (item.id, finding.text)
            for item in self._context.journal.incidents.evidence(state["incident"])
            for finding in item.findings
        }
        self._context.journal.record(
            state["incident"],
            DiagnosisMade(
                cause=diagnosis.cause,
                subject=diagnosis.subject,
                status=DiagnosisStatus(diagnosis.status.value.lower()),
                probability=diagnosis.probability,
                claims=tuple(
                    Claim(text=claim.statement, evidence_ids=(claim.evidence,))
                    for claim in diagnosis.claims
                    # A claim cites evidence that exists and says it.
                    if (claim.evidence, claim.statement) in found
                ),
            ),
            # A model that is asked again after a crash may choose otherwise: what stands is told last.
            key=f"{key}:{diagnosis.cause}:{diagnosis.subject}",
        )

    def _tell_what_stands(self, state: IncidentState) -> None:
        """Say what is thought where no cause is left: all were tried in vain, or one was not acted on."""
        journal, turns = self._context.journal, state.get("turns", ())
        told = [
            event
            for event in journal.incidents.events(state["incident"])
            if isinstance(event, DiagnosisMade) and event.cause != NOTHING_WRONG.id
        ]
        waiting = {turn["hypothesis"] for turn in turns if not turn["action"]}
        standing = [event for event in told if key_of(event.cause, event.subject) in waiting]
        key = f"stands:{len(turns)}"
        if not standing:
            tried = tuple(RuledOut(cause=turn["text"], result=turn["result"]) for turn in turns)
            if tried:
                journal.record(state["incident"], CausesRuledOut(tried=tried), key=key)
        elif told[-1] != standing[0]:
            # What was thought first, and not found out to be wrong.
            again = standing[0].model_dump(include={"cause", "subject", "status", "probability", "claims"})
            journal.record(state["incident"], DiagnosisMade.model_validate(again), key=key)

    def settle(self, state: IncidentState) -> Update:
        """Look again, several times, before an alert is closed as stale."""
        context = self._context
        incident = context.incident(state)
        self._enter(state, f"settle:{len(state.get('turns', ()))}")
        clear = is_clear(context, incident.id, patience=0.0)
        context.journal.record(
            incident.id,
            Verified(
                step_id="",
                effect_ok=True,
                condition_clear=clear,
                detail=f"{CLEAR_READINGS} readings in a row passed" if clear else "the condition fires again",
            ),
            key=f"settled:{len(state.get('turns', ()))}:{clear}",
        )
        if clear:
            changed = any(turn["action"] for turn in state.get("turns", ()))
            done = "what was tried was taken back" if changed else "nothing was done"
            return {"verdict": "closed", "reason": f"the alert's condition no longer holds; {done}"}
        if state["reason"]:
            return {"verdict": "escalate"}
        hypothesis, _ = context.hypothesis(state)
        turn = Turn(
            hypothesis=hypothesis.key, text=hypothesis.text, action="", result="the condition fires again"
        )
        return {"verdict": "diagnose", "turns": [turn]}

    def _enter(self, state: IncidentState, stage: str) -> None:
        self._context.journal.record(
            state["incident"], StageEntered(stage=stage.split(":")[0]), key=f"stage:{stage}"
        )

    def _is_baseline(self, alert: Alert, call: FactCall) -> bool:
        condition = self._context.site.registry.fact(alert.condition.fact)
        arguments = condition.parse_arguments(dict(alert.condition.arguments)).model_dump(mode="json")
        if call.fact == alert.condition.fact:
            return bool(call.arguments == arguments)
        return call.fact == "service.status" and call.arguments.get("service") in self._needed(alert)

    def _needed(self, alert: Alert) -> set[str]:
        """The service that an alert names, and those that it needs."""
        host = self._context.site.inventory.host(alert.host)
        needed: set[str] = set()
        waiting = [alert.service] if alert.service else []
        while waiting:
            name = waiting.pop()
            if name not in needed:
                needed.add(name)
                waiting += host.service(name).depends_on
        return needed


def _nothing_left(state: IncidentState) -> str:
    turns = state.get("turns", ())
    if not turns:
        return "no evidence supports any cause"
    tried = "; ".join(f"{turn['text']}: {turn['result']}"[:300] for turn in turns)
    return f"no cause is left that any evidence supports ({tried})"


def is_clear(context: Context, incident_id: str, *, patience: float) -> bool:
    """Whether the alert's condition is clear: several readings in a row pass within a time.

    Args:
        context: The run.
        incident_id: Whose condition is read.
        patience: Seconds to wait for the first reading that passes.

    Raises:
        CancelledError: If the run is stopped meanwhile.
    """
    incident = context.journal.incidents.get(incident_id)
    deadline = time.monotonic() + patience
    passed = 0
    while True:
        if context.fires(incident, context.read_condition(incident)):
            passed = 0
            if time.monotonic() >= deadline:
                return False
        else:
            passed += 1
            if passed >= CLEAR_READINGS:
                return True
        if context.team.cancel.wait(context.settings.reading_pause_seconds):
            raise CancelledError("stopped while the alert's condition was being read")
