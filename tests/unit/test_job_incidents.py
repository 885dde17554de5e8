"""An incident of a job that crashed ends with the job going on, and one of a job that cannot, with people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lamp import prefers
from watchkeeper import Agent, AgentRole, Inventory, Orchestrator, Settings
from watchkeeper.runtime.incidents import Incident, IncidentStatus
from watchkeeper.runtime.policy import Policy
from watchkeeper.runtime.training import TrainingJobs
from watchkeeper.runtime.training_runs import failure_alert
from watchkeeper.tools.builtin import builtin_registry
from watchkeeper.tools.training.record import TrainingJob, TrainingStatus
from watchkeeper.tools.training.spec import JobSpec

ALLOW = """
version: 1
rules:
  - {name: resume, match: {tools: ["job.resume"]}, decision: allow, reason: it can go on}
"""
AGENTS = (
    Agent(
        role=AgentRole.INVESTIGATOR,
        instructions="You look at training jobs.",
        facts=frozenset({"job.status", "job.list"}),
    ),
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Orchestrator]:
    rules = tmp_path / "policy.yaml"
    rules.write_text(ALLOW)
    with Orchestrator(
        inventory=Inventory.model_validate({"hosts": [{"name": "here"}]}),
        engine=prefers("was killed or failed"),
        policy=Policy.load(rules, builtin_registry()),
        agents=AGENTS,
        settings=Settings(home=tmp_path / "home", settle_seconds=0.2, reading_pause_seconds=0.01),
    ) as site:
        yield site


def failed(site: Orchestrator, how: str) -> tuple[TrainingJobs, TrainingJob]:
    jobs = TrainingJobs(site.journal.store, site.journal.home, site.journal.audit)
    spec = JobSpec(name="nightly", trainer="shop.trainers:Price", data=Path("/srv/prices.csv"))
    job = jobs.submit(spec, by="ann")
    return jobs, jobs.end(job.id, TrainingStatus.FAILED, how=how, reason="whatever it said")


def handled(site: Orchestrator, job: TrainingJob) -> Incident:
    alert = failure_alert(job, job.how, job.reason, host="here")
    for _ in site.run(alert):
        pass
    return site.journal.incidents.list()[0]


def test_a_crashed_job_is_resumed_and_the_incident_is_over(site: Orchestrator) -> None:
    jobs, job = failed(site, "crashed")
    incident = handled(site, job)
    assert incident.status is IncidentStatus.RESOLVED, incident.summary
    resumed = jobs.get(job.id)
    assert (resumed.status, resumed.unattended) == (TrainingStatus.QUEUED, 1)


def test_a_job_that_cannot_end_well_is_handed_to_people_untouched(site: Orchestrator) -> None:
    jobs, job = failed(site, "diverged")
    incident = handled(site, job)
    assert incident.status is IncidentStatus.ESCALATED
    assert jobs.get(job.id) == job


def test_what_was_resumed_often_enough_is_handed_to_people(site: Orchestrator) -> None:
    jobs, job = failed(site, "crashed")
    for _ in range(2):
        jobs.resume(job.id, by="watchkeeper")
        jobs.end(job.id, TrainingStatus.FAILED, how="crashed", reason="again")
    incident = handled(site, jobs.get(job.id))
    assert incident.status is IncidentStatus.ESCALATED
    assert jobs.get(job.id).generation == 3
