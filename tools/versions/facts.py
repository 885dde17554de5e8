"""What is known of predictors: their versions, and how the one that answers does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from watchkeeper.tools.errors import CollectError, ToolError
from watchkeeper.tools.fact import Arguments, Fact, Raw, Result
from watchkeeper.tools.findings import Finding, FindingKind, Severity
from watchkeeper.tools.host import Target
from watchkeeper.tools.predictors.recording import FILE, Predictions
from watchkeeper.tools.predictors.served import Failures
from watchkeeper.tools.predictors.watching import look
from watchkeeper.tools.text import counted
from watchkeeper.tools.versions.records import CHALLENGER, CHAMPION
from watchkeeper.tools.versions.versions import FOLDER, Versions

_MOST = 20

PredictorName = Annotated[
    str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", description="name of the predictor")
]


def versions_of(target: Target) -> Versions:
    """Open the versions of predictors of a site; nothing is made where there are none.

    Raises:
        CollectError: If there are none, or they cannot be opened.
    """
    try:
        return Versions(target.home, create=False)
    except ToolError as error:
        raise CollectError(str(error)) from error


class PredictorArguments(Arguments):
    """Which predictor."""

    name: PredictorName


class VersionLine(BaseModel):
    """A version in a list.

    Attributes:
        number: Its number.
        quality: Its primary metric on held-out data; None where it was not evaluated.
        rows: Examples that it was scored on.
        registered: When it was registered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    quality: float | None
    rows: int
    registered: str


class VersionsResult(Result):
    """The newest versions of a predictor.

    Attributes:
        name: The predictor.
        champion: The version that answers; None for none.
        challenger: The version that is to be better; None for none.
        versions: The newest ones, the oldest first.
    """

    name: str
    champion: int | None
    challenger: int | None
    versions: tuple[VersionLine, ...]


class PredictorVersions(Fact[PredictorArguments, VersionsResult]):
    """Which versions of a predictor there are, and which answers."""

    name: ClassVar[str] = "predictor.versions"
    summary: ClassVar[str] = "which versions of a predictor there are, and which answers"
    kinds = frozenset({FindingKind.PREDICTOR_UNANSWERED})
    arguments_type = PredictorArguments
    result_type = VersionsResult

    def collect(self, target: Target, arguments: PredictorArguments) -> Raw:
        """Read the registry.

        Raises:
            CollectError: If there is no such predictor, or it cannot be read.
        """
        versions = versions_of(target)
        try:
            aliases = versions.aliases(arguments.name)
            found = versions.list(arguments.name)
        except ToolError as error:
            raise CollectError(str(error)) from error
        return {
            "champion": aliases.get(CHAMPION),
            "challenger": aliases.get(CHALLENGER),
            "versions": [
                {
                    "number": one.number,
                    "quality": one.quality,
                    "rows": one.record.evaluation.rows if one.record.evaluation else 0,
                    "registered": one.record.registered_at.isoformat(),
                }
                for one in found[-_MOST - 1 :]
            ],
        }

    def interpret(self, raw: Raw, arguments: PredictorArguments) -> VersionsResult:
        """Keep the newest."""
        found = raw["versions"]
        lines = tuple(VersionLine.model_validate(one) for one in found) if isinstance(found, list) else ()
        return VersionsResult.model_validate(
            {
                "name": arguments.name,
                "champion": raw["champion"],
                "challenger": raw["challenger"],
                "versions": lines[-_MOST:],
                "cut": len(lines) > _MOST,
            }
        )

    def findings(self, result: VersionsResult, arguments: PredictorArguments) -> Iterable[Finding]:  # noqa: ARG002
        """Say where no version answers."""
        if result.champion is None:
            yield Finding(
                kind=FindingKind.PREDICTOR_UNANSWERED,
                subject=result.name,
                text=f"no version of predictor {result.name} is its champion",
                severity=Severity.WARNING,
            )


class QualityResult(Result):
    """How the champion of a predictor does; of columns only numbers are told, since others chose their names.

    Attributes:
        name: The predictor.
        version: Its champion.
        predictions: Predictions of it that were looked at.
        rows_shifted: Columns of what it was asked that shifted.
        answers_shifted: Columns of what it answered that shifted.
        worst_psi: The largest population stability index of all.
        labels: Labels that arrived.
        share: Share of answers that agree with them; None without labels.
        share_low: Lower end of its 95 % interval.
        share_high: Upper end.
        held_out: Share of right answers on held-out data; None where it is not known.
        worse: Whether it is worse than on held-out data, and no chance.
        right_before: Share of right answers before the stream of labelled ones changed for the worse; None
            where it did not.
        right_since: Share of right ones since then.
        seconds_before: Seconds that 95 % of its first answers took at most; None where too few were measured.
        seconds_now: The same of its newest answers.
        slower: Whether too many of these take so much longer that it matters, and no chance.
        asked: The newest rows that it was asked.
        failed: At how many of these it failed.
        failing: Whether these are more than at first, or more than any may, and no chance.
    """

    name: str
    version: int
    predictions: int
    rows_shifted: int
    answers_shifted: int
    worst_psi: float
    labels: int
    share: float | None
    share_low: float | None
    share_high: float | None
    held_out: float | None
    worse: bool
    right_before: float | None
    right_since: float | None
    seconds_before: float | None = None
    seconds_now: float | None = None
    slower: bool = False
    asked: int = 0
    failed: int = 0
    failing: bool = False


class PredictorQuality(Fact[PredictorArguments, QualityResult]):
    """Whether what a predictor is asked and answers shifted, labels agree, and it answers as at first."""

    name: ClassVar[str] = "predictor.quality"
    summary: ClassVar[str] = "whether a predictor still does as well as when it was made"
    kinds = frozenset(
        {
            FindingKind.PREDICTOR_DRIFT,
            FindingKind.PREDICTOR_WORSE,
            FindingKind.PREDICTOR_SLOWER,
            FindingKind.PREDICTOR_FAILING,
            FindingKind.PREDICTOR_AS_BEFORE,
        }
    )
    arguments_type = PredictorArguments
    result_type = QualityResult

    def collect(self, target: Target, arguments: PredictorArguments) -> Raw:
        """Read what the champion was asked and answered lately.

        Raises:
            CollectError: If there is no champion, or no prediction can be read.
        """
        try:
            version = versions_of(target).get(arguments.name, CHAMPION)
            predictions = Predictions(target.home / FOLDER / FILE)
            try:
                report = look(predictions, version)
            finally:
                predictions.close()
        except CollectError:
            raise
        except ToolError as error:
            raise CollectError(str(error)) from error
        quality, fall, latency = report.quality, report.fall, report.latency
        failures = report.failures or Failures()
        drifts = [*report.columns.values(), *report.answers.values()]
        return {
            "version": version.number,
            "predictions": report.rows,
            "rows_shifted": sum(one.shifted for one in report.columns.values()),
            "answers_shifted": sum(one.shifted for one in report.answers.values()),
            "worst_psi": round(max((one.psi for one in drifts), default=0.0), 4),
            "labels": quality.labels if quality else 0,
            "share": quality.share if quality else None,
            "share_low": quality.low if quality else None,
            "share_high": quality.high if quality else None,
            "held_out": version.promised,
            "worse": quality.worse if quality else False,
            "right_before": fall.before if fall else None,
            "right_since": fall.share if fall else None,
            "seconds_before": round(latency.before, 6) if latency else None,
            "seconds_now": round(latency.now, 6) if latency else None,
            "slower": latency is not None and latency.slower,
            "asked": failures.rows,
            "failed": failures.failed,
            "failing": failures.many,
        }

    def interpret(self, raw: Raw, arguments: PredictorArguments) -> QualityResult:
        """Take the figures."""
        return QualityResult.model_validate({"name": arguments.name, **raw})

    def findings(self, result: QualityResult, arguments: PredictorArguments) -> Iterable[Finding]:  # noqa: ARG002
        """Say what is not as it was."""
        shifted = result.rows_shifted + result.answers_shifted
        if shifted:
            yield Finding(
                kind=FindingKind.PREDICTOR_DRIFT,
                subject=result.name,
                text=f"{counted(result.rows_shifted, 'column')} of what predictor {result.name} is asked and "
                f"{result.answers_shifted} of what it answers shifted (index {result.worst_psi:g})",
                severity=Severity.WARNING,
            )
        if result.worse and result.share is not None and result.held_out is not None:
            yield Finding(
                kind=FindingKind.PREDICTOR_WORSE,
                subject=result.name,
                text=f"predictor {result.name} is right in {result.share:.0%} of {result.labels} labelled "
                f"answers, and was in {result.held_out:.0%} on held-out data",
                severity=Severity.CRITICAL,
            )
        if result.right_before is not None and result.right_since is not None:
            yield Finding(
                kind=FindingKind.PREDICTOR_WORSE,
                subject=result.name,
                text=f"predictor {result.name} is right in {result.right_since:.0%} of labelled answers "
                f"since their stream changed, and was in {result.right_before:.0%} before",
                severity=Severity.CRITICAL,
            )
        if result.slower and result.seconds_before is not None and result.seconds_now is not None:
            yield Finding(
                kind=FindingKind.PREDICTOR_SLOWER,
                subject=result.name,
                text=f"95 % of the answers of predictor {result.name} take up to {result.seconds_now:.3g} s, "
                f"and took up to {result.seconds_before:.3g} s at first",
                severity=Severity.WARNING,
            )
        if result.failing:
            yield Finding(
                kind=FindingKind.PREDICTOR_FAILING,
                subject=result.name,
                text=f"predictor {result.name} failed at {result.failed} of the newest "
                f"{counted(result.asked, 'row')}",
                severity=Severity.CRITICAL,
            )
        changed = shifted or result.worse or result.right_before is not None
        if not (changed or result.slower or result.failing):
            yield Finding(
                kind=FindingKind.PREDICTOR_AS_BEFORE,
                subject=result.name,
                text=f"predictor {result.name} does as before ({counted(result.predictions, 'prediction')})",
            )
