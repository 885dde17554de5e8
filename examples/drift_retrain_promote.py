"""People begin to use other words: drift is noticed, an agent decides, a new version is trained and promoted.

    python examples/drift_retrain_promote.py             # the model of your settings decides
    python examples/drift_retrain_promote.py --scripted  # without a model: a script takes its place

Everything is real: a server answers on this machine, labels arrive, the watch tells drift from chance, and
the alert that it raises is handled as an incident. The agent is told numbers alone; it may wait, retrain or
call a person. You say yes to the training and to the promotion (this example says it for you).
"""

from __future__ import annotations

import sys

import yaml
from lifecycle_world import HOST, NAME, NEW, OLD, engine_of, expect, job, requests, world, write

from watchkeeper.runtime.drift_alerts import drift_alert
from watchkeeper.runtime.lifecycle_rules import FILE
from watchkeeper.tools.predictors.recording import FILE as PREDICTIONS
from watchkeeper.tools.predictors.recording import Predictions
from watchkeeper.tools.predictors.watching import watch


def main() -> int:
    """Let a predictor drift, and be mended; 0 where the new version answers."""
    engine = engine_of("Drift is noticed, a new version is trained, and promoted.")
    with world(engine, requests(OLD, 300, seed=1), requests(OLD, 100, seed=2)) as here:
        # What the site says of the predictor: what a new version learns from, and what it must show.
        newer = requests(OLD, 150, seed=3) + requests(NEW, 250, seed=4)
        write(here.home / "newer.csv", newer)
        write(here.home / "held-out.csv", requests(OLD, 60, seed=5) + requests(NEW, 140, seed=6))
        spec = job(here.home / "newer.csv").model_dump(mode="json", exclude_none=True)
        (here.home / "job.yaml").write_text(yaml.safe_dump(spec))
        rules = {
            "host": HOST,
            "job": "job.yaml",
            "held_out": "held-out.csv",
            "purpose": "sorts requests to the help desk into queues",
            "live": {"labels": 60, "margin": 0.1},
        }
        (here.home / FILE).write_text(yaml.safe_dump({"predictors": {NAME: rules}}))

        here.ask(requests(OLD, 150, seed=7))
        here.ask(requests(NEW, 150, seed=8))
        report = watch(
            NAME,
            1,
            Predictions(here.home / "predictors" / PREDICTIONS).list(NAME),
            column="label",
            held_out=here.versions.get(NAME).promised,
        )
        print(f"signals: {', '.join(report.signals)}")
        incident = here.orchestrator.open(drift_alert(report, host=HOST))
        outcome = here.follow(incident.id, when_watched=requests(NEW, 80, seed=9))

        expect(outcome, "promoted", "outcome")
        expect(here.answering(), 2, "version that answers")
        expect(here.versions.aliases(NAME), {"champion": 2}, "aliases")
        expect(here.orchestrator.report(incident.id).outcome, "resolved", "incident")
    return 0


if __name__ == "__main__":
    sys.exit(main())
