"""A predictor of the tests' own: it answers whether a number is above a threshold."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from pydantic import JsonValue

from watchkeeper.tools.errors import DataError
from watchkeeper.tools.predictors import Manifest, Predictor, open_predictor, register_kind, write_manifest
from watchkeeper.tools.predictors.interface import Row
from watchkeeper.tools.training.interface import DataSummary, Evaluation, Parameters, Trainer, TrainingRun

KIND = "tests-threshold"


class Threshold(Predictor):
    kind = KIND
    columns: ClassVar[dict[str, str]] = {"load": "a number"}

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.batches: list[int] = []

    @classmethod
    def load(cls, folder: Path) -> Threshold:
        return cls(json.loads((folder / "threshold.json").read_text())["threshold"])

    def predict(self, rows: Sequence[Row]) -> list[dict[str, JsonValue]]:
        self.batches.append(len(rows))
        answers: list[dict[str, JsonValue]] = []
        for number, row in enumerate(rows):
            load = row.get("load")
            if isinstance(load, bool) or not isinstance(load, int | float):
                raise DataError(f"row {number}: column 'load' holds {load!r}, which is no number")
            answers.append({"busy": load > self.threshold, "score": float(load) - self.threshold})
        return answers


class Moody(Threshold):
    """Answers as its mood is, the text of a file outside of its folder: ``slow`` takes half a second."""

    def predict(self, rows: Sequence[Row]) -> list[dict[str, JsonValue]]:
        mood = Path(os.environ["TESTS_MOOD"]).read_text()
        if mood == "slow":
            time.sleep(0.5)
        if mood == "broken":
            raise RuntimeError("it is broken")
        return super().predict(rows)


class ThresholdParameters(Parameters):
    threshold: float = 0.5


class ThresholdTrainer(Trainer[ThresholdParameters]):
    name = "tests-threshold"
    summary = "a threshold that is given"
    kind = KIND
    parameters_type = ThresholdParameters

    def inspect(self, data: Path, parameters: ThresholdParameters) -> DataSummary:
        content = data.read_bytes()
        return DataSummary(sha256=hashlib.sha256(content).hexdigest(), rows=len(read(data)))

    def train(self, run: TrainingRun, parameters: ThresholdParameters) -> None:
        make(run.artefacts, parameters.threshold)

    def evaluate(self, predictor: Path, data: Path, parameters: ThresholdParameters) -> Evaluation:
        rows = read(data)
        answers = open_predictor(predictor).predict([{"load": load} for load, _ in rows])
        outcomes = tuple(
            float(answer["busy"] is busy) for answer, (_, busy) in zip(answers, rows, strict=True)
        )
        share = sum(outcomes) / len(outcomes)
        return Evaluation(
            primary="accuracy", metrics={"accuracy": share}, rows=len(outcomes), outcomes=outcomes
        )


def read(data: Path) -> list[tuple[float, bool]]:
    with data.open(newline="") as stream:
        return [(float(row["load"]), row["busy"] == "yes") for row in csv.DictReader(stream)]


def make(folder: Path, threshold: float) -> Path:
    """Write a predictor into a folder."""
    register_kind(KIND, f"{__name__}:Threshold")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "threshold.json").write_text(json.dumps({"threshold": threshold}))
    write_manifest(
        folder,
        Manifest(
            kind=KIND,
            trainer="tests-threshold",
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
            parameters={"threshold": threshold},
            seed=7,
            data_sha256="d" * 64,
            rows=100,
            groups=("team",),
            versions={"numpy": "2.0"},
        ),
    )
    return folder


EVALUATION = Evaluation(
    primary="accuracy",
    metrics={"accuracy": 0.75, "recall": 0.5},
    groups={"team": {"web": {"accuracy": 0.9, "rows": 10}, "data": {"accuracy": 0.6, "rows": 10}}},
    rows=20,
    outcomes=(1.0, 1.0, 1.0, 0.0) * 5,
)
