"""Trainers for tests: one that really learns, and some that misbehave."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from watchkeeper.tools.errors import DataError
from watchkeeper.tools.training import Evaluation, Trainer, TrainingRun
from watchkeeper.tools.training.interface import DataSummary, Parameters


class LineParameters(Parameters):
    epochs: int = 20
    learning_rate: float = 0.05
    save_every: int = 5
    pause: float = 0.0
    kill_at: int = 0
    ballast: int = 0


class Line(Trainer[LineParameters]):
    """A line through points, by stochastic gradient descent with momentum."""

    name = "line"
    summary = "a line through points"
    kind = "line"
    parameters_type = LineParameters

    def inspect(self, data: Path, parameters: LineParameters) -> DataSummary:
        points = _points(data)
        return DataSummary(sha256=hashlib.sha256(data.read_bytes()).hexdigest(), rows=len(points))

    def train(self, run: TrainingRun, parameters: LineParameters) -> None:
        points = _points(run.data)
        chance = np.random.default_rng(run.seed)
        weights, momentum, epoch = np.zeros(2), np.zeros(2), 0
        if run.checkpoint is not None:
            kept = json.loads((run.checkpoint / "line.json").read_text())
            weights, momentum = np.array(kept["weights"]), np.array(kept["momentum"])
            epoch = kept["epoch"]
            chance.bit_generator.state = kept["chance"]
        while epoch < parameters.epochs:
            run.check()
            epoch += 1
            loss = 0.0
            for x, y in points[chance.permutation(len(points))]:
                error = weights[0] * x + weights[1] - y
                loss += error * error / len(points)
                momentum = 0.9 * momentum - parameters.learning_rate * error * np.array([x, 1.0])
                weights = weights + momentum
            run.metric(epoch, loss=loss)
            run.progress(epoch / parameters.epochs, f"epoch {epoch}")
            if epoch % parameters.save_every == 0:
                state = {
                    "weights": weights.tolist(),
                    "momentum": momentum.tolist(),
                    "epoch": epoch,
                    "chance": chance.bit_generator.state,
                    "ballast": "x" * parameters.ballast,
                }
                run.save(epoch, lambda folder, state=state: _keep(folder, state))
            if epoch == parameters.kill_at:
                os.kill(os.getpid(), 9)
            time.sleep(parameters.pause)
        (run.artefacts / "line.json").write_text(json.dumps({"weights": weights.tolist()}))

    def evaluate(self, predictor: Path, data: Path, parameters: LineParameters) -> Evaluation:
        slope, offset = json.loads((predictor / "line.json").read_text())["weights"]
        points = _points(data)
        error = float(np.mean((slope * points[:, 0] + offset - points[:, 1]) ** 2))
        return Evaluation(primary="minus_mse", metrics={"minus_mse": -error}, rows=len(points))


class Sighted(Line):
    """Says which GPUs its process sees."""

    def train(self, run: TrainingRun, parameters: LineParameters) -> None:
        print(f"sees {os.environ.get('CUDA_VISIBLE_DEVICES', 'all')!r}", flush=True)
        super().train(run, parameters)


class Hungry(Line):
    """Takes ever more memory."""

    def train(self, run: TrainingRun, parameters: LineParameters) -> None:
        held = []
        while True:
            held.append(np.ones(1_000_000))
            time.sleep(0.01)


class Endless(Line):
    """Never ends, hears no word, and leaves a process in a session of its own."""

    def train(self, run: TrainingRun, parameters: LineParameters) -> None:
        sleeper = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
        )
        (run.artefacts / "sleeper").write_text(str(sleeper.pid))
        while True:
            run.progress(0.1)
            time.sleep(0.05)


def _keep(folder: Path, state: object) -> None:
    (folder / "line.json").write_text(json.dumps(state))


def _points(data: Path) -> np.ndarray:
    try:
        with data.open() as stream:
            return np.array([[float(x), float(y)] for x, y in csv.reader(stream)])
    except (OSError, ValueError) as error:
        raise DataError(f"{str(data)!r}: {error}") from error


def write_points(path: Path, *, count: int = 40, slope: float = 2.0) -> Path:
    """Write points near a line."""
    chance = np.random.default_rng(7)
    x = chance.uniform(-1, 1, count)
    y = slope * x + 0.5 + chance.normal(0, 0.05, count)
    path.write_text("".join(f"{a},{b}\n" for a, b in zip(x, y, strict=True)))
    return path
