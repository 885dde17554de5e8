"""How predictors of a lifecycle are scored, compared by group, and explained."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pydantic import JsonValue

from watchkeeper.runtime.lifecycle_rules import CompareRules, Retraining
from watchkeeper.tools.predictors import open_predictor, read_manifest
from watchkeeper.tools.predictors.bias import BiasPolicy, BiasReport, bias_test
from watchkeeper.tools.predictors.explain import Explanation, explain_text
from watchkeeper.tools.redaction import REDACTED, redact_text
from watchkeeper.tools.training import Trainer, trainer_of
from watchkeeper.tools.training.examples import Columns, read_examples
from watchkeeper.tools.training.scores import Answers
from watchkeeper.tools.training.spec import JobSpec
from watchkeeper.tools.versions.compare import Comparison, Verdict

_TEXT = 300
_PIECES = 5

Find = Callable[[str], Trainer[Any]]
"""Finds a trainer by the name that a manifest gives."""


@runtime_checkable
class Classifies(Protocol):
    """A trainer whose predictors give one of several labels."""

    def answers(self, predictor: Path, data: Path, parameters: Any) -> Answers:
        """Ask a predictor labelled examples."""
        ...


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a challenger goes on, and why."""

    ok: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Explained:
    """A held-out row, what it should have been answered, and why it was answered as it was."""

    text: str
    truth: str
    explanation: Explanation

    def told(self) -> dict[str, JsonValue]:
        """Return what is kept of it; what looks like a secret in a row is not."""
        text = redact_text(self.text)
        return {
            "text": text[:_TEXT],
            "truth": self.truth,
            "label": self.explanation.label,
            "score": self.explanation.score,
            "pieces": [
                [piece.text if piece.text in text else REDACTED, piece.effect]
                for piece in self.explanation.pieces[:_PIECES]
            ],
        }


def finder_of(spec: JobSpec) -> Find:
    """Return what finds the trainer of a job, which may be a user's own, and those of the catalog."""

    def find(name: str) -> Trainer[Any]:
        if ":" not in spec.trainer:
            return trainer_of(name)
        if spec.modules is not None and str(spec.modules) not in sys.path:
            sys.path.append(str(spec.modules))
        own = trainer_of(spec.trainer)
        return own if name in {own.name, spec.trainer} else trainer_of(name)

    return find


def lacks_floor(request: Retraining) -> str:
    """Say what is missing where labels are to be looked at and nothing says how good they must be.

    Raises:
        UnknownTrainerError: If the trainer is not known here.
        MissingExtraError: If it needs an extra that is not installed.
    """
    live, looked_at = request.live, request.live.labels or request.trial.labels
    if not looked_at or live.floor is not None or finder_of(request.job)(request.job.trainer).promises:
        return ""
    return (
        f"trainer {request.job.trainer!r} calls no held-out row right or wrong, so they promise nothing of "
        "live labels: set live.floor, the share of labels that must agree, or look at none (labels: 0)"
    )


def answers_on(
    folder: Path, data: Path, find: Find, groups: Sequence[str] = (), *, also: Sequence[str] = ()
) -> Answers | None:
    """Ask a classifier labelled examples; None of what is none.

    Args:
        folder: The predictor.
        data: The examples.
        find: Finds its trainer.
        groups: Columns by which they are told apart, where not those that it was trained with.
        also: Columns by which they are told apart, too.

    Raises:
        DataError: If it cannot be asked them.
    """
    manifest = read_manifest(folder)
    trainer = find(manifest.trainer)
    if not isinstance(trainer, Classifies):
        return None
    given = dict(manifest.parameters)
    if (groups or also) and "groups" in trainer.parameters_type.model_fields:
        trained_with = getattr(trainer.parse_parameters(given), "groups", ())
        given["groups"] = list(dict.fromkeys([*(groups or trained_with), *also]))
    return trainer.answers(folder, data, trainer.parse_parameters(given))


def judge_comparison(found: Comparison, rules: CompareRules) -> Judgement:
    """Say whether a challenger is good enough beside the champion."""
    before, after = found.champion[found.primary], found.challenger[found.primary]
    said = f"{found.primary} {after:.4g} against {before:.4g} on {found.rows} rows; {found.reason}"
    if rules.least is not None and after < rules.least:
        return Judgement(False, f"{said}; at least {rules.least:g} is wanted")
    if found.verdict is Verdict.WORSE:
        return Judgement(False, f"it is worse: {said}")
    gained = after - before
    if gained < rules.gain:
        return Judgement(False, f"it gains {gained:+.4g}, and {rules.gain:+g} is wanted: {said}")
    alone = found.difference is None  # no example stands alone, so only the metric tells
    if rules.need == "better" and (found.verdict is not Verdict.BETTER if not alone else gained <= 0):
        return Judgement(False, f"it is not better: {said}")
    return Judgement(True, said)


def bias_of(answers: Answers, limits: BiasPolicy) -> tuple[BiasReport, ...]:
    """Compare how groups are answered; a column of a single value tells none apart.

    Raises:
        MissingExtraError: If the extra ``fairness`` is not installed.
        DataError: If a label of the limits does not occur.
    """
    groups = {name: list(values) for name, values in answers.groups.items() if len(set(values)) > 1}
    truth = [answers.classes[number] for number in answers.truth]
    given = [answers.classes[number] for number in answers.predicted]
    return bias_test(truth, given, groups, limits) if groups else ()


def explanations_of(folder: Path, data: Path, answers: Answers, find: Find, *, most: int) -> list[Explained]:
    """Explain answers to held-out rows, those that were answered wrong first.

    Args:
        folder: A classifier of texts or log lines.
        data: The held-out rows.
        answers: What it answered to them.
        find: Finds its trainer.
        most: How many.
    """
    manifest = read_manifest(folder)
    parameters = find(manifest.trainer).parse_parameters(manifest.parameters)
    columns = getattr(parameters, "columns", None)
    if not isinstance(columns, Columns) or not most:
        return []
    examples = read_examples(data, columns).all
    if len(examples) != len(answers.truth):
        return []
    order = sorted(range(len(examples)), key=lambda number: bool(answers.right[number]))
    predictor = open_predictor(folder)
    found = []
    for number in order[:most]:
        example = examples[number]
        row = {columns.text: example.text, **dict(zip(columns.fields, example.fields, strict=True))}
        explained = explain_text(predictor, row, column=columns.text)
        found.append(Explained(example.text, answers.classes[int(answers.truth[number])], explained))
    return found
