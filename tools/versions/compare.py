"""Whether a challenger is better than the champion, on the same data and example by example."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from watchkeeper.tools.errors import ArtefactError, DataError
from watchkeeper.tools.predictors import read_manifest
from watchkeeper.tools.text import counted
from watchkeeper.tools.training import trainer_of
from watchkeeper.tools.training.interface import Evaluation, Trainer
from watchkeeper.tools.versions.bootstrap import interval_of_mean, sign_test


class Verdict(StrEnum):
    """What a comparison says of the challenger."""

    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided"


class Comparison(BaseModel):
    """A challenger beside the champion.

    Attributes:
        primary: The metric by which predictors of this kind are compared.
        champion: Its metrics.
        challenger: Its metrics.
        rows: Examples that both answered.
        unlearned: Labels that the champion never learned, with how many examples it answered wrong for that.
        difference: Mean of how much better the challenger answered an example; None without outcomes.
        low: Lower end of the interval of that.
        high: Upper end.
        confidence: Of the interval.
        wins: Examples that the challenger answered better.
        losses: Examples that the champion answered better.
        p_value: Of the exact sign test on these.
        verdict: What follows.
        reason: Why, for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    primary: str
    champion: dict[str, float]
    challenger: dict[str, float]
    rows: int
    unlearned: dict[str, int] = {}
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float
    wins: int = 0
    losses: int = 0
    p_value: float | None = None
    verdict: Verdict
    reason: str


def compare(
    champion: Evaluation,
    challenger: Evaluation,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare two evaluations on the same data, example by example.

    A verdict takes both a paired bootstrap interval without zero and an exact sign test: the interval alone
    would call three wins out of three examples a proof. Where the primary metric of right and wrong
    answers says the opposite of them, none is given: a version that never raises an alarm is right more often
    where alarms are rare.

    Args:
        champion: Of the version that answers.
        challenger: Of the version that is to be better.
        confidence: Of the interval; the sign test must reach 1 - confidence.
        resamples: Resamples of the bootstrap.
        seed: Of what it draws.

    Raises:
        DataError: If the two cannot have been scored on the same data, or by the same metric.
    """
    if champion.primary != challenger.primary:
        raise DataError(
            f"the champion is measured by {champion.primary!r}, the challenger by {challenger.primary!r}: "
            "they cannot be compared"
        )
    if champion.data_sha256 and challenger.data_sha256 and champion.data_sha256 != challenger.data_sha256:
        raise DataError(
            "the champion was scored on other data than the challenger, so no row can be held against "
            "another: score both on the same data"
        )
    if champion.rows != challenger.rows or len(champion.outcomes) != len(challenger.outcomes):
        raise DataError(
            f"the champion was scored on {champion.rows} rows ({len(champion.outcomes)} outcomes), the "
            f"challenger on {challenger.rows} ({len(challenger.outcomes)}): score both on the same data"
        )
    shared: dict[str, Any] = {
        "primary": champion.primary,
        "champion": champion.metrics,
        "challenger": challenger.metrics,
        "rows": champion.rows,
        "unlearned": champion.unlearned,
        "confidence": confidence,
    }
    differences = [b - a for a, b in zip(champion.outcomes, challenger.outcomes, strict=True)]
    if not differences:
        said = "no example stands alone, so chance cannot be told from a difference"
        return Comparison(**shared, verdict=Verdict.UNDECIDED, reason=said)
    low, high = interval_of_mean(differences, confidence=confidence, resamples=resamples, seed=seed)
    wins = sum(one > 0 for one in differences)
    losses = sum(one < 0 for one in differences)
    p_value = sign_test(wins, losses)
    verdict, reason = _verdict(low, high, wins, losses, p_value, 1 - confidence)
    gain = challenger.metrics.get(champion.primary, 0.0) - champion.metrics.get(champion.primary, 0.0)
    opposite = gain < 0 if verdict is Verdict.BETTER else gain > 0
    if champion.promises and verdict is not Verdict.UNDECIDED and opposite:
        reason = f"{champion.primary} changes by {gain:+.4f}, and the other one is right more often: {reason}"
        verdict = Verdict.UNDECIDED
    if strange := sum(champion.unlearned.values()):
        reason += f"; the champion got {counted(strange, 'example')} wrong whose labels it never learned"
    return Comparison(
        **shared,
        difference=sum(differences) / len(differences),
        low=low,
        high=high,
        wins=wins,
        losses=losses,
        p_value=p_value,
        verdict=verdict,
        reason=reason,
    )


def compare_on(
    data: Path,
    champion: Path,
    challenger: Path,
    *,
    find: Callable[[str], Trainer[Any]] = trainer_of,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Score two predictors on the same held-out data and compare them.

    Args:
        data: Data that neither learned from.
        champion: Folder of the version that answers.
        challenger: Folder of the version that is to be better.
        find: Finds a trainer by the name that a manifest gives.
        confidence: Of the interval.
        seed: Of what is drawn.

    Raises:
        ArtefactError: If the two are of different kinds, or their parameters are not those of their trainer.
        DataError: If they cannot be scored on the data, or one learned from them.
        UnknownTrainerError: If a trainer is not known here.
    """
    kinds = [read_manifest(folder).kind for folder in (champion, challenger)]
    if kinds[0] != kinds[1]:
        raise ArtefactError(
            f"the champion is of kind {kinds[0]!r}, the challenger of kind {kinds[1]!r}: they cannot be "
            "compared"
        )
    before, after = score(champion, data, find, beside=True), score(challenger, data, find)
    return compare(before, after, confidence=confidence, seed=seed)


def score(
    folder: Path, data: Path, find: Callable[[str], Trainer[Any]] = trainer_of, *, beside: bool = False
) -> Evaluation:
    """Score a predictor on held-out data with the trainer that made it.

    Args:
        folder: The predictor.
        data: The held-out data.
        find: Finds its trainer.
        beside: Whether it is scored beside a newer one, which may have learned more labels: a row of a label
            that it never learned is then answered wrong, not refused.

    Raises:
        ArtefactError: If its parameters are not those of its trainer.
        DataError: If it cannot be scored on the data, or learned from them.
        UnknownTrainerError: If its trainer is not known here.
    """
    manifest = read_manifest(folder)
    trainer = find(manifest.trainer)
    try:
        parameters = trainer.parse_parameters(manifest.parameters)
    except ValidationError as error:
        raise ArtefactError(
            f"{str(folder)!r} was made with parameters that trainer {manifest.trainer!r} does not know: "
            f"{error.errors()[0]['msg']}"
        ) from error
    seen = trainer.look_over(data, parameters).sha256
    if manifest.data_sha256 and seen == manifest.data_sha256:
        raise DataError(
            f"{str(data)!r} is what {str(folder)!r} learned from: compare on data that neither has seen"
        )
    evaluate = trainer.evaluate_beside if beside else trainer.evaluate
    try:
        found = evaluate(folder, data, parameters)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(
            f"trainer {manifest.trainer!r} does not score {str(data)!r}: its evaluation has {place} = "
            f"{first['input']!r:.80} ({first['msg']})"
        ) from error
    return found.model_copy(update={"promises": trainer.promises, "data_sha256": seen})


def _verdict(
    low: float, high: float, wins: int, losses: int, p_value: float, most: float
) -> tuple[Verdict, str]:
    told = f"{wins} examples better, {losses} worse, p = {p_value:.3g}"
    interval = f"the interval of the difference is {low:+.4f} to {high:+.4f}"
    if p_value <= most and low > 0:
        return Verdict.BETTER, f"{interval}, above zero ({told})"
    if p_value <= most and high < 0:
        return Verdict.WORSE, f"{interval}, below zero ({told})"
    if wins == losses == 0:
        return Verdict.UNDECIDED, "both answer every example equally well"
    if low > 0 or high < 0:
        return Verdict.UNDECIDED, f"too few examples are answered differently ({told})"
    return Verdict.UNDECIDED, f"{interval}, around zero ({told})"
