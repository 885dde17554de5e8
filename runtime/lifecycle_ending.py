"""Nodes of the lifecycle at its ends: intake, the agent's word on drift, and the report."""

from __future__ import annotations

from pydantic import ValidationError

from watchkeeper.agents import FactCall
from watchkeeper.agents.curator import Course, Situation
from watchkeeper.runtime.drift_alerts import is_of_serving
from watchkeeper.runtime.events import Escalated, IncidentClosed, LifecycleEnded, StageJudged
from watchkeeper.runtime.incidents import IncidentStatus
from watchkeeper.runtime.investigation import Investigation
from watchkeeper.runtime.lifecycle_changing import ACTIONS
from watchkeeper.runtime.lifecycle_report import write_lifecycle_report
from watchkeeper.runtime.lifecycle_run import LifecycleRun
from watchkeeper.runtime.lifecycle_scoring import finder_of
from watchkeeper.runtime.lifecycle_state import Change, LifecycleState, Outcome, Update, ends
from watchkeeper.runtime.report import build_report
from watchkeeper.runtime.report_markdown import write_report
from watchkeeper.tools.errors import ToolError
from watchkeeper.tools.passages import Trusted, passage

QUALITY = "predictor.quality"
"""The fact that says how a predictor does."""


class Ending:
    """The nodes that begin and end a lifecycle."""

    def __init__(self, run: LifecycleRun) -> None:
        self._run = run
        self._journal = run.context.journal

    def intake(self, state: LifecycleState) -> Update:
        """Begin; where a drift alert is behind it, an agent decides first."""
        self._run.enter(state, "intake")
        self._journal.incidents.set_status(state["incident"], IncidentStatus.INVESTIGATING)
        return {"verdict": "consider" if self._run.drift else "check", "steps": {}, "repeat": 0}

    def consider(self, state: LifecycleState) -> Update:
        """Let the agent decide what is done about drift; where it is unsure, people are called."""
        self._run.enter(state, "consider")
        run, context, incident_id = self._run, self._run.context, state["incident"]
        call = self._quality_call()
        Investigation(context).gather(incident_id, call)
        evidence = next(
            item for item in reversed(self._journal.incidents.evidence(incident_id)) if item.fact == QUALITY
        )
        if evidence.result is None:
            return ends(Outcome.ESCALATED, f"it is not known how the predictor does: {evidence.error}")
        alert = context.incident({"incident": incident_id}).alert
        if not any(finding.kind in alert.condition.firing for finding in evidence.findings):
            return ends(Outcome.LEFT, "the predictor does as before, so nothing is done")
        situation = self._situation(dict(evidence.result))
        host = context.site.inventory.host(run.request.host)
        submit = context.site.registry.action(ACTIONS[Change.TRAIN])
        promote = context.site.registry.action(ACTIONS[Change.PROMOTE])
        may = all(
            context.site.policy.allows_ever(action, host) and context.team.may_propose(action.name)
            for action in (submit, promote)
        )
        # What it is asked and answers has an incident of its own, which may retrain it.
        courses = situation.courses(may_retrain=may and not is_of_serving(alert))
        course, decision = context.team.choose_course(situation, courses)
        sure = decision.confidence >= run.request.sure
        self._journal.decide(incident_id, decision, key="course", accepted=sure, threshold=run.request.sure)
        run.judged(
            state,
            "consider",
            f"the agent would {course.value} (p = {decision.confidence:.2f})",
            ok=sure,
            course=course.value,
            probability=decision.confidence,
        )
        if not sure:
            return ends(
                Outcome.ESCALATED,
                f"the agent would {course.value}, but is not sure enough ({decision.confidence:.2f}, and "
                f"{run.request.sure:g} is wanted)",
            )
        match course:
            case Course.RETRAIN:
                return {"verdict": "check"}
            case Course.WAIT:
                return ends(Outcome.LEFT, "the agent waits: what was found is too little to act on")
            case Course.ESCALATE:
                return ends(Outcome.ESCALATED, "the agent calls a person")

    def report(self, state: LifecycleState) -> Update:
        """Write the report, close the incident, and call people where something is left to them."""
        run, incident_id = self._run, state["incident"]
        run.enter(state, "report")
        outcome, reason = Outcome(state["outcome"]), state["reason"]
        path = write_lifecycle_report(run, state)
        status = self._status(outcome)
        summary = f"{run.request.predictor}: {outcome.value}: {reason}"
        with self._journal.store.transaction():
            self._journal.record(
                incident_id,
                LifecycleEnded(
                    predictor=run.request.predictor,
                    outcome=outcome.value,
                    reason=reason,
                    version=state.get("version"),
                    report=str(path),
                ),
                key="lifecycle-ended",
            )
            if status is IncidentStatus.ESCALATED:
                self._hand_over(incident_id, summary)
            self._journal.incidents.set_status(incident_id, status, summary=summary)
            self._journal.record(
                incident_id, IncidentClosed(status=status.value, summary=summary), key="closed"
            )
        report = build_report(self._journal, incident_id, watts=run.context.settings.cpu_watts)
        write_report(report, run.context.site.home / "reports")
        return {}

    def _status(self, outcome: Outcome) -> IncidentStatus:
        if outcome is Outcome.PROMOTED:
            return IncidentStatus.RESOLVED
        # Whoever asked for it sees what came of it; of drift that nothing mended, people must hear.
        unmended = outcome.refused and self._run.drift
        if unmended or outcome in {Outcome.ESCALATED, Outcome.ROLLED_BACK}:
            return IncidentStatus.ESCALATED
        return IncidentStatus.CLOSED

    def _hand_over(self, incident_id: str, reason: str) -> None:
        context = self._run.context
        events = self._journal.incidents.events(incident_id)
        found = tuple(f"{e.stage}: {e.detail}" for e in events if isinstance(e, StageJudged))
        self._journal.record(incident_id, Escalated(reason=reason, found=found), key="escalated")
        labels = context.site.labels(self._run.request.host)
        self._journal.escalations.start_hand_over(
            incident_id, context.site.escalation, labels=labels, reason=reason
        )

    def _quality_call(self) -> FactCall:
        arguments = {"name": self._run.request.predictor}
        fact = self._run.context.site.registry.fact(QUALITY)
        return FactCall(
            fact=QUALITY, arguments=arguments, about=fact.describe(fact.parse_arguments(arguments))
        )

    def _situation(self, found: dict[str, object]) -> Situation:
        """Take numbers alone: of what was found, and of the rows that a new version would learn from."""

        def number(name: str) -> float | None:
            value = found.get(name)
            return float(value) if isinstance(value, int | float) else None

        def ratio(name: str, other: str) -> float | None:
            value, least = number(name), number(other)
            return None if value is None or not least else value / least

        return Situation(
            predictor=passage("{name}", name=Trusted(self._run.request.predictor)),
            predictions=int(number("predictions") or 0),
            asked_shifted=int(number("rows_shifted") or 0),
            answers_shifted=int(number("answers_shifted") or 0),
            labels=int(number("labels") or 0),
            share=number("share"),
            held_out=number("held_out"),
            worse=bool(found.get("worse")),
            fresh_rows=self._fresh_rows(),
            right_before=number("right_before"),
            right_since=number("right_since"),
            slower=ratio("seconds_now", "seconds_before") if found.get("slower") else None,
            failing=ratio("failed", "asked") if found.get("failing") else None,
        )

    def _fresh_rows(self) -> int:
        """Count the rows to learn from; none where they are those that the champion learned from."""
        job = self._run.request.job
        try:
            trainer = finder_of(job)(job.trainer)
            data = trainer.inspect(job.data, trainer.parse_parameters(job.parameters))
            champion = self._run.champion()
        except (ToolError, ValidationError, OSError):
            return 0
        same = champion is not None and champion.record.manifest.data_sha256 == data.sha256
        return 0 if same else data.rows
