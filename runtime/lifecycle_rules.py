"""What a new version of a predictor must show before it answers: read from YAML, checked at load."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from watchkeeper.runtime.errors import ConfigurationError
from watchkeeper.tools.documents import DocumentError, read_document
from watchkeeper.tools.inventory import Name
from watchkeeper.tools.training.spec import JobSpec

FILE = "lifecycle.yaml"
"""File in the home that says of predictors how they are retrained."""

_DAY = 86_400.0
_MOVED = ("limits", "undecided")
"""What of a test of bias is the policy's to say."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataRules(_Strict):
    """What data must be like.

    Attributes:
        rows: Least rows to learn from.
        held_out: Least rows that were held out.
        shared: Share of held-out rows that may stand in the data to learn from, too: what is known by heart
            says nothing of what is new. Rows that repeat by nature, such as log lines without a time, need
            more.
    """

    rows: int = Field(default=50, ge=1)
    held_out: int = Field(default=30, ge=1)
    shared: float = Field(default=0.1, ge=0, le=1)


class CompareRules(_Strict):
    """What a challenger must show beside the champion, on the same held-out data.

    Attributes:
        need: ``better``: better than chance explains; ``not-worse``: not worse than chance explains.
        gain: How much its primary metric must be above the champion's.
        least: What its primary metric must reach, also where no version answers yet.
        confidence: Of the comparison.
    """

    need: Literal["better", "not-worse"] = "better"
    gain: float = 0.0
    least: float | None = None
    confidence: float = Field(default=0.95, gt=0.5, lt=1)


class Groups(_Strict):
    """Between which groups differences are measured; the policy says how large they may be.

    Attributes:
        columns: Columns that tell groups apart, besides those that the policy names (default: those that the
            trainer scores apart).
    """

    columns: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _of_the_policy(cls, values: Any) -> Any:
        moved = [name for name in _MOVED if isinstance(values, dict) and name in values]
        if moved:
            raise ValueError(
                f"{' and '.join(moved)} of the test for bias moved into the policy: write bias: "
                "{equalized_odds: 0.2, undecided: refuse} into policy.yaml (under bias.predictors for one "
                "predictor alone) and leave the columns here"
            )
        return values


class TrialRules(_Strict):
    """What a challenger shows on live requests before it answers; the server says what challengers do.

    Attributes:
        labels: Labelled answers of the challenger that are waited for; 0 for no trial.
        seconds: How long they are waited for.
    """

    labels: int = Field(default=0, ge=0, le=1_000_000)
    seconds: float = Field(default=_DAY, gt=0, le=366 * _DAY)


class LiveRules(_Strict):
    """How a version is watched once it answers, and when it is taken back.

    Attributes:
        labels: Labelled answers that are waited for; 0 for no watch.
        seconds: How long they are waited for.
        margin: How far below that on held-out data the share of right answers may fall.
        floor: What that share must reach, instead; needed where a trainer calls no row right or wrong.
        failures: Share of rows at which it may fail, in its trial, too, those among them that clients got
            wrong; 1 for any.
        confidence: That a version is not taken back by chance, over all looks together.
    """

    labels: int = Field(default=200, ge=0, le=1_000_000)
    seconds: float = Field(default=_DAY, gt=0, le=366 * _DAY)
    margin: float = Field(default=0.02, ge=0, le=1)
    floor: float | None = Field(default=None, ge=0, le=1)
    failures: float = Field(default=0.2, gt=0, le=1)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)


class Thresholds(_Strict):
    """All of it.

    Attributes:
        data: What data must be like.
        compare: What a challenger must show beside the champion.
        bias: By what groups are told apart.
        trial: What it shows on live requests before it answers.
        live: How it is watched once it answers.
        label_column: Column of the answers that labels are held against.
        explained: Held-out rows whose answers are explained in the report.
        sure: Probability under which the agent's answer to drift is not followed: people are called.
    """

    data: DataRules = DataRules()
    compare: CompareRules = CompareRules()
    bias: Groups = Groups()
    trial: TrialRules = TrialRules()
    live: LiveRules = LiveRules()
    label_column: str = "label"
    explained: int = Field(default=3, ge=0, le=20)
    sure: float = Field(default=0.5, ge=0, le=1)


class Retraining(Thresholds):
    """One retraining, as it was asked for.

    Attributes:
        predictor: The predictor.
        host: Host of the inventory that it belongs to.
        job: What is to be trained.
        held_out: Data that no version learned from.
        purpose: What the predictor is for; stands on the card.
    """

    predictor: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    host: Name
    job: JobSpec
    held_out: Path
    purpose: str = ""


class PredictorRules(Thresholds):
    """How a predictor is retrained.

    Attributes:
        host: Host of the inventory that it belongs to.
        job: File that says what is trained (see ``watchkeeper jobs``).
        held_out: Data that no version learned from.
        purpose: What the predictor is for; stands on the card.
    """

    host: Name
    job: Path
    held_out: Path
    purpose: str = ""


class LifecycleRules(_Strict):
    """The predictors of a site, and how they are retrained.

    Attributes:
        predictors: By name.
    """

    predictors: dict[str, PredictorRules] = {}

    @classmethod
    def load(cls, path: Path) -> LifecycleRules:
        """Read rules from a YAML file; relative paths in it are relative to it.

        Raises:
            ConfigurationError: With file, line and value.
        """
        try:
            document = read_document(path, "lifecycle rules")
        except DocumentError as error:
            raise ConfigurationError(str(error)) from error
        try:
            found = cls.model_validate(document.data or {})
        except ValidationError as error:
            raise ConfigurationError(f"lifecycle rules {document.explain(error)}") from error
        placed = {
            name: rules.model_copy(
                update={
                    "job": (path.parent / rules.job.expanduser()).absolute(),
                    "held_out": (path.parent / rules.held_out.expanduser()).absolute(),
                }
            )
            for name, rules in found.predictors.items()
        }
        return cls(predictors=placed)

    @classmethod
    def of_home(cls, home: Path) -> LifecycleRules:
        """Read the rules of a home; none where it has no such file.

        Raises:
            ConfigurationError: As `load` does.
        """
        path = home / FILE
        return cls.load(path) if path.exists() else cls()

    def retraining(self, predictor: str) -> Retraining | None:
        """Return how a predictor is retrained, or None where nothing says so.

        Raises:
            JobSpecError: If its job cannot be read.
        """
        rules = self.predictors.get(predictor)
        if rules is None:
            return None
        values = {name: getattr(rules, name) for name in Thresholds.model_fields}
        return Retraining(
            **values,
            predictor=predictor,
            host=rules.host,
            job=JobSpec.load(rules.job),
            held_out=rules.held_out,
            purpose=rules.purpose,
        )


def kept_request(values: dict[str, Any]) -> Retraining:
    """Read a retraining as it was kept; what the policy says today may stand in one of an earlier version."""
    bias = values.get("bias")
    if isinstance(bias, dict):
        values = values | {"bias": {name: value for name, value in bias.items() if name not in _MOVED}}
    return Retraining.model_validate(values)
