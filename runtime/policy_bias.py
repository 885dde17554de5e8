"""What a policy says of differences between groups: how large they may be where a version is to answer.

Differences are measured once, on held-out rows, and judged whenever the policy is asked: what was measured
says how large a difference is at least and at most, and holds no limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from watchkeeper.tools.predictors.bias_report import BiasPolicy, BiasReport, Rate, Verdict

RULE = "bias-limits"
"""Under which name a decision and its trace speak of the policy's limits."""

_ORDER = list(Verdict)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Difference(_Record):
    """How far groups are apart in one rate.

    Attributes:
        column: The column that tells the groups apart.
        label: The label that the rate is about.
        rate: The rate.
        between: The two groups that are surely apart the furthest.
        low: What the greatest difference between two groups is at least.
        high: What it is at most; 1 where too little was seen to say.
    """

    column: str
    label: str = ""
    rate: Rate = Rate.TRUE_POSITIVE
    between: tuple[str, ...] = ()
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> Difference:
        if self.low > self.high:
            raise ValueError(f"a difference of at least {self.low:g} is not {self.high:g} at most")
        return self


class MeasuredBias(_Record):
    """How differently a version treats groups, as it was measured.

    Attributes:
        predictor: The predictor.
        differences: By column, label and rate.
        columns: Columns by which groups were to be told apart.
        confidence: That the bounds of all differences of a column hold; None for what the policy wants.
        positive: The labels that were looked at; empty for all.
    """

    predictor: str = ""
    differences: tuple[Difference, ...] = ()
    columns: tuple[str, ...] = ()
    confidence: float | None = None
    positive: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, predictor: str, reports: Iterable[BiasReport], policy: BiasPolicy, columns: Iterable[str]
    ) -> MeasuredBias:
        """Keep what a test of bias measured, without what it was held against.

        Args:
            predictor: The predictor.
            reports: What was found.
            policy: What was looked at, and how surely.
            columns: Columns by which groups were to be told apart.
        """
        return cls(
            predictor=predictor,
            differences=tuple(one for report in reports for one in _differences(report)),
            columns=tuple(sorted(columns)),
            confidence=policy.confidence,
            positive=policy.positive,
        )

    @classmethod
    def given(
        cls, differences: tuple[Difference, ...], arguments: Mapping[str, JsonValue]
    ) -> MeasuredBias | None:
        """Return what an example or a case says was measured; None where it says nothing.

        Args:
            differences: What it says.
            arguments: Those of its action.
        """
        return cls(predictor=str(arguments.get("name", "")), differences=differences) if differences else None

    def told(self, verdict: str) -> dict[str, Any]:
        """Return what the condition of a rule may look at.

        Args:
            verdict: What the policy's limits say of it.
        """
        return {
            "tested": bool(self.differences),
            "verdict": verdict,
            "differences": [one.model_dump(mode="json", exclude={"between"}) for one in self.differences],
        }

    def bound(self) -> JsonValue:
        """Return what an approval is bound to."""
        kept: JsonValue = self.model_dump(mode="json")
        return kept


@dataclass(frozen=True, slots=True)
class BiasAnswer:
    """What limits say of what was measured.

    Attributes:
        refused: Whether it may not answer.
        reason: Why, or what was found.
        verdict: The worst; None where nothing was judged.
        columns: What is said of each column, for people.
    """

    refused: bool
    reason: str
    verdict: Verdict | None = None
    columns: dict[str, str] = field(default_factory=dict)


class BiasLimits(BiasPolicy):
    """How differently a version may treat groups.

    Attributes:
        equalized_odds: Between the rates at which groups are given a label rightly, and at which wrongly.
        columns: Columns by which groups must be told apart, besides those that a retraining names.
        undecided: Whether a version goes on where too few rows were seen to say, or a column that is named
            tells no groups apart.
    """

    equalized_odds: float | None = Field(default=0.2, ge=0, le=1)
    columns: tuple[str, ...] = ()
    undecided: Literal["go-on", "refuse"] = "go-on"

    def judge(self, measured: MeasuredBias) -> BiasAnswer:
        """Hold what was measured against these limits."""
        otherwise = self._otherwise(measured)
        if otherwise:
            return BiasAnswer(True, f"{otherwise}: have it tested anew, by a retraining")
        found: dict[str, Verdict | None] = {}
        beyond: list[str] = []
        for one in measured.differences:
            limit = self._limit(one.rate)
            verdict = None if limit is None else _verdict(one, limit)
            found[one.column] = _worst(found.get(one.column), verdict)
            if verdict is Verdict.BEYOND:
                beyond.append(_said(one, limit))
        columns = {column: verdict.value if verdict else "not judged" for column, verdict in found.items()}
        untold = sorted({*measured.columns, *self.columns} - found.keys())
        columns |= dict.fromkeys(untold, "not told apart")
        said = ", ".join(f"by {column}: {verdict}" for column, verdict in columns.items())
        worst = _worst(*found.values(), Verdict.UNDECIDED if untold else None)
        refused = worst is Verdict.BEYOND or (worst is Verdict.UNDECIDED and self.undecided == "refuse")
        return BiasAnswer(refused, "; ".join([said, *beyond[:3]]), worst, columns)

    def told(self) -> str:
        """Say it in a line, for people."""
        named = (("equalized odds", self.equalized_odds), ("demographic parity", self.demographic_parity))
        limits = ", ".join(f"{name} {value:g}" for name, value in named if value is not None) or "no limit"
        by = f", by {', '.join(self.columns)}" if self.columns else ""
        what = f", of {', '.join(self.positive)}" if self.positive else ""
        undecided = "goes on" if self.undecided == "go-on" else "is refused"
        return f"{limits}{by}{what}, {self.confidence:.4g} sure; what is undecided {undecided}"

    def _limit(self, rate: Rate) -> float | None:
        return self.demographic_parity if rate is Rate.SELECTION else self.equalized_odds

    def _otherwise(self, measured: MeasuredBias) -> str:
        """Say what was looked at otherwise than is wanted now."""
        if measured.confidence is None:
            return ""
        if measured.confidence != self.confidence:
            return (
                f"it was tested for bias with confidence {measured.confidence:g}, and the policy wants "
                f"{self.confidence:g}"
            )
        if set(measured.positive) != set(self.positive):
            looked, wanted = (", ".join(one) or "all" for one in (measured.positive, self.positive))
            return f"it was tested for bias by the labels {looked}, and the policy wants {wanted}"
        missing = sorted(set(self.columns) - set(measured.columns))
        if missing:
            return f"it was not tested for bias by {', '.join(missing)}, which the policy wants"
        return ""


class BiasRules(BiasLimits):
    """The policy's section ``bias``: limits for all predictors, and others for some.

    Attributes:
        predictors: By the name of a predictor: what holds for it instead, all of it.
    """

    predictors: dict[str, BiasLimits] = Field(default_factory=dict)

    def of(self, predictor: str) -> BiasLimits:
        """Return what holds for a predictor."""
        return self.predictors.get(predictor, self)


def _differences(report: BiasReport) -> Iterable[Difference]:
    for one in report.disparities:
        yield Difference(
            column=report.column,
            label=one.label,
            rate=one.rate,
            between=one.surest,
            low=one.least,
            high=max(one.least, one.most),
        )
    for rate, label in report.unseen:
        yield Difference(column=report.column, label=label, rate=rate, low=0, high=1)


def _verdict(one: Difference, limit: float) -> Verdict:
    if one.low > limit:
        return Verdict.BEYOND
    return Verdict.WITHIN if one.high <= limit else Verdict.UNDECIDED


def _worst(*verdicts: Verdict | None) -> Verdict | None:
    return max((one for one in verdicts if one is not None), key=_ORDER.index, default=None)


def _said(one: Difference, limit: float | None) -> str:
    of_what = f" of {one.label!r}" if one.label else ""
    between = f" between {' and '.join(one.between)}" if one.between else ""
    return f"the {one.rate.value}{of_what} differs{between} by {one.low:.3f} at least, and {limit:g} may be"
