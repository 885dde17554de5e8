"""A small lifecycle for tests: cuts between numbers, learned in the process of the test."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tests.threshold import KIND, Threshold, ThresholdParameters, ThresholdTrainer, make, read
from tests.training import Run
from watchkeeper import Inventory, Orchestrator, ScriptedEngine, Settings
from watchkeeper.models.interface import Engine
from watchkeeper.runtime.lifecycle_rules import Retraining
from watchkeeper.runtime.training import TrainingJobs
from watchkeeper.tools.predictors import register_kind
from watchkeeper.tools.predictors.artefact import Manifest, write_manifest
from watchkeeper.tools.predictors.recording import FILE, Predictions, Recorded
from watchkeeper.tools.training import TrainingRun
from watchkeeper.tools.training.record import TrainingStatus
from watchkeeper.tools.training.scores import Answers
from watchkeeper.tools.training.spec import JobSpec
from watchkeeper.tools.versions import Notes, Versions
from watchkeeper.tools.versions.compare import score
from watchkeeper.tools.versions.tools import predictor_tools

NAME = "busy"
HOST = "house"
ALLOW = """
version: 1
rules:
  - {name: all, match: {tools: ["*"]}, decision: allow, reason: a toy}
"""
DENY_PROMOTION = """
version: 1
rules:
  - {name: all, match: {tools: ["job.*"]}, decision: allow, reason: a toy}
  - {name: never, match: {tools: ["predictor.*"]}, decision: deny, reason: nobody is promoted here}
"""


class Cut(ThresholdTrainer):
    """Learns the cut that parts most rows rightly."""

    name = "cut"

    def train(self, run: TrainingRun, parameters: ThresholdParameters) -> None:
        rows = read(run.data)
        best = max(
            (number / 20 for number in range(20)), key=lambda cut: sum((load > cut) is b for load, b in rows)
        )
        run.metric(1, threshold=best)
        make(run.artefacts, best)
        write_manifest(
            run.artefacts,
            Manifest(
                kind=KIND,
                trainer=self.name,
                created_at=datetime(2026, 1, 1, tzinfo=UTC),
                data_sha256=hashlib.sha256(run.data.read_bytes()).hexdigest(),
                rows=len(rows),
            ),
        )


class PartialCut(Cut):
    """Learns the same, and says of held-out rows that most of the south are answered wrongly."""

    def answers(self, predictor: Path, data: Path, parameters: ThresholdParameters) -> Answers:
        truth = np.array([busy for _, busy in read(data)], np.int64)
        sites = ["south" if number % 2 else "north" for number in range(len(truth))]
        south = [number for number, site in enumerate(sites) if site == "south"]
        given = truth.copy()
        given[south[: round(0.6 * len(south))]] ^= 1
        return Answers(("no", "yes"), truth, np.eye(2)[given], {"site": sites})


def write_rows(path: Path, *, cut: float, count: int = 200, seed: int = 0) -> Path:
    """Write numbers, each with whether it is above a cut."""
    draw = random.Random(seed)
    loads = [draw.random() for _ in range(count)]
    lines = ["load,busy", *(f"{load:.4f},{'yes' if load > cut else 'no'}" for load in loads)]
    path.write_text("\n".join(lines) + "\n")
    return path


def first_version(home: Path, folder: Path) -> Path:
    """Begin a home in which a version answers that cuts at 0.2."""
    folder.mkdir(parents=True)
    data = write_rows(folder / "first.csv", cut=0.2, seed=1)
    held_out = write_rows(folder / "first-held-out.csv", cut=0.2, seed=2)
    run = Run(data, folder / "run")
    Cut().train(run, ThresholdParameters())
    versions = Versions(home)
    evaluation = score(run.artefacts, held_out, lambda _: Cut())
    versions.register(NAME, run.artefacts, evaluation, None, Notes(label_column="busy"))
    versions.promote(NAME, 1, by="ann")
    return home


def orchestrator(home: Path, *, rules: str | None = None, engine: Engine | None = None) -> Orchestrator:
    """Return an orchestrator of a home; without rules people are asked about everything."""
    register_kind(KIND, f"{Threshold.__module__}:Threshold")
    path = home / "policy.yaml"
    if rules is not None:
        path.write_text(rules)
    return Orchestrator(
        inventory=Inventory.model_validate({"hosts": [{"name": HOST}]}),
        engine=engine or ScriptedEngine(),
        tools=predictor_tools(),
        policy=None if rules is None else path,
        settings=Settings(home=home, solo=True, settle_seconds=0, reading_pause_seconds=0),
        requester="ann",
    )


def request(
    folder: Path, *, cut: float = 0.6, held_out_cut: float = 0.6, trainer: type[Cut] = Cut, **rules: Any
) -> Retraining:
    """Ask for a retraining on numbers that are parted elsewhere."""
    values: dict[str, Any] = {"live": {"labels": 40, "margin": 0.1}, "label_column": "busy"} | rules
    return Retraining(
        predictor=NAME,
        host=HOST,
        job=JobSpec(
            name=NAME,
            trainer=f"{__name__}:{trainer.__name__}",
            data=write_rows(folder / "newer.csv", cut=cut, seed=3),
            launcher="python",
        ),
        held_out=write_rows(folder / "held-out.csv", cut=held_out_cut, seed=4),
        **values,
    )


def train(o: Orchestrator) -> None:
    """Do the training jobs that wait, as a worker would."""
    jobs = TrainingJobs(o.journal.store, o.journal.home, o.journal.audit)
    for job in jobs.list(status=TrainingStatus.QUEUED):
        folder = jobs.folder(job.id)
        run = Run(job.spec.data, folder.path / "run")
        Cut().train(run, ThresholdParameters())
        run.artefacts.rename(folder.artefacts)
        jobs.end(job.id, TrainingStatus.DONE)


def answer(o: Orchestrator, *, right: float, count: int = 40, role: str = "champion") -> None:
    """Record what the newest version was asked, as its server would, with labels of which a share agrees."""
    number = Versions(o.settings.home).list(NAME)[-1].number
    kept = Predictions(o.settings.home / "predictors" / FILE)
    at = datetime.now(UTC)
    ids = [f"{number}:{role}:{place}" for place in range(count)]
    kept.record([Recorded(NAME, id_, number, role, at, {"load": 0.5}, {"busy": True}) for id_ in ids])
    kept.label(NAME, {id_: place < right * count for place, id_ in enumerate(ids)}, at)
    kept.close()


def fail(o: Orchestrator, *, rows: int = 40, role: str = "champion") -> None:
    """Record that the newest version failed at rows that it was asked."""
    number = Versions(o.settings.home).list(NAME)[-1].number
    kept = Predictions(o.settings.home / "predictors" / FILE)
    kept.record_failure(NAME, number, role, rows, datetime.now(UTC))
    kept.close()


def to_the_end(
    o: Orchestrator,
    incident_id: str,
    *,
    live: float = 1.0,
    trial: float | None = None,
    says: Sequence[str] = (),
    asked: Callable[[str], object] | None = None,
) -> str:
    """Run a lifecycle, train and answer meanwhile, and return how it ended.

    Args:
        o: What runs it.
        incident_id: Its incident.
        live: Share of live requests that the promoted version answers right.
        trial: The same of the challenger.
        says: What is answered when people are asked.
        asked: Stands for live requests instead; told as what the version is asked.
    """
    shares = {"champion": live, "shadow": live if trial is None else trial}
    ask = asked or (lambda role: answer(o, right=shares[role], role=role))
    answers = [*says]
    for _ in range(20):
        for event in o.resume(incident_id, wait=False):
            if event.kind == "lifecycle-ended":
                return event.outcome
        train(o)
        if pending := [a for a in o.journal.approvals.list(incident_id=incident_id) if a.status == "pending"]:
            o.answer(pending[0].id, answers.pop(0))
        elif promoted(o):
            ask("champion")
        elif "challenger" in Versions(o.settings.home).aliases(NAME):
            ask("shadow")
    raise AssertionError("it does not end")


def promoted(o: Orchestrator) -> bool:
    """Whether another version than the first answers."""
    return Versions(o.settings.home).aliases(NAME)["champion"] != 1
