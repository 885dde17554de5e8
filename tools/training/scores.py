"""Scores of classifiers: computed from what was true and what was answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from watchkeeper.tools.training.interface import Evaluation

_BINS = 10


@dataclass(frozen=True)
class Answers:
    """What a classifier answered on labelled examples.

    Attributes:
        classes: The labels, in the order of the columns of ``probabilities``.
        truth: True class of each example, by its number.
        probabilities: ``(examples, classes)``.
        groups: For each grouping column the value of each example.
        unlearned: The classes that it never learned, and so never answers.
    """

    classes: tuple[str, ...]
    truth: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    groups: Mapping[str, Sequence[str]]
    unlearned: tuple[str, ...] = ()

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The most probable class of each example; the first of equal ones."""
        found: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return found

    @property
    def confidence(self) -> NDArray[np.float64]:
        """How probable the answer to each example was said to be."""
        found: NDArray[np.float64] = self.probabilities.max(axis=1)
        return found

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each example was answered right."""
        found: NDArray[np.bool_] = self.predicted == self.truth
        return found

    def confusion(self) -> NDArray[np.int64]:
        """Return how many examples of each true class (rows) were given each class (columns)."""
        counts = np.zeros((len(self.classes), len(self.classes)), np.int64)
        np.add.at(counts, (self.truth, self.predicted), 1)
        return counts

    def reliability(self, bins: int = _BINS) -> list[tuple[float, float, int]]:
        """Return for each range of confidence that occurs its mean, the share of right answers, the count."""
        which = np.minimum((self.confidence * bins).astype(np.int64), bins - 1)
        return [
            (float(self.confidence[inside].mean()), float(self.right[inside].mean()), int(inside.sum()))
            for number in range(bins)
            if (inside := which == number).any()
        ]


def evaluation_of(answers: Answers, *, positive: str | None = None) -> Evaluation:
    """Score answers.

    Args:
        answers: The answers.
        positive: The class whose F1 is the primary metric; None for the mean over all classes (macro).
    """
    groups: dict[str, dict[str, dict[str, float]]] = {}
    for column, values in answers.groups.items():
        held = np.array(values, dtype=object)
        groups[column] = {
            value: {**_metrics(answers, held == value, positive), "rows": float((held == value).sum())}
            for value in sorted(set(values))
        }
    everything = np.ones(len(answers.truth), bool)
    metrics = _metrics(answers, everything, positive)
    metrics.setdefault("f1", 0.0)
    metrics["ece"] = calibration_error(answers)
    true = answers.probabilities[np.arange(len(answers.truth)), answers.truth]
    metrics["log_loss"] = float(-np.log(np.maximum(true, 1e-12)).mean())
    for number, label in enumerate(answers.classes):
        precision, recall, f1 = _of_class(answers, everything, number)
        metrics |= {f"precision of {label}": precision, f"recall of {label}": recall, f"f1 of {label}": f1}
    return Evaluation(
        primary="f1",
        metrics=metrics,
        groups=groups,
        rows=len(answers.truth),
        outcomes=tuple(float(value) for value in answers.right),
        unlearned={
            label: int((answers.truth == answers.classes.index(label)).sum()) for label in answers.unlearned
        },
    )


def calibration_error(answers: Answers) -> float:
    """Return the expected calibration error over ten ranges of equal width (Naeini et al. 2015)."""
    found = answers.reliability()
    return sum(count * abs(sure - right) for sure, right, count in found) / len(answers.truth)


def _metrics(answers: Answers, rows: NDArray[np.bool_], positive: str | None) -> dict[str, float]:
    there = set(answers.truth[rows].tolist()) | set(answers.predicted[rows].tolist())
    if positive is not None:
        there &= {answers.classes.index(positive)}
    metrics = {"accuracy": float(answers.right[rows].mean())}
    # A class that neither occurs nor is answered says nothing of the answers.
    if there:
        metrics["f1"] = float(np.mean([_of_class(answers, rows, number)[2] for number in sorted(there)]))
    return metrics


def _of_class(answers: Answers, rows: NDArray[np.bool_], number: int) -> tuple[float, float, float]:
    """Return precision, recall and F1 of one class."""
    answered, true = answers.predicted[rows] == number, answers.truth[rows] == number
    both = int((answered & true).sum())
    precision = both / int(answered.sum()) if answered.any() else 0.0
    recall = both / int(true.sum()) if true.any() else 0.0
    return precision, recall, 2 * precision * recall / (precision + recall) if both else 0.0
