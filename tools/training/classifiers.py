"""What trainers of classifiers share: asking a predictor labelled examples, and writing its manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, TypeVar

import numpy as np
from pydantic import JsonValue

from watchkeeper.tools.errors import DataError
from watchkeeper.tools.predictors.artefact import Manifest
from watchkeeper.tools.predictors.interface import Predictor
from watchkeeper.tools.training.examples import Columns, Example, Examples, normal_form
from watchkeeper.tools.training.interface import Trainer, TrainingRun
from watchkeeper.tools.training.scores import Answers
from watchkeeper.tools.training.tables import quoted

T = TypeVar("T")

_BETWEEN_CHECKS = 200


def answers_of(
    predictor: Predictor,
    classes: tuple[str, ...],
    examples: Sequence[Example],
    columns: Columns,
    *,
    beside: bool = False,
) -> Answers:
    """Ask a predictor labelled examples.

    Args:
        predictor: A classifier.
        classes: The labels that it learned.
        examples: The examples.
        columns: Which columns hold what.
        beside: Whether it is scored beside a newer one: then a label that it never learned is a class that it
            never answers.

    Raises:
        DataError: If an example has a label that the predictor does not know, unless ``beside``.
    """
    unlearned: dict[str, None] = {}
    for example in examples:
        if example.label not in classes:
            if not beside:
                raise DataError(
                    f"{example.place}: label {quoted(example.label)} was not learned (known are: "
                    f"{', '.join(classes)}): take such rows out, or train anew with examples of it"
                )
            unlearned[example.label] = None
    numbers = {label: number for number, label in enumerate((*classes, *unlearned))}
    rows: list[dict[str, JsonValue]] = [
        {columns.text: example.text, **dict(zip(columns.fields, example.fields, strict=True))}
        for example in examples
    ]
    found = [answer["probabilities"] for answer in predictor.predict(rows)]
    return Answers(
        classes=tuple(numbers),
        truth=np.array([numbers[example.label] for example in examples], np.int64),
        probabilities=np.array(
            [
                [one[label] for label in classes] + [0.0] * len(unlearned)
                for one in found
                if isinstance(one, dict)
            ],
            np.float64,
        ),
        groups={
            name: [example.groups[index] for example in examples] for index, name in enumerate(columns.groups)
        },
        unlearned=tuple(unlearned),
    )


def checked(run: TrainingRun, items: Sequence[T]) -> Iterator[T]:
    """Yield items, and give up between them where the run is to end."""
    for number, item in enumerate(items):
        if number % _BETWEEN_CHECKS == 0:
            run.check()
        yield item


def held_out(examples: Sequence[Example], share: float) -> tuple[list[Example], list[Example]]:
    """Part examples into those to learn from and those held out, by a digest of their texts.

    Equal texts are on the same side. A class that would be left without an example keeps all of its own.
    """
    if not share:
        return list(examples), []

    def drawn(text: str) -> float:
        digest = hashlib.sha256(normal_form(text).encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") / 2**64

    learned = {example.label for example in examples if drawn(example.text) >= share}
    sides: tuple[list[Example], list[Example]] = ([], [])
    for example in examples:
        sides[drawn(example.text) < share and example.label in learned].append(example)
    return sides


def manifest_of(
    trainer: Trainer[Any],
    run: TrainingRun,
    parameters: dict[str, JsonValue],
    examples: Examples,
    columns: Columns,
    packages: Sequence[str],
) -> Manifest:
    """Return the manifest of what a run has made."""
    return Manifest(
        kind=trainer.kind,
        trainer=trainer.name,
        created_at=datetime.now(UTC),
        parameters=parameters,
        seed=run.seed,
        data_sha256=examples.sha256,
        rows=len(examples.all),
        groups=columns.groups,
        versions={name: version(name) for name in packages},
    )
