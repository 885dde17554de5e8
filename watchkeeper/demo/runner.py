"""Playing a scenario: a site is broken, agents handle the alert, and the oracle judges from outside."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

from watchkeeper.agents import BUILTIN_CAUSES
from watchkeeper.demo.environment import DemoEnvironment
from watchkeeper.demo.errors import DemoError
from watchkeeper.demo.expectation import Injection
from watchkeeper.demo.faults import inject, unavailable
from watchkeeper.demo.judge import OracleCheck, judge
from watchkeeper.demo.site import Site
from watchkeeper.models.interface import Engine
from watchkeeper.runtime.alerts import DEMO_LABEL, Alert
from watchkeeper.runtime.approvals import Approval
from watchkeeper.runtime.escalation_rules import EscalationRules
from watchkeeper.runtime.events import ApprovalRequested, DiagnosisMade, Event
from watchkeeper.runtime.orchestrator import Orchestrator
from watchkeeper.runtime.report import Report, ReportedDiagnosis
from watchkeeper.runtime.runs import RunFile
from watchkeeper.runtime.settings import Settings

_MARK = ".demo"
"""In the folder of a host that the demo made up; such a folder is the demo's to remove."""

_MOST_NAMES = 1000

Answerer = Callable[[Orchestrator, Approval], None]
"""Answers a question, or leaves it to another terminal."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FirstChoice(_Record):
    """The first cause that the model chose.

    Attributes:
        cause: Which.
        right: Whether it is the cause of the fault that was injected.
        options: How many it chose among.
    """

    cause: str
    right: bool
    options: int


class ActionTaken(_Record):
    """An action that was proposed, and where it ended."""

    action: str
    arguments: dict[str, JsonValue]
    status: str


class ScenarioResult(_Record):
    """What became of a scenario.

    Attributes:
        scenario: Which.
        seed: What its names and wording were drawn from.
        fault: What was injected; agents never learn it.
        incident: Id of the incident.
        diagnosis: The diagnosis that stands, in one line.
        actions: What was proposed and what came of it.
        state: End state of the incident.
        ok: What the oracle says; it looks at the site and at nothing the agents say.
        checks: What it looked at and did not like.
        first_choice: The model's first choice of a cause.
        right_options: Which of the options of that choice were right, in words.
        rollbacks: Effects that were taken back.
        escalations: 1 where a person was called.
        suspicious: Lines quoted as suspicious.
        approvals: Answers that were given, with who gave them.
        seconds: From the alert to the end.
        tokens: Prompt tokens computed, and tokens generated.
        report: The report's Markdown file.
        skipped: Why it was not played; empty if it was.
    """

    scenario: str
    seed: int
    fault: str = ""
    incident: str = ""
    diagnosis: str = ""
    actions: tuple[ActionTaken, ...] = ()
    state: str = ""
    ok: bool = False
    checks: tuple[OracleCheck, ...] = ()
    first_choice: FirstChoice | None = None
    right_options: tuple[str, ...] = ()
    rollbacks: int = 0
    escalations: int = 0
    suspicious: tuple[str, ...] = ()
    approvals: tuple[str, ...] = ()
    seconds: float = 0.0
    tokens: tuple[int, int] = (0, 0)
    report: str = ""
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class Player:
    """Plays scenarios.

    Attributes:
        engine: Who answers.
        settings: Settings of the run; its home receives incidents and reports.
        answerer: Answers the questions.
        expect_refusal: Whether every question is answered no, so that nothing may have changed.
        on_event: Sees every event as it happens.
        on_site: Told of the site once the fault is there.
        on_alert: Changes the alert before it is raised.
    """

    engine: Engine
    settings: Settings
    answerer: Answerer
    expect_refusal: bool = False
    on_event: Callable[[Event], None] = lambda _: None
    on_site: Callable[[DemoEnvironment], None] = lambda _: None
    on_alert: Callable[[Alert], Alert] = lambda alert: alert

    def play(self, scenario: str, seed: int) -> ScenarioResult:
        """Play one scenario from an empty folder to the oracle's judgement.

        Raises:
            DemoError: If the site could not be made or broken.
        """
        kept, seed = free_host(self.settings.home / "hosts", seed)
        try:
            with DemoEnvironment.create(None, seed, state=kept) as environment:
                if reason := unavailable(environment, scenario):
                    return ScenarioResult(scenario=scenario, seed=seed, skipped=reason)
                environment.start()
                inject(environment, scenario)
                self.on_site(environment)
                return self._handle(environment, scenario)
        finally:
            # What was kept of a site that is gone (quarantine, configurations) is of no use to anyone.
            shutil.rmtree(kept, ignore_errors=True)

    def _handle(self, environment: DemoEnvironment, scenario: str) -> ScenarioResult:
        inventory = environment.root / "inventory.yaml"
        RunFile.write_inventory(inventory, environment.inventory())
        with Orchestrator(
            inventory=inventory,
            engine=self.engine,
            settings=self.settings,
            policy=self.settings.policy_path,
            escalation=EscalationRules(),  # a demo calls nobody out of bed
        ) as orchestrator:
            started = time.monotonic()
            incident = orchestrator.open(_marked(self.on_alert(environment.alert())))
            RunFile.of(self.settings, inventory=inventory).write(self.settings.home, incident.id)
            for event in orchestrator.resume(incident.id):
                self.on_event(event)
                if isinstance(event, ApprovalRequested):
                    self.answerer(orchestrator, orchestrator.journal.approvals.get(event.approval_id))
            seconds = time.monotonic() - started
            report = orchestrator.report(incident.id)
        untouched = self.expect_refusal and bool(report.approvals)
        verdict = judge(environment, expect="untouched" if untouched else "repaired")
        injection = environment.injection
        assert injection is not None
        return ScenarioResult(
            scenario=scenario,
            seed=environment.seed,
            fault=injection.detail,
            ok=verdict.ok,
            checks=verdict.failures,
            seconds=round(seconds, 2),
            report=str(self.settings.home / "reports" / f"{incident.id}.md"),
            **_summary(report, injection),
        )


def _marked(alert: Alert) -> Alert:
    """Mark an alert, so that its incident is told from real ones; labels are shown to people alone."""
    return alert.model_copy(update={"labels": {**alert.labels, DEMO_LABEL: "true"}})


def free_host(hosts: Path, seed: int) -> tuple[Path, int]:
    """Return the folder for what is kept of a site's host, and the seed of a site whose host has that name.

    A drawn name may be one of a real host, whose quarantine and last good configurations are there: then the
    next seeds are tried.

    Raises:
        DemoError: If every name is taken.
    """
    for further in range(_MOST_NAMES):
        kept = hosts / Site.drawn(seed + further, Path("/"), 1).host
        if not kept.exists() or (kept / _MARK).exists():
            kept.mkdir(parents=True, exist_ok=True, mode=0o700)
            (kept / _MARK).touch()
            return kept, seed + further
    raise DemoError(
        f"no free name for the demo's host in {str(hosts)!r}: choose another WATCHKEEPER_HOME for the demo"
    )


def _summary(report: Report, injection: Injection) -> dict[str, Any]:
    chosen = [event for event in report.timeline if isinstance(event, DiagnosisMade)]
    asked = [record for record in report.decisions if record.question == "What is the root cause?"]
    first = None
    if chosen and asked:
        right = chosen[0].cause in injection.causes and chosen[0].subject == injection.subject
        first = FirstChoice(cause=chosen[0].cause, right=right, options=len(asked[0].options))
    last = report.diagnoses[-1] if report.diagnoses else None
    return {
        "incident": report.incident.id,
        "diagnosis": _in_words(last) if last else "",
        "actions": tuple(
            ActionTaken(action=step.action, arguments=step.arguments, status=step.status.value)
            for step in report.steps
        ),
        "state": report.outcome,
        "first_choice": first,
        "right_options": tuple(
            cause.text.format(subject=injection.subject)
            for cause in BUILTIN_CAUSES
            if cause.id in injection.causes
        ),
        "rollbacks": report.counts.rollbacks,
        "escalations": report.counts.escalations,
        "suspicious": tuple(event.quote for event in report.suspicious),
        "approvals": tuple(
            f"{approval.step_id}: {approval.answer or approval.status.value} "
            f"by {approval.decided_by or 'nobody'}" + (" (self-approved)" if approval.self_approved else "")
            for approval in report.approvals
        ),
        "tokens": (
            report.cost.prompt_tokens - report.cost.cached_tokens,
            report.cost.generated_tokens,
        ),
    }


def _in_words(diagnosis: ReportedDiagnosis) -> str:
    sure = f"({diagnosis.status}, p = {diagnosis.probability:.2f})"
    return f"{diagnosis.cause} of {diagnosis.subject} {sure}"
