"""Trainer of predictors that tell the class of a text, in any language."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from watchkeeper.tools.errors import ArtefactError, DataError
from watchkeeper.tools.predictors.artefact import read_manifest, write_manifest
from watchkeeper.tools.predictors.features import text_features
from watchkeeper.tools.predictors.text import TextDescription, TextPredictor
from watchkeeper.tools.training.bag import BagParameters, digest_of, fit_bag, temperature_of
from watchkeeper.tools.training.classifiers import answers_of, checked, held_out, manifest_of
from watchkeeper.tools.training.examples import Columns, Examples, read_examples, screen
from watchkeeper.tools.training.interface import DataSummary, Evaluation, Trainer, TrainingRun
from watchkeeper.tools.training.scores import Answers, evaluation_of


class TextParameters(BagParameters):
    """Parameters of a classifier of texts.

    Attributes:
        text: Column of the text.
        label: Column of its class.
        groups: Columns by which it is scored apart, e.g. the language; it never learns from them.
        positive: Class whose F1 is the primary metric; None for the mean over all classes.
        model: A transformer that is fitted instead of the small classifier: a folder, or an id of the
            catalog.
        max_tokens: Tokens of a text that a transformer reads.
    """

    text: str = Field(default="text", min_length=1)
    label: str = Field(default="label", min_length=1)
    groups: tuple[str, ...] = ()
    positive: str | None = None
    model: str | None = Field(default=None, min_length=1)
    max_tokens: int = Field(default=256, ge=8, le=8192)

    @property
    def columns(self) -> Columns:
        """Which columns hold what."""
        return Columns(self.text, self.label, groups=self.groups)


class TextClassifier(Trainer[TextParameters]):
    """Learns to tell the class of a text from a CSV or JSON-lines file."""

    name: ClassVar[str] = "text-classifier"
    summary: ClassVar[str] = "the class of a text, in any language"
    kind: ClassVar[str] = TextPredictor.kind
    parameters_type = TextParameters

    def inspect(self, data: Path, parameters: TextParameters) -> DataSummary:
        """Look the rows over.

        Raises:
            DataError: With file, line, value and what to do, if they cannot be learned from.
        """
        return self._summary(*self._accepted(data, parameters), parameters)

    def look_over(self, data: Path, parameters: TextParameters) -> DataSummary:
        """Look rows over on which a predictor is to be scored; raises where they cannot be read."""
        return self._summary(read_examples(data, parameters.columns), [], parameters)

    @staticmethod
    def _summary(examples: Examples, notes: list[str], parameters: TextParameters) -> DataSummary:
        return DataSummary(
            sha256=examples.sha256,
            rows=len(examples.all),
            columns={
                parameters.text: "text",
                parameters.label: "label",
                **dict.fromkeys(parameters.groups, "group"),
            },
            notes=tuple(notes),
        )

    def train(self, run: TrainingRun, parameters: TextParameters) -> None:
        """Learn, and calibrate probabilities on examples held out.

        Raises:
            DataError: As `inspect` does, or if the checkpoint belongs to other data or parameters.
            DivergedError: If the loss is no finite number.
            JobCancelledError: If the run was cancelled.
        """
        examples, _ = self._accepted(run.data, parameters)
        classes = examples.classes
        kept, out = held_out(examples.all, parameters.held_out)
        number = {label: index for index, label in enumerate(classes)}
        labels = [number[example.label] for example in kept]
        truth = np.array([number[example.label] for example in out], np.int64)
        about = digest_of(examples.sha256, parameters, run.seed, (self.name,))
        run.progress(0, "reading")
        packages = ["numpy", "torch", "watchkeeper"]
        if parameters.model is None:
            features = [text_features(example.text, parameters.buckets) for example in checked(run, kept)]
            bag = fit_bag(run, features, labels, len(classes), parameters, about=about)
            asked = [text_features(example.text, parameters.buckets) for example in checked(run, out)]
            scores = np.array([bag.scores(one) for one in asked]).reshape(len(out), len(classes))
            bag = replace(bag, temperature=temperature_of(scores, truth))
            description = TextDescription(
                encoder="pieces", column=parameters.text, classes=classes, buckets=parameters.buckets
            )
            bag.save(run.artefacts, description.model_dump(mode="json"))
        else:
            from watchkeeper.tools.training.transformer import fit_transformer

            fit_transformer(
                run,
                parameters,
                classes,
                texts=[example.text for example in kept],
                labels=labels,
                held_out=[example.text for example in out],
                truth=truth,
                about=about,
            )
            packages.append("transformers")
        write_manifest(
            run.artefacts,
            manifest_of(
                self, run, parameters.model_dump(mode="json"), examples, parameters.columns, packages
            ),
        )
        run.progress(1, "done")

    def evaluate(self, predictor: Path, data: Path, parameters: TextParameters) -> Evaluation:
        """Score a predictor on labelled texts.

        Raises:
            DataError: If it cannot be scored on them, or learned from them.
            ArtefactError: If the folder holds no predictor of texts.
        """
        return evaluation_of(self.answers(predictor, data, parameters), positive=parameters.positive)

    def evaluate_beside(self, predictor: Path, data: Path, parameters: TextParameters) -> Evaluation:
        """Score it beside a newer one: a label that it never learned is answered wrong."""
        answers = self.answers(predictor, data, parameters, beside=True)
        return evaluation_of(answers, positive=parameters.positive)

    def answers(
        self, predictor: Path, data: Path, parameters: TextParameters, *, beside: bool = False
    ) -> Answers:
        """Ask a predictor labelled texts; raises as `evaluate` does, and see `answers_of`."""
        manifest = read_manifest(predictor)
        if manifest.kind != self.kind:
            raise ArtefactError(f"{predictor} holds a predictor of kind {manifest.kind!r}, not {self.kind!r}")
        examples = read_examples(data, parameters.columns)
        if examples.sha256 == manifest.data_sha256:
            raise DataError(f"{data} is what the predictor learned from: score it on other data")
        loaded = TextPredictor.load(predictor)
        if parameters.positive is not None and parameters.positive not in loaded.classes:
            raise DataError(
                f"positive class {parameters.positive!r} was not learned: known are: "
                f"{', '.join(loaded.classes)}"
            )
        return answers_of(loaded, loaded.classes, examples.all, parameters.columns, beside=beside)

    @staticmethod
    def _accepted(data: Path, parameters: TextParameters) -> tuple[Examples, list[str]]:
        examples = read_examples(data, parameters.columns)
        notes = screen(
            examples,
            parameters.columns,
            first_words=True,
            leaks=parameters.leaks,
            contradictions=parameters.contradictions,
        )
        if parameters.positive is not None and parameters.positive not in examples.classes:
            raise DataError(
                f"positive class {parameters.positive!r} is no label of {data}: there are: "
                f"{', '.join(examples.classes)}"
            )
        return examples, notes
