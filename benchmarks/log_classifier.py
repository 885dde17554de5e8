"""How well trouble is told from the lines of BGL, trained on the past and scored on what came after.

Learns from the first lines of loghub's sample of the BlueGene/L log (2,000 lines; logpai/loghub, "Loghub: A
Large Collection of System Log Datasets"; alerts after Oliner and Stearley, "What Supercomputers Say", 2007)
and is scored on the rest: templates, weights and probabilities know nothing of a later line. What the log
says of a line's severity is not looked at unless asked for. Beside it stand what answers the more frequent
class always, and a linear model over counts of words (logistic regression, trained on the same lines).

    python benchmarks/log_classifier.py
    python benchmarks/log_classifier.py --seeds 5 --fields Level Component

A confusion matrix and a plot of reliability are left in benchmarks/results.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from watchkeeper.tools.predictors.masks import mask
from watchkeeper.tools.predictors.plots import draw_confusion, draw_reliability
from watchkeeper.tools.training.log_classifier import ABNORMAL, LogClassifier, LogParameters
from watchkeeper.tools.training.scores import Answers, evaluation_of

DATA = Path(__file__).parents[2] / "shared/data/loghub/BGL_2k.log_structured.csv"
RESULTS = Path(__file__).parent / "results"
SHARES = (0.5, 0.7, 0.8)
NORMAL = "-"


@dataclass
class Run:
    """A run that keeps nothing but its result."""

    data: Path
    artefacts: Path
    seed: int
    checkpoint: Path | None = None
    threads: int = 1

    def metric(self, step: int, **values: float) -> None:
        """Keep no metrics."""

    def progress(self, done: float, what: str = "") -> None:
        """Tell nobody."""

    def save(self, step: int, write: Callable[[Path], object]) -> None:
        """Keep no checkpoints."""

    def check(self) -> None:
        """Never give up."""


def ours(past: Path, future: Path, parameters: LogParameters, seed: int) -> Answers:
    """Train on the past, and answer the future."""
    trainer = LogClassifier()
    with tempfile.TemporaryDirectory() as folder:
        trainer.train(Run(past, Path(folder), seed), parameters)
        return trainer.answers(Path(folder), future, parameters)


def answered(truth: Sequence[str], probability: Sequence[float]) -> Answers:
    """Answers of a baseline: the probability of trouble of each line."""
    sure = np.array(probability)
    return Answers(
        (NORMAL, ABNORMAL),
        np.array([label != NORMAL for label in truth], np.int64),
        np.stack([1 - sure, sure], axis=1),
        {},
    )


def majority(past: list[dict[str, str]], future: list[dict[str, str]]) -> Answers:
    """Answer what was more frequent."""
    share = sum(row["Label"] != NORMAL for row in past) / len(past)
    return answered([row["Label"] for row in future], [share] * len(future))


def linear(past: list[dict[str, str]], future: list[dict[str, str]]) -> Answers:
    """Answer by logistic regression over counts of masked words."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = CountVectorizer(token_pattern=r"\S+")
    model = make_pipeline(words, LogisticRegression(max_iter=2000, class_weight="balanced"))
    model.fit([mask(row["Content"]) for row in past], [row["Label"] != NORMAL for row in past])
    found = model.predict_proba([mask(row["Content"]) for row in future])[:, 1]
    return answered([row["Label"] for row in future], found.tolist())


def main() -> None:
    """Measure, print a table, and leave plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="seeds of ours")
    parser.add_argument("--fields", nargs="*", default=[], help="columns to learn from besides the message")
    options = parser.parse_args()
    if not DATA.is_file():
        raise SystemExit(f"{DATA} is missing: the loghub samples belong there")
    with DATA.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    parameters = LogParameters(
        message="Content", label="Label", time="Timestamp", normal=NORMAL, fields=tuple(options.fields)
    )
    RESULTS.mkdir(exist_ok=True)
    table = Table(title="trouble in later lines of BGL")
    for name in ("learned", "alerts", "new kinds", "model", "F1", "precision", "recall", "ECE", "s"):
        table.add_column(name, justify="left" if name == "model" else "right")
    results: list[dict[str, object]] = []
    for share in SHARES:
        cut = round(share * len(rows))
        past, future = rows[:cut], rows[cut:]
        seen = {mask(row["Content"]) for row in past if row["Label"] != NORMAL}
        alerts = [row for row in future if row["Label"] != NORMAL]
        new = sum(mask(row["Content"]) not in seen for row in alerts)
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / "past.csv", Path(folder) / "future.csv"]
            for file, part in zip(files, (past, future), strict=True):
                with file.open("w", encoding="utf-8", newline="") as opened:
                    writer = csv.DictWriter(opened, list(rows[0]))
                    writer.writeheader()
                    writer.writerows(part)
            makers: dict[str, Callable[[], Answers]] = {
                "majority": lambda past=past, future=future: majority(past, future),  # type: ignore[misc]
                "linear": lambda past=past, future=future: linear(past, future),  # type: ignore[misc]
            }
            for seed in range(options.seeds):
                makers[f"log-classifier {seed}"] = lambda files=files, seed=seed: ours(  # type: ignore[misc]
                    files[0], files[1], parameters, seed
                )
            for name, make in makers.items():
                started = time.perf_counter()
                answers = make()
                seconds = time.perf_counter() - started
                found = evaluation_of(answers, positive=ABNORMAL).metrics
                results.append({"share": share, "model": name, "seconds": seconds, **found})
                table.add_row(
                    f"{share:.0%}",
                    str(len(alerts)),
                    str(new),
                    name,
                    f"{found['f1']:.3f}",
                    f"{found[f'precision of {ABNORMAL}']:.3f}",
                    f"{found[f'recall of {ABNORMAL}']:.3f}",
                    f"{found['ece']:.3f}",
                    f"{seconds:.1f}",
                )
                if name.endswith("classifier 0"):
                    title = f"BGL, learned from the first {share:.0%}"
                    mark = f"log_classifier_{share:.0%}".rstrip("%")
                    draw_confusion(
                        answers.confusion(), answers.classes, RESULTS / f"{mark}_confusion.png", title=title
                    )
                    draw_reliability(answers.reliability(), RESULTS / f"{mark}_reliability.png", title=title)
        table.add_section()
    (RESULTS / "log_classifier.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    console = Console()
    console.width = max(console.width, 100)
    console.print(table)


if __name__ == "__main__":
    main()
