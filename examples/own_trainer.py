r"""A trainer of your own: it learns how long requests take from how many are under way.

    printf '1,10\n2,19\n3,31\n4,40\n' > load.csv
    watchkeeper jobs submit --trainer own_trainer:Latency --modules examples --data load.csv --wait &
    watchkeeper jobs work --once

A trainer keeps a checkpoint now and then, and goes on from one with exactly the numbers that it would have
had without the break. Everything drawn by chance comes from the run's seed; its state is in the checkpoint.
"""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from watchkeeper.tools.errors import DataError
from watchkeeper.tools.training import Evaluation, Trainer, TrainingRun
from watchkeeper.tools.training.interface import DataSummary, Parameters

Array = NDArray[np.float64]


class LatencyParameters(Parameters):
    """What may be set with ``--set epochs=50``; anything else is refused."""

    epochs: int = 200
    learning_rate: float = 0.01


class Latency(Trainer[LatencyParameters]):
    """A line through pairs of requests under way and milliseconds, by stochastic gradient descent."""

    name = "latency"
    summary = "how long requests take, from how many are under way"
    kind = "latency"
    parameters_type = LatencyParameters

    def inspect(self, data: Path, parameters: LatencyParameters) -> DataSummary:
        """Look the data over before anything is trained."""
        pairs = read_pairs(data)
        return DataSummary(sha256=hashlib.sha256(data.read_bytes()).hexdigest(), rows=len(pairs))

    def train(self, run: TrainingRun, parameters: LatencyParameters) -> None:
        """Learn, and leave the line in the run's folder."""
        pairs = read_pairs(run.data)
        chance = np.random.default_rng(run.seed)
        line, begin = np.zeros(2), 1
        if run.checkpoint is not None:
            kept: dict[str, Any] = json.loads((run.checkpoint / "state.json").read_text())
            line, begin = np.array(kept["line"]), kept["epoch"] + 1
            chance.bit_generator.state = kept["chance"]
        for epoch in range(begin, parameters.epochs + 1):
            run.check()
            loss = 0.0
            for x, y in chance.permutation(pairs):
                error = line[0] * x + line[1] - y
                loss += error**2 / len(pairs)
                line = line - parameters.learning_rate * error * np.array([x, 1.0])
            run.metric(epoch, loss=loss)
            run.progress(epoch / parameters.epochs, f"epoch {epoch}")
            if epoch % 20 == 0:
                state = {"line": line.tolist(), "epoch": epoch, "chance": chance.bit_generator.state}
                text = json.dumps(state)
                run.save(epoch, lambda folder, text=text: (folder / "state.json").write_text(text))  # type: ignore[misc]
        (run.artefacts / "line.json").write_text(json.dumps(line.tolist()))

    def evaluate(self, predictor: Path, data: Path, parameters: LatencyParameters) -> Evaluation:
        """Score a line on pairs that it did not learn from."""
        slope, offset = json.loads((predictor / "line.json").read_text())
        pairs = read_pairs(data)
        error = float(np.mean(np.abs(slope * pairs[:, 0] + offset - pairs[:, 1])))
        return Evaluation(primary="minus_error", metrics={"minus_error": -error}, rows=len(pairs))


def read_pairs(path: Path) -> Array:
    """Read pairs of numbers from a CSV file.

    Raises:
        DataError: If they are none.
    """
    try:
        with path.open() as stream:
            rows = [[float(value) for value in row] for row in csv.reader(stream)]
        pairs = np.array(rows, dtype=np.float64).reshape(-1, 2)
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)!r} holds no pairs of numbers: {error}") from error
    if not len(pairs):
        raise DataError(f"{str(path)!r} is empty")
    return pairs
