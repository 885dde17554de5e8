"""Trainer of predictors that tell the class of a log line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from watchkeeper.tools.errors import ArtefactError, DataError
from watchkeeper.tools.predictors.artefact import read_manifest, write_manifest
from watchkeeper.tools.predictors.features import Features
from watchkeeper.tools.predictors.logs import LogDescription, LogPredictor, features_of
from watchkeeper.tools.predictors.masks import without_header
from watchkeeper.tools.predictors.templates import TemplateMiner, words_of
from watchkeeper.tools.training.bag import BagParameters, digest_of, fit_bag, temperature_of
from watchkeeper.tools.training.classifiers import answers_of, checked, manifest_of
from watchkeeper.tools.training.examples import Columns, Example, Examples, read_examples, screen
from watchkeeper.tools.training.interface import DataSummary, Evaluation, Trainer, TrainingRun
from watchkeeper.tools.training.scores import Answers, evaluation_of

ABNORMAL = "abnormal"
"""The label of every line of trouble, where they are not told apart."""


class LogParameters(BagParameters):
    """Parameters of a classifier of log lines.

    Attributes:
        message: Column of the message, or group of the pattern.
        label: Column of its class.
        time: Column of the time, if there is one: then the newest lines are those held out, and lines from
            before the end of training are refused in scoring.
        fields: Further columns to learn from, e.g. the severity.
        groups: Columns by which it is scored apart.
        pattern: For logs that are no tables: a regular expression with the columns as named groups.
        normal: Label of lines without trouble; all others then count as ``abnormal``.
        positive: Class whose F1 is the primary metric; None for ``abnormal`` where ``normal`` is given, and
            for the mean over all classes otherwise.
        similarity: Share of a template's constant words that a line must have.
        templates: Templates that are kept.
    """

    message: str = Field(default="message", min_length=1)
    label: str = Field(default="label", min_length=1)
    time: str | None = None
    fields: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    pattern: str | None = None
    normal: str | None = None
    positive: str | None = None
    similarity: float = Field(default=0.65, gt=0, le=1)
    templates: int = Field(default=5000, ge=1, le=1_000_000)

    @property
    def columns(self) -> Columns:
        """Which columns hold what."""
        return Columns(self.message, self.label, self.fields, self.groups, self.time)

    @property
    def scored(self) -> str | None:
        """The class whose F1 counts."""
        return self.positive or (None if self.normal is None else ABNORMAL)

    def label_of(self, found: str) -> str:
        """Return the class of what stands in the label's column."""
        return found if self.normal is None or found == self.normal else ABNORMAL


class LogClassifier(Trainer[LogParameters]):
    """Learns to tell the class of a log line, from lines with labels."""

    name: ClassVar[str] = "log-classifier"
    summary: ClassVar[str] = "the class of a log line, by its template and words"
    kind: ClassVar[str] = LogPredictor.kind
    parameters_type = LogParameters

    def inspect(self, data: Path, parameters: LogParameters) -> DataSummary:
        """Look the lines over.

        Raises:
            DataError: With file, line, value and what to do, if they cannot be learned from.
        """
        return self._summary(*self._accepted(data, parameters), parameters)

    def look_over(self, data: Path, parameters: LogParameters) -> DataSummary:
        """Look lines over on which a predictor is to be scored; raises where they cannot be read."""
        return self._summary(self._read(data, parameters), [], parameters)

    @staticmethod
    def _summary(examples: Examples, notes: list[str], parameters: LogParameters) -> DataSummary:
        columns = parameters.columns
        roles = {
            columns.text: "message",
            columns.label: "label",
            **({columns.time: "time"} if columns.time else {}),
        }
        return DataSummary(
            sha256=examples.sha256,
            rows=len(examples.all),
            columns={
                **dict.fromkeys(columns.groups, "group"),
                **dict.fromkeys(columns.fields, "field"),
                **roles,
            },
            notes=tuple(notes),
        )

    def train(self, run: TrainingRun, parameters: LogParameters) -> None:
        """Learn templates and weights, and calibrate probabilities on the newest lines, which are held out.

        Raises:
            DataError: As `inspect` does, or if the checkpoint belongs to other data or parameters.
            DivergedError: If the loss is no finite number.
            JobCancelledError: If the run was cancelled.
        """
        examples, _ = self._accepted(run.data, parameters)
        classes = examples.classes
        kept, out = newest_held_out(examples.all, parameters.held_out)
        run.progress(0, "finding templates")
        miner = TemplateMiner(similarity=parameters.similarity, limit=parameters.templates)
        for example in checked(run, kept):
            miner.learn(without_header(example.text))
        number = {label: index for index, label in enumerate(classes)}

        def features(of: Sequence[Example]) -> list[Features]:
            return [
                features_of(
                    words_of(without_header(one.text)),
                    miner,
                    parameters.fields,
                    one.fields,
                    parameters.buckets,
                )
                for one in checked(run, of)
            ]

        bag = fit_bag(
            run,
            features(kept),
            [number[example.label] for example in kept],
            len(classes),
            parameters,
            about=digest_of(examples.sha256, parameters, run.seed, (self.name,)),
        )
        scores = np.array([bag.scores(one) for one in features(out)]).reshape(len(out), len(classes))
        truth = np.array([number[example.label] for example in out], np.int64)
        bag = replace(bag, temperature=temperature_of(scores, truth))
        dated = all(example.dated for example in examples.all)
        times = [example.time for example in examples.all if example.time is not None and dated]
        description = LogDescription(
            column=parameters.message,
            fields=parameters.fields,
            classes=classes,
            normal=parameters.normal,
            buckets=parameters.buckets,
            learned_until=max(times) if times else None,
            templates=miner.to_json(),
        )
        bag.save(run.artefacts, description.model_dump(mode="json"))
        write_manifest(
            run.artefacts,
            manifest_of(
                self,
                run,
                parameters.model_dump(mode="json"),
                examples,
                parameters.columns,
                ("numpy", "torch", "watchkeeper"),
            ),
        )
        run.progress(1, "done")

    def evaluate(self, predictor: Path, data: Path, parameters: LogParameters) -> Evaluation:
        """Score a predictor on labelled lines.

        Raises:
            DataError: If it cannot be scored on them, learned from them, or they are older than what it
                learned from.
            ArtefactError: If the folder holds no predictor of log lines.
        """
        return evaluation_of(self.answers(predictor, data, parameters), positive=parameters.scored)

    def evaluate_beside(self, predictor: Path, data: Path, parameters: LogParameters) -> Evaluation:
        """Score it beside a newer one: a label that it never learned is answered wrong."""
        answers = self.answers(predictor, data, parameters, beside=True)
        return evaluation_of(answers, positive=parameters.scored)

    def answers(
        self, predictor: Path, data: Path, parameters: LogParameters, *, beside: bool = False
    ) -> Answers:
        """Ask a predictor labelled lines; raises as `evaluate` does, and see `answers_of`."""
        manifest = read_manifest(predictor)
        if manifest.kind != self.kind:
            raise ArtefactError(f"{predictor} holds a predictor of kind {manifest.kind!r}, not {self.kind!r}")
        examples = self._read(data, parameters)
        if examples.sha256 == manifest.data_sha256:
            raise DataError(f"{data} is what the predictor learned from: score it on other lines")
        loaded = LogPredictor.load(predictor)
        until = loaded.description.learned_until
        for example in examples.all:
            if until is not None and example.dated and example.time is not None and example.time < until:
                raise DataError(
                    f"{example.place}: was written at {example.time:.0f}, before the newest line that the "
                    f"predictor learned from ({until:.0f}), which would be foresight: score it on newer lines"
                )
        if parameters.scored is not None and parameters.scored not in loaded.classes:
            raise DataError(
                f"class {parameters.scored!r} was not learned: known are: {', '.join(loaded.classes)}"
            )
        return answers_of(loaded, loaded.classes, examples.all, parameters.columns, beside=beside)

    @staticmethod
    def _read(data: Path, parameters: LogParameters) -> Examples:
        return read_examples(
            data, parameters.columns, pattern=parameters.pattern, label_of=parameters.label_of
        )

    def _accepted(self, data: Path, parameters: LogParameters) -> tuple[Examples, list[str]]:
        examples = self._read(data, parameters)
        for label in (parameters.normal, parameters.positive):
            if label is not None and label not in examples.classes:
                there = read_examples(data, parameters.columns, pattern=parameters.pattern).classes
                raise DataError(f"{label!r} is no label of {data}: there are: {', '.join(there)}")
        notes = screen(
            examples,
            parameters.columns,
            first_words=False,
            leaks=parameters.leaks,
            contradictions=parameters.contradictions,
        )
        return examples, notes


def newest_held_out(examples: Sequence[Example], share: float) -> tuple[list[Example], list[Example]]:
    """Part examples into older ones and the newest, by their times, or by their order where they have none.

    Where the older ones lack a class, nothing is held out.
    """
    ordered = sorted(examples, key=lambda example: 0.0 if example.time is None else example.time)
    at = len(ordered) - int(share * len(ordered))
    if {example.label for example in ordered[:at]} != {example.label for example in ordered}:
        return ordered, []
    return ordered[:at], ordered[at:]
