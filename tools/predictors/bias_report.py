"""What a test of bias is asked and what it finds; see `watchkeeper.tools.predictors.bias`."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Verdict(StrEnum):
    """What can be said of a difference, the worst last."""

    WITHIN = "within"
    UNDECIDED = "undecided"
    BEYOND = "beyond"


class Rate(StrEnum):
    """A rate by which groups are compared."""

    SELECTION = "selection rate"
    TRUE_POSITIVE = "true positive rate"
    FALSE_POSITIVE = "false positive rate"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BiasPolicy(_Strict):
    """What a difference between two groups may be; None is not judged.

    Attributes:
        demographic_parity: Between the rates at which they are given a label.
        equalized_odds: Between the rates at which they are given it rightly, and at which wrongly.
        confidence: That all verdicts on a column hold.
        positive: The labels that matter; empty for all.
    """

    demographic_parity: float | None = Field(default=None, ge=0, le=1)
    equalized_odds: float | None = Field(default=None, ge=0, le=1)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    positive: tuple[str, ...] = ()


class GroupRate(_Strict):
    """A rate of one group, of how many, and its interval by itself."""

    rate: float
    count: int
    low: float
    high: float


class Disparity(_Strict):
    """How far groups are apart in one rate.

    Attributes:
        rate: The rate.
        label: The label that it is about.
        groups: The rate of each group; those without a row that counts are left out.
        difference: Between the highest and the lowest.
        between: The two groups whose difference decides the verdict.
        low: Least size of their difference.
        high: Greatest size of their difference.
        threshold: What it may be.
        verdict: None where there is no threshold.
        short: Groups with too few rows for a verdict.
        surest: The two groups that are surely apart the furthest.
        least: What the greatest difference between two groups is at least, whatever it may be.
        most: What it is at most; 1 where a group had no row that counts.
    """

    rate: Rate
    label: str
    groups: dict[str, GroupRate]
    difference: float
    between: tuple[str, str]
    low: float
    high: float
    threshold: float | None
    verdict: Verdict | None
    short: tuple[str, ...] = ()
    surest: tuple[str, str]
    least: float
    most: float


class BiasReport(_Strict):
    """What was found for one column.

    Attributes:
        column: The column that tells groups apart.
        rows: Rows of each group.
        accuracy: Share of right answers of each group.
        disparities: By rate and label.
        verdict: The worst; None where there is no threshold.
        unseen: Rates and labels by which no two groups could be compared.
    """

    column: str
    rows: dict[str, int]
    accuracy: dict[str, GroupRate]
    disparities: tuple[Disparity, ...]
    verdict: Verdict | None
    unseen: tuple[tuple[Rate, str], ...] = ()
