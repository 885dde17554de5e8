"""What every node of the lifecycle graph works with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from pydantic import JsonValue

from watchkeeper.runtime.changes import Changes
from watchkeeper.runtime.context import Context
from watchkeeper.runtime.events import RetrainingAsked, StageEntered, StageJudged
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.lifecycle_rules import Retraining, kept_request
from watchkeeper.runtime.lifecycle_state import LifecycleState
from watchkeeper.runtime.site import Site
from watchkeeper.runtime.training import TrainingJobs
from watchkeeper.tools.durable import private_folder, write_durably
from watchkeeper.tools.inventory import Inventory, KnownJob
from watchkeeper.tools.training.record import TrainingJob
from watchkeeper.tools.versions import CHAMPION, Version, Versions

FOLDER = "lifecycles"
"""Folder in the home with a folder for each lifecycle."""


@dataclass(frozen=True, slots=True)
class LifecycleRun:
    """One lifecycle.

    Attributes:
        context: Site, team, journal, settings.
        changes: The only way in which anything is changed.
        request: What was asked for.
        drift: Whether a drift alert is behind it.
    """

    context: Context
    changes: Changes
    request: Retraining
    drift: bool

    def versions(self) -> Versions:
        """Open the versions of predictors.

        Raises:
            MissingExtraError: If the extra ``registry`` is not installed.
            VersionError: If they cannot be opened.
        """
        return Versions(self.context.site.home, now=self.context.journal.now)

    def jobs(self) -> TrainingJobs:
        """Return the training jobs."""
        journal = self.context.journal
        return TrainingJobs(journal.store, journal.home, journal.audit)

    def job(self, state: LifecycleState) -> TrainingJob:
        """Return the training job of a lifecycle."""
        return self.jobs().get(state["job"])

    def artefacts(self, state: LifecycleState) -> Path:
        """Return the folder of the predictor that was trained."""
        return self.jobs().folder(state["job"]).artefacts

    def champion(self) -> Version | None:
        """Return the version that answers; None for none."""
        versions = self.versions()
        if self.request.predictor not in versions.names():
            return None
        number = versions.aliases(self.request.predictor).get(CHAMPION)
        return None if number is None else versions.get(self.request.predictor, number)

    def folder(self, incident_id: str) -> Path:
        """Return the folder of a lifecycle, which is made where it is missing."""
        return private_folder(folder_of(self.context.site.home, incident_id))

    def enter(self, state: LifecycleState, stage: str, key: str = "") -> None:
        """Write that a stage begins, once."""
        self.context.journal.record(
            state["incident"], StageEntered(stage=stage), key=f"stage:{stage}{key and f':{key}'}"
        )

    def judged(
        self, state: LifecycleState, stage: str, detail: str, *, ok: bool = True, **values: JsonValue
    ) -> None:
        """Write what a stage found, once."""
        self.context.journal.record(
            state["incident"],
            StageJudged(stage=stage, ok=ok, detail=detail, values=values),
            key=f"judged:{stage}",
        )

    def finding(self, state: LifecycleState, stage: str) -> StageJudged | None:
        """Return what a stage found, or None."""
        found = [
            event
            for event in self.context.journal.incidents.events(state["incident"])
            if isinstance(event, StageJudged) and event.stage == stage
        ]
        return found[-1] if found else None


def folder_of(home: Path, incident_id: str) -> Path:
    """Return the folder of a lifecycle."""
    return home / FOLDER / incident_id


def request_of(journal: Journal, incident_id: str) -> tuple[Retraining, bool] | None:
    """Return what was asked for of a lifecycle, and whether drift is behind it; None of other incidents."""
    for event in journal.incidents.events(incident_id):
        if isinstance(event, RetrainingAsked):
            return kept_request(event.request), event.drift
    return None


def with_job(site: Site, request: Retraining, incident_id: str) -> Site:
    """Return a site whose inventory names the job of a lifecycle, for this lifecycle alone.

    The job stands in a file of the lifecycle's folder, which is written here.
    """
    path = private_folder(folder_of(site.home, incident_id)) / "job.yaml"
    content = yaml.safe_dump(request.job.model_dump(mode="json", exclude_none=True), sort_keys=True).encode()
    if not path.exists() or path.read_bytes() != content:
        write_durably(path, content)
    known = KnownJob(name=request.predictor, spec=path)
    hosts = tuple(
        host
        if host.name != request.host
        else host.model_copy(
            update={"jobs": (*(job for job in host.jobs if job.name != request.predictor), known)}
        )
        for host in site.inventory
    )
    return replace(site, inventory=Inventory(hosts=hosts))
