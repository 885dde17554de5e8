"""What every trainer is given, and what it gives back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat


class Parameters(BaseModel):
    """Parameters of a trainer; unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSummary(BaseModel):
    """What a trainer found in data that it accepts.

    Attributes:
        sha256: Digest of the files, in the order of their names.
        rows: Examples that can be used.
        columns: Columns with their types, for people.
        notes: What is worth knowing, e.g. how many rows were left out and why.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    rows: int = Field(ge=0)
    columns: dict[str, str] = {}
    notes: tuple[str, ...] = ()


class Evaluation(BaseModel):
    """How good a predictor is on data that it did not learn from.

    Attributes:
        primary: The metric by which predictors of this kind are compared; higher is better.
        metrics: All metrics by name.
        groups: The same by column and value, e.g. ``{"team": {"web": {"f1": 0.9}}}``.
        rows: Examples that were scored.
        outcomes: For each example how well it was answered, in the order of the data, so that two predictors
            can be compared in pairs (higher is better); empty where no example stands alone.
        promises: Whether outcomes say right (1.0) or wrong (0.0), so that their mean promises a share of
            right answers that live labels can be held against.
        unlearned: Labels that it never learned, with how many examples count as answered wrong for that.
        data_sha256: Digest of the data; empty where nobody said.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    primary: str
    metrics: dict[str, FiniteFloat]
    groups: dict[str, dict[str, dict[str, FiniteFloat]]] = {}
    rows: int = Field(ge=0)
    outcomes: tuple[FiniteFloat, ...] = ()
    unlearned: dict[str, int] = {}
    promises: bool = True
    data_sha256: str = ""


class TrainingRun(Protocol):
    """One run of a trainer: where it reads and writes, and whom it tells.

    Attributes:
        data: A file or folder to learn from.
        artefacts: An empty folder: what is in it at the end is the predictor.
        checkpoint: The newest checkpoint of this run, a folder; None at the start.
        seed: Seed of everything that is drawn by chance.
        threads: Threads to use.
    """

    data: Path
    artefacts: Path
    checkpoint: Path | None
    seed: int
    threads: int

    def metric(self, step: int, **values: float) -> None:
        """Keep metrics of a step.

        Raises:
            DivergedError: If one is no finite number.
        """

    def progress(self, done: float, what: str = "") -> None:
        """Say how far it is, from 0 to 1."""

    def save(self, step: int, write: Callable[[Path], object]) -> None:
        """Keep a checkpoint, all of it or nothing: ``write`` fills the folder that it is given."""

    def check(self) -> None:
        """Give up where the run is to end; called at least once a second.

        Raises:
            JobCancelledError: If it was cancelled.
        """


P = TypeVar("P", bound=Parameters)


class Trainer(ABC, Generic[P]):
    """Learns a predictor from data.

    A trainer draws everything by chance from its run's seed, and goes on from a checkpoint with exactly the
    numbers that it would have had without the break.

    Attributes:
        name: Its name, as jobs give it.
        summary: What it learns, in a few words.
        extra: The extra of the distribution that it needs, if any, and the module that is there with it.
        kind: Kind of the predictors that it makes.
        promises: Whether outcomes of its evaluations say right or wrong; see `Evaluation`.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    extra: ClassVar[tuple[str, str] | None] = None
    kind: ClassVar[str]
    promises: ClassVar[bool] = True
    parameters_type: type[P]

    @abstractmethod
    def inspect(self, data: Path, parameters: P) -> DataSummary:
        """Look data over before anything is trained.

        Raises:
            DataError: If they cannot be learned from; it names the place, the value, and what to do.
        """

    def look_over(self, data: Path, parameters: P) -> DataSummary:
        """Look data over on which a predictor is to be scored: they need not be enough to learn from.

        Raises:
            DataError: If they cannot be read; it names the place, the value, and what to do.
        """
        return self.inspect(data, parameters)

    @abstractmethod
    def train(self, run: TrainingRun, parameters: P) -> None:
        """Learn, and leave a predictor in the run's folder.

        Raises:
            DataError: As `inspect` does.
            DivergedError: If the numbers stop being numbers.
            JobCancelledError: If the run was cancelled.
        """

    @abstractmethod
    def evaluate(self, predictor: Path, data: Path, parameters: P) -> Evaluation:
        """Score a predictor on data that it did not learn from.

        Raises:
            DataError: If it cannot be scored on them.
            ArtefactError: If the folder holds no predictor of this kind.
        """

    def evaluate_beside(self, predictor: Path, data: Path, parameters: P) -> Evaluation:
        """Score a predictor beside a newer one; raises as `evaluate` does.

        The newer one may have learned labels that this one never did: a trainer of classifiers counts such
        examples as answered wrong, and names the labels.
        """
        return self.evaluate(predictor, data, parameters)

    def parse_parameters(self, values: Mapping[str, Any]) -> P:
        """Validate parameters; raises pydantic's ValidationError."""
        return self.parameters_type.model_validate(dict(values))
