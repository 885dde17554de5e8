"""What the examples of lifecycles share: data that they make, a first version, a server, and workers.

It is imported by `drift_retrain_promote.py` and its neighbours. The predictor sorts requests to a help desk
into three queues by their words. The words that people use change: that is the drift.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from watchkeeper import Inventory, Orchestrator, ScriptedEngine, Settings
from watchkeeper.models.home import models_folder
from watchkeeper.models.interface import ChoiceRequest, Engine
from watchkeeper.runtime.incidents import Incident
from watchkeeper.runtime.jobs import Jobs
from watchkeeper.runtime.lifecycle_rules import Retraining
from watchkeeper.runtime.training_room import Room
from watchkeeper.runtime.training_runs import TrainingRuns
from watchkeeper.runtime.wording import describe_event
from watchkeeper.runtime.worker import Worker
from watchkeeper.tools.training.folder import JobFolder
from watchkeeper.tools.training.process import supervise
from watchkeeper.tools.training.spec import JobLimits, JobSpec
from watchkeeper.tools.versions import Notes, Versions
from watchkeeper.tools.versions.compare import score
from watchkeeper.tools.versions.server_file import RunningServer, running_servers
from watchkeeper.tools.versions.tools import predictor_tools

NAME = "desk"
HOST = "here"
OLD = {
    "accounts": "password login locked account reset username",
    "billing": "invoice payment refund charge receipt bill",
    "network": "wifi cable router slow connection vpn",
}
NEW = {
    "accounts": "passkey authenticator token fingerprint biometrics enrolment",
    "billing": "subscription wallet prorated credits renewal checkout",
    "network": "mesh latency satellite handover roaming beacon",
}
_FILLERS = "please help since monday the our team cannot again today with new still after office need"


@dataclass(frozen=True)
class Request:
    """A request, the queue that it belongs to, and the site that it comes from."""

    text: str
    label: str
    site: str


def requests(
    words: dict[str, str], count: int, *, seed: int, site: str = "", wrong: float = 0.0
) -> list[Request]:
    """Make requests.

    Args:
        words: The words of each queue.
        count: How many.
        seed: Of what is drawn.
        site: Where all of them come from; by default from two sites.
        wrong: Share of labels that are wrong.
    """
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        label = draw.choice(sorted(words))
        said = draw.sample(words[label].split(), 2) + draw.sample(_FILLERS.split(), 4)
        draw.shuffle(said)
        given = draw.choice([one for one in words if one != label]) if draw.random() < wrong else label
        made.append(Request(" ".join(said), given, site or draw.choice(["north", "south"])))
    return made


def write(path: Path, rows: Sequence[Request]) -> Path:
    """Write requests as a CSV file."""
    lines = [f"{row.text},{row.label},{row.site}" for row in rows]
    path.write_text("\n".join(["text,label,site", *lines]) + "\n", encoding="utf-8")
    return path


def job(data: Path) -> JobSpec:
    """Say how a version is trained."""
    return JobSpec(
        name=NAME,
        trainer="text-classifier",
        data=data,
        parameters={"groups": ["site"], "epochs": 8, "contradictions": True, "buckets": 2**14},
        launcher="python",
        limits=JobLimits(memory=1_500_000_000),
    )


class World:
    """A home with a first version that answers behind a real server, and somebody who trains."""

    def __init__(
        self, home: Path, engine: Engine | None, policy: Path | None = None, **settings: Any
    ) -> None:
        self.home = home
        self.versions = Versions(home)
        values: dict[str, Any] = {"home": home, "solo": True, "tools": ()} | settings
        self.orchestrator = Orchestrator(
            inventory=Inventory.model_validate({"hosts": [{"name": HOST}]}),
            engine=engine,
            tools=predictor_tools(),
            policy=policy,
            settings=Settings(**values),
        )
        self.server: RunningServer | None = None
        self._asked = 0

    def first_version(self, data: Path, held_out: Path) -> None:
        """Train a version, keep it, and let it answer: what is there before the example begins."""
        folder = JobFolder.create(self.home / "first", job(data))
        ending = supervise(folder, 1)
        if ending.how != "done":
            raise RuntimeError(f"the first version was not trained: {ending.reason}")
        version = self.versions.register(
            NAME, folder.artefacts, score(folder.artefacts, held_out), None, Notes(label_column="label")
        )
        self.versions.promote(NAME, version.number, by="example")

    def ask(self, rows: Sequence[Request], *, label: bool = True) -> list[int]:
        """Ask the server, say later what was right, and return which version answered each request."""
        said = []
        for start in range(0, len(rows), 50):
            part = rows[start : start + 50]
            self._asked += 1
            body = {"rows": [{"text": row.text} for row in part], "id": f"q{self._asked}"}
            answer = self._post("predict", body)
            said += [answer["version"]] * len(part)
            if label:
                labels = dict(zip(answer["ids"], [row.label for row in part], strict=True))
                self._post("labels", {"labels": labels})
        return said

    def answering(self) -> int:
        """Ask the server one question, and return which version answered."""
        (version,) = self.ask(requests(OLD, 1, seed=0), label=False)
        return version

    def retrain(self, data: Path, held_out: Path, **rules: Any) -> Incident:
        """Have the predictor retrained."""
        request = Retraining(predictor=NAME, host=HOST, job=job(data), held_out=held_out, **rules)
        return self.orchestrator.retrain(request)

    def follow(self, incident_id: str, *, when_watched: Sequence[Request] = ()) -> str:
        """Show what happens, say yes where asked, and return how it ended.

        Args:
            incident_id: The lifecycle.
            when_watched: What people ask once the new version answers.
        """
        outcome = ""
        for event in self.orchestrator.resume(incident_id):
            said = describe_event(event)
            if said:
                print(f"{event.at:%H:%M:%S} {said}", flush=True)
            if event.kind == "approval-requested":
                question = self.orchestrator.journal.approvals.get(event.approval_id)
                print("".join(f"    {line}\n" for line in question.diff.splitlines()), flush=True)
                self.orchestrator.answer(event.approval_id, "approve", reason="from the example")
            elif event.kind == "stage-entered" and event.stage == "watch" and when_watched:
                self.ask(when_watched)
            elif event.kind == "lifecycle-ended":
                outcome = event.outcome
                print(f"         report: {event.report}", flush=True)
        return outcome

    def _post(self, what: str, body: dict[str, Any]) -> Any:
        if self.server is None:
            raise RuntimeError("the server does not run yet")
        request = urllib.request.Request(  # noqa: S310 (the address is that of the server above)
            f"{self.server.address}/v1/predictors/{NAME}/{what}",
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.load(answer)

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Run `watchkeeper predictors serve` on a free port."""
        command = [sys.executable, "-m", "watchkeeper.cli", "predictors", "serve", "--port", "0"]
        environment = {**os.environ, "WATCHKEEPER_HOME": str(self.home)}
        log = self.home / "server.log"
        with (
            log.open("wb") as out,
            subprocess.Popen(command, env=environment, stderr=out, stdout=out) as child,
        ):
            try:
                until = time.monotonic() + 120
                while not (servers := running_servers(self.home / "predictors")):
                    if child.poll() is not None or time.monotonic() > until:
                        raise RuntimeError(f"the server did not start: {log.read_text()}")
                    time.sleep(0.1)
                self.server = servers[0]
                yield
            finally:
                child.send_signal(signal.SIGTERM)
                child.wait(30)

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Train what is submitted, as `watchkeeper serve` does."""
        journal = self.orchestrator.journal
        runs = TrainingRuns(journal, Room.of_this_machine(), host=None)
        worker = Worker(Jobs(journal.store), journal.halts, runs.handlers())
        thread = threading.Thread(target=worker.run, name="training", daemon=True)
        thread.start()
        try:
            yield
        finally:
            worker.stop()
            thread.join()


@contextlib.contextmanager
def world(
    engine: Engine | None, first: Sequence[Request], held_out: Sequence[Request], *, policy: str = ""
) -> Iterator[World]:
    """Make a world in a temporary folder: a version that learned from the first requests answers.

    Args:
        engine: What answers for agents.
        first: What the version learned from.
        held_out: What it was scored by.
        policy: What may be done, in YAML; by default every action is asked for.
    """
    with tempfile.TemporaryDirectory(prefix="wk-lifecycle-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        if models_folder().is_dir():
            (home / "models").symlink_to(models_folder())
        rules = home / "policy.yaml"
        if policy:
            rules.write_text(policy, encoding="utf-8")
        made = World(home, engine, rules if policy else None)
        with contextlib.closing(made.orchestrator):
            made.first_version(write(home / "first.csv", first), write(home / "first-held-out.csv", held_out))
            with made.serving(), made.training():
                yield made


def engine_of(description: str) -> Engine | None:
    """Read the options of an example: None is the model of the settings.

    Args:
        description: What the example shows.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--scripted", action="store_true", help="use a script instead of a model")
    return scripted() if parser.parse_args().scripted else None


def scripted() -> ScriptedEngine:
    """Stand in for a model: train anew where that is offered."""

    def choose(request: ChoiceRequest) -> int:
        fitting = [number for number, text in enumerate(request.options) if "train a new version" in text]
        return fitting[0] if fitting else 0

    return ScriptedEngine(choose=choose)


def expect(found: object, wanted: object, what: str, *, why: str = "") -> None:
    """Look whether the world is as the example's name says.

    Args:
        found: What is so.
        wanted: What should be.
        what: What it is said of.
        why: What is known of why it is so.

    Raises:
        SystemExit: If it is not.
    """
    print(f"{what}: {found}")
    if found != wanted:
        sys.exit(f"{what} should be {wanted!r}" + (f": {why}" if why else ""))
